"""The images of the README and of the gallery, from runs that are trained first unless they are there; the tutorials.

python docs/figures.py                                       # all
python docs/figures.py readme gallery                        # some images
python docs/figures.py live_report                           # the report of the site; needs npm
python docs/figures.py docs/tutorials/01_spike_times.ipynb   # executes a tutorial

Digests of what made them are kept in ``figures.json`` and in the tutorials. A test fails where they have changed since.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import guide_figures as guides
import matplotlib as mpl
import site_figures as site
import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch.func import grad

import firstspike as fs
from firstspike.configs import shipped_configs
from firstspike.layers import LIFLinear
from firstspike.layers.named import to_numpy
from firstspike.plots.look import COLOURS, GREY, legend_right, new_figure, time_label
from firstspike.plots.run_data import named_layers_of
from firstspike.plots.save import write_figure
from firstspike.plots.yin_yang import plane_of, plane_record
from firstspike.reports.write import write_report
from firstspike.sweeps.figures import SWEEP_PLOTS

STATIC = Path(__file__).parent / "_static"
RUNS = Path(__file__).parent / "_build" / "runs"
TUTORIALS = Path(__file__).parent / "tutorials"
DIGESTS = Path(__file__).parent / "figures.json"
CONVOLUTION = (
    "network=[{kind: conv, out_channels: 16, kernel_size: 3}, {kind: pool, kernel_size: 2},"
    " {kind: lif, out_features: 64}, {kind: lif, out_features: 10}]"
)
TRAININGS = {
    "yin_yang": ("yin_yang",),
    "bars": ("bars",),
    "delays": ("yin_yang_synaptic", "--set", "training.epochs=50"),
    "digits": ("digits", "--set", "training.epochs=40"),
    "convolution": ("digits", "--set", CONVOLUTION, "--set", "training.silent.limits=[0.5, 0.3, 0.1]"),
    "delayed_xor": ("delayed_xor",),
    "iris": ("iris.yaml",),
    "five_neurons": ("yin_yang_synaptic_h5", "--set", "training.checkpoint_every=1"),
    "seeds": ("yin_yang_w", "--seeds", "4", "--set", "training.epochs=25"),
}
SWEEP = """
base: yin_yang_synaptic
set: {training.epochs: 10}
axes:
  network[lif:0].out_features: [5, 10, 20, 30]
  training.optimizer.lr: {from: 0.003, to: 0.03, log: true, count: 3}
seeds: 3
"""
IRIS = """
data: {kind: files, train: iris.csv, validation: 0.2, test: 0.2, encode: {late: 2.0}}
neuron: {tau_mem: 4.0}
network: [{kind: lif, out_features: 20}, {kind: lif, out_features: 3}]
loss: {kind: cross_entropy, xi: 0.05}
training: {epochs: 60, batch_size: 12}
"""
TABLE = RUNS.parent / "iris.csv"
GUIDES: dict[str, tuple[Any, str | Path | None]] = {
    "raster_and_membranes": (guides.raster_and_membranes, "bars"),
    "table_to_spikes": (guides.table_to_spikes, TABLE),
    "in_the_loop": (guides.in_the_loop, "yin_yang"),
    "causal_set": (guides.causal_set, None),
    "time_steps": (guides.time_steps, None),
    "depth": (guides.depth, None),
    "receptors": (guides.receptors, None),
    "populations": (guides.populations, None),
    "published": (guides.published, None),
    "against_dense": (guides.against_dense, None),
}
"""Images of the guides: what draws each of them, and the run or the table that it takes."""
EPOCHS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 80, 100, 125, 150)
"""Frames of the moving image."""
GALLERY = {
    "yin_yang": ("summary", "weight_matrices"),
    "bars": ("loss_and_error", "output_times"),
    "iris": ("margins",),
    "seeds": ("loss_and_error",),
    "digits": (
        "output_times",
        "membrane",
        "confusion",
        "margins",
        "spike_histogram",
        "raster",
        "receptive_fields",
        "dataset",
    ),
    "convolution": ("receptive_fields",),
    "delayed_xor": ("spike_counts", "raster", "membrane"),
    "delays": ("parameters", "decision_map", "output_maps", "hidden_maps"),
}
"""Figures of runs on the page docs/plots.md, where each is called RUN_FIGURE."""
TAKES = {
    "readme": ["yin_yang"],
    "report": ["yin_yang"],
    "learning": ["five_neurons"],
    "live_report": ["five_neurons"],
    "gallery": [*GALLERY],
}
"""Runs that an image shows."""
_SAMPLE = 3


def run(name: str, substrate: str | None = None) -> fs.Run:
    """A run, trained if it is not there, possibly on another substrate."""
    folder = RUNS / name
    if not (folder / "results.json").is_file():
        if name == "iris":
            iris_table()
            (RUNS.parent / "iris.yaml").write_text(IRIS)
        firstspike("train", *TRAININGS[name], "--out", f"{RUNS.name}/{name}")
    return fs.Run(folder, substrate=substrate)


def firstspike(*arguments: str) -> None:
    """Run the command."""
    subprocess.run([sys.executable, "-m", "firstspike", *arguments], check=True, cwd=RUNS.parent)


def iris_table() -> None:
    """Fisher's irises, which come with scikit-learn, as a table."""
    from sklearn.datasets import load_iris

    iris = load_iris()
    rows = [[*map(str, values), iris.target_names[kind]] for values, kind in zip(iris.data, iris.target, strict=True)]
    TABLE.write_text("\n".join(map(",".join, [[*iris.feature_names, "kind"], *rows])) + "\n")


def guide(name: str, path: Path) -> None:
    """The image of a guide."""
    draw, takes = GUIDES[name]
    path.parent.mkdir(exist_ok=True)
    if takes == TABLE:
        iris_table()
    with fs.plots.style():
        save(draw(*([] if takes is None else [run(takes) if isinstance(takes, str) else takes])), path)


def learning(path: Path) -> None:
    """The moving image of the first page, and one for dark pages."""
    site.learning(run("five_neurons"), path, EPOCHS)
    with mpl.rc_context(site.NIGHT):
        site.learning(run("five_neurons"), path.with_stem("learning_dark"), EPOCHS)


def gallery(folder: Path) -> None:
    """All figures of runs and of a sweep."""
    folder.mkdir(exist_ok=True)
    for name, figures in GALLERY.items():
        for figure in figures:
            save(fs.plots.PLOTS[figure](run(name)), folder / f"{name}_{figure}.png")
    save(fs.plots.PLOTS["substrate"](run("yin_yang", "noisy")), folder / "yin_yang_substrate.png")
    file = RUNS.parent / "sweep.yaml"
    file.write_text(SWEEP)
    firstspike("sweep", file.name)
    firstspike("plot", "sweep")
    for figure in SWEEP_PLOTS:
        shrink(RUNS / "sweep" / "figures" / f"{figure}.png", folder / f"sweep_{figure}.png")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a small file."""
    shrink(write_figure(figure, path), path)


def shrink(image: Path, path: Path) -> None:
    """An image at most 1000 pixels wide with 256 colours; maps of times are smaller and keep all of theirs."""
    with Image.open(image) as opened:
        pixels = opened.convert("RGB")
    smooth = path.stem.endswith("_maps")
    pixels.thumbnail((800, 1400) if smooth else (1000, 1400), Image.Resampling.LANCZOS)
    if not smooth:
        pixels = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    pixels.save(path, optimize=True)


def readme(path: Path) -> None:
    """The image of the README, and one for dark pages."""
    yin_yang_sample(path)
    with mpl.rc_context(site.NIGHT):
        yin_yang_sample(path.with_stem("readme_dark"))


def yin_yang_sample(path: Path) -> None:
    """A sample of Yin-Yang: an exact spike and its derivatives, all spikes, and the decisions over the plane."""
    data = run("yin_yang")
    with fs.plots.style(), mpl.rc_context({"font.size": 10, "axes.titlesize": 10}):
        figure = new_figure(9.2, 3.2)
        left, middle, right = figure.subfigures(1, 3, width_ratios=(1.05, 1.0, 1.2))
        spike_and_gradient(data, left.subplots(2, 1, sharex=True, height_ratios=(1.5, 1)))
        ax = fs.plots.raster(data.network, data.record, middle.subplots(), _SAMPLE)
        names = [label.get_text().partition(" ")[0] for label in ax.get_yticklabels()]
        ax.set(title="all spikes of a sample", ylabel="")
        ax.set_yticks(ax.get_yticks(), names)
        ax = right.subplots()
        fs.plots.decision_map(plane_record(data).output, data.loss, ax, plane_of(data), names=data.class_names)
        x, y = plane_of(data).coordinates(data.held_out[1].times[[_SAMPLE]])[0]
        ax.plot(x, y, "o", color="white", markeredgecolor="black", markersize=7)
        ax.annotate(
            "this sample",
            (x, y),
            (x, y + 0.1),
            ha="left",
            color="white",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )
        ax.set_title(f"decisions, {100 * data.evaluation.accuracy:.1f} % correct")
        site.at_night(figure)
        figure.savefig(path, dpi=170)


def spike_and_gradient(data: fs.Run, axes: Sequence[Axes]) -> None:
    """The membrane of a hidden neuron in a sample, and the derivatives of its spike time."""
    first = named_layers_of(data)[0]
    layer, times = first.layer, first.inputs(data.record)[_SAMPLE]
    assert isinstance(layer, LIFLinear)
    spikes = data.record.layers[first.index][_SAMPLE]
    neuron = int(spikes.nan_to_num(posinf=-1.0).argmax())  # it spikes last, so all inputs matter
    colour = COLOURS[5]  # the others are classes

    def spike(weight: torch.Tensor) -> torch.Tensor:
        return fs.first_spike_time(times, weight, layer.neuron)[neuron]

    slopes = to_numpy(grad(spike)(layer.weight.detach())[neuron])
    upper, lower = axes
    fs.plots.membrane(layer, times, upper, [neuron])
    for line in upper.get_lines():
        if line.get_color() == COLOURS[neuron % len(COLOURS)]:
            line.set(color=colour, linestyle="-", marker="o" if len(line.get_xydata()) == 1 else "")
    upper.set(title="a hidden neuron and its spike at $T$", xlabel="")
    lower.stem(times, slopes, colour, markerfmt="o", basefmt=" ")
    lower.axhline(0, color=GREY, linewidth=0.8)
    lower.set(title="its exact derivatives", xlabel=time_label(), ylabel=r"$\partial T\,/\,\partial w_i$")
    lower.margins(y=0.15)


def neurons(path: Path) -> None:
    """Membranes and states of all neurons with a name, for the same input spikes."""
    end, never = 120.0, torch.inf
    excitation = [5.0, *(20.0 + 5.0 * torch.arange(10)).tolist()]
    times = torch.tensor([excitation, [80.0, 85.0] + [never] * 9], dtype=torch.float64)
    common: Any = {"tau_mem": 10.0, "refractory": 2.0}
    both = torch.tensor([[1.0, -1.0]])  # the second input inhibits
    shown = {
        "LIF": (
            fs.neurons.AdaptiveLIF(**common, tau_syn=5.0, threshold_adaptation=[(40.0, 0.0)]),  # also shows its current
            1.1 * both,
        ),
        "AdaptiveLIF": (
            fs.neurons.AdaptiveLIF(**common, tau_syn=5.0, threshold_adaptation=[(40.0, 0.3)]),
            1.1 * both,
        ),
        "QIF": (fs.neurons.QIF(tau_mem=5.0, tau_syn=5.0), 0.7 * both),
        "EIF": (fs.neurons.EIF(**common, tau_syn=5.0), 1.1 * both),
        "AdEx": (fs.neurons.AdEx(), 800.0 * both),
        "Izhikevich": (fs.neurons.Izhikevich(), 10.0 * both),
        "AdLIF": (fs.neurons.AdLIF(**common, tau_syn=5.0, tau_w=20.0, a=2.0, b=0.3), 1.8 * both),
        "ConductanceLIF": (fs.neurons.ConductanceLIF(**common, tau_syn=(5.0, 5.0)), 0.43 * both.abs()),
    }
    with fs.plots.style():
        figure = new_figure(9.0, 8.6)
        axes = figure.subplots(4, 2, sharex=True)
        for ax, (name, (neuron, weight)) in zip(axes.T.flat, shown.items(), strict=True):
            receptor = [0, 1] if len(neuron.receptors) > 1 else None
            layer = fs.SpikeTrains(2, 1, 50, neuron, receptor=receptor, until=end, dtype=torch.float64)
            with torch.no_grad():
                layer.weight.copy_(weight)
            fs.plots.membrane(layer, times, ax, until=end, unit="ms")
            lines = [x for x in ax.get_lines() if not str(x.get_label()).startswith(("_", "input spikes"))]
            for part in (lines[-1], ax.collections[-1]) if name == "ConductanceLIF" else ():
                part.set_color(COLOURS[5])  # of adaptation it would be that of the second line
            legend_right(ax, handles=lines)
            ax.set(title=name, ylabel="", yticks=[])
            ax.label_outer()
        save(figure, path)


def nest_twin(path: Path) -> None:
    """A recurrent network here and in NEST."""
    draw_example("nest_twin.py", path)


def target_trains(path: Path) -> None:
    """Trains before and after learning."""
    draw_example("target_trains.py", path)


def large_network(path: Path) -> None:
    """Rates of 10 000 neurons before and after learning."""
    draw_example("large_network.py", path, "rates")


def draw_example(name: str, path: Path, *arguments: str) -> None:
    """The picture of a script in examples/."""
    example = Path(__file__).parents[1] / "examples" / name
    subprocess.run([sys.executable, str(example), *arguments, str(path)], check=True)
    shrink(path, path)


def report(path: Path) -> None:
    """A part of the report of the same run, in Chromium."""
    from playwright.sync_api import FloatRect, sync_playwright

    page_file = write_report(run("yin_yang"))
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root with its sandbox
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1100, "height": 860}, color_scheme="light")
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-ready]")
        box = page.locator("#sample").bounding_box()
        assert box is not None
        clip = FloatRect(x=0, y=box["y"], width=1100, height=box["height"])
        page.screenshot(path=path, full_page=True, clip=clip)
        browser.close()
    shrink(path, path)


def live_report(path: Path) -> None:
    """The report of the site."""
    site.live_report(run("five_neurons"), path)


def execute(path: Path) -> None:
    """Run a tutorial and store it with its outputs and the digest of its code."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute(cwd=folder)
    notebook.metadata["code"] = code_digest(notebook)
    nbformat.write(notebook, path)


def code_digest(notebook: Mapping[str, Any]) -> str:
    """Of the code of a tutorial."""
    return digest("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")


def figure_digest(name: str) -> str:
    """Of what makes an image: the functions here, trainings, and their configs; not of the package's code."""
    if name in GUIDES:
        draw, takes = GUIDES[name]
        sources = map(inspect.getsource, (draw, guide, save, shrink))
        return digest([*sources, str(TRAININGS.get(str(takes))), guides.measured(name)])
    if name == "data_flow":
        return digest([inspect.getsource(site.data_flow), str(site.FLOW)])
    trainings = {run: TRAININGS[run] for run in TAKES.get(name, ())}
    shipped = (shipped_configs().get(training[0]) for training in trainings.values())
    configs = [yaml.safe_load(path.read_text("utf-8")) | {"published": ""} for path in shipped if path]
    own = [inspect.getsource(part) for part in (FIGURES[name][0], spike_and_gradient, save, shrink)]
    beside = {
        "readme": (yin_yang_sample, site.at_night),
        "learning": (site.learning, site.frame, site.at_night),
        "live_report": (site.live_report,),
    }
    own += map(inspect.getsource, beside.get(name, ()))
    settings = {"learning": [EPOCHS], "gallery": [SWEEP, IRIS, GALLERY]}.get(name, [])
    return digest([*own, *map(str, [trainings, *settings, *configs])])


def digest(texts: Iterable[str]) -> str:
    """Short, of several texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


FIGURES = {
    "readme": (readme, "readme.png"),
    "report": (report, "report.png"),
    "neurons": (neurons, "neurons.png"),
    "nest_twin": (nest_twin, "nest_twin.png"),
    "target_trains": (target_trains, "target_trains.png"),
    "large_network": (large_network, "large_network.png"),
    "gallery": (gallery, "gallery"),
    "learning": (learning, "learning.gif"),
    "data_flow": (site.data_flow, "data_flow.svg"),
    "live_report": (live_report, "report_yin_yang.html"),
    **{name: (partial(guide, name), f"guides/{name}.png") for name in GUIDES},
}

if __name__ == "__main__":
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or [*FIGURES, *sorted(map(str, TUTORIALS.glob("*.ipynb")))]:
        if name.endswith(".ipynb"):
            execute(Path(name))
        else:
            draw, place = FIGURES[name]
            draw(STATIC / place)
            digests = json.loads(DIGESTS.read_text("utf-8")) if DIGESTS.is_file() else {}
            DIGESTS.write_text(json.dumps(digests | {name: figure_digest(name)}, indent=1) + "\n", "utf-8")
