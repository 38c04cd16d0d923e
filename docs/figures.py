"""The images of the README and of the gallery, from runs that are trained first unless they are there.

python docs/figures.py                    # all, into docs/_static/
python docs/figures.py readme report      # some
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from PIL import Image
from torch.func import grad

import firstspike as fs
from firstspike.layers import LIFLinear
from firstspike.layers.named import to_numpy
from firstspike.plots import RunData
from firstspike.plots.style import COLOURS, GREY, new_figure, time_label
from firstspike.reports.write import write_report

STATIC = Path(__file__).parent / "_static"
RUNS = Path(__file__).parent / "_build" / "runs"
TRAININGS = {
    "yin_yang": ("train", "yin_yang"),
}
_SAMPLE = 3


def run(name: str) -> RunData:
    """A run, trained if it is not there."""
    folder = RUNS / name
    if not (folder / "results.json").is_file():
        command = [sys.executable, "-m", "firstspike", *TRAININGS[name], "--out", str(folder)]
        subprocess.run(command, check=True)
    return RunData.of(fs.load_run(folder))


def readme(path: Path) -> None:
    """A sample of Yin-Yang: an exact spike and its derivatives, all spikes, and the decisions over the plane."""
    data = run("yin_yang")
    with fs.plots.style(), mpl.rc_context({"font.size": 10, "axes.titlesize": 10}):
        figure = new_figure(9.2, 3.2)
        left, middle, right = figure.subfigures(1, 3, width_ratios=(1.05, 1.0, 1.2))
        spike_and_gradient(data, left.subplots(2, 1, sharex=True, height_ratios=(1.5, 1)))
        ax = fs.plots.raster(data.network, data.record, middle.subplots(), _SAMPLE)
        ax.set(title="all spikes of this sample", ylabel="")
        ax = right.subplots()
        fs.plots.decision_map(data.plane_record.output, data.loss, ax, data.plane, names=data.class_names)
        x, y = data.plane.coordinates(data.held_out[1].times[[_SAMPLE]])[0]
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
        figure.savefig(path, dpi=170)


def spike_and_gradient(data: RunData, axes: Sequence[Axes]) -> None:
    """The membrane of a hidden neuron in a sample, and the derivative of its spike time by each weight."""
    first = data.lif_layers[0]
    layer, times = first.layer, first.inputs(data.record)[_SAMPLE]
    assert isinstance(layer, LIFLinear)
    spikes = data.record.layers[first.index][_SAMPLE]
    neuron = int(spikes.nan_to_num(posinf=-1.0).argmax())  # it spikes last, so all inputs matter

    def spike(weight: torch.Tensor) -> torch.Tensor:
        return fs.first_spike_time(times, weight, layer.neuron)[neuron]

    slopes = to_numpy(grad(spike)(layer.weight.detach())[neuron])
    upper, lower = axes
    fs.plots.membrane(layer, times, upper, [neuron])
    upper.set(title="a membrane and its exact spike", xlabel="")
    lower.stem(times, slopes, COLOURS[4], markerfmt="o", basefmt=" ")
    lower.axhline(0, color=GREY, linewidth=0.8)
    lower.set(title="exact derivatives of its time", xlabel=time_label(), ylabel=r"d$t$ / d$w_i$")
    lower.margins(y=0.15)


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
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(path, optimize=True)


FIGURES = {"readme": readme, "report": report}

if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name](STATIC / f"{name}.png")
