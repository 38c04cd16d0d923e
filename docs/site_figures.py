"""What ``figures.py`` draws of the site itself: data flow, the moving image of the first page, the live report."""

import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import nn

import firstspike as fs
from firstspike.plots.look import COLOURS, FAINT
from firstspike.plots.plane import YinYangPlane
from firstspike.reports.write import run_page

_SAMPLE = 3
INK, PAPER = "#e6edf3", "#0d1117"
NIGHT = {
    **dict.fromkeys(["figure.facecolor", "axes.facecolor", "savefig.facecolor"], PAPER),
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK),
}
"""Settings of images for dark pages."""

FLOW = (
    ("values", "a table, an image", "data"),
    ("encode", "", "box"),
    ("spike times", "(batch, inputs)", "data"),
    ("layers", "weights, delays", "box"),
    ("spike times", "(batch, outputs)", "data"),
    ("loss", "", "box"),
    ("a number", "", "data"),
)


def data_flow(path: Path) -> None:
    """Data from left to right, gradients back to weights and delays, in the colours of light or dark pages."""
    width, gap, parts = 104, 22, []
    for k, (name, note, kind) in enumerate(FLOW):
        x = 12 + k * (width + gap)
        parts.append(f'<rect class="{kind}" x="{x}" y="30" width="{width}" height="46" rx="6"/>')
        parts.append(f'<text x="{x + width / 2}" y="{50 if note else 57}">{name}</text>')
        if note:
            parts.append(f'<text class="note" x="{x + width / 2}" y="67">{note}</text>')
        if k:
            parts.append(f'<path class="arrow" d="M{x - gap + 2} 53H{x - 3}"/>')
    centre = [12 + k * (width + gap) + width / 2 for k in range(len(FLOW))]
    parts.append(f'<path class="arrow back" d="M{centre[6]} 82V104H{centre[3]}V82"/>')
    parts.append(f'<text class="note" x="{(centre[3] + centre[6]) / 2}" y="119">gradient, exact for all of them</text>')
    total = 24 + len(FLOW) * (width + gap) - gap
    style = (
        "svg { --ink: #1b1e23; --soft: #62676f; --field: #f5f6f8; --line: #1f5fbf; --back: #b3261e; --paper: #ffffff; }"
        " @media (prefers-color-scheme: dark) { svg { --ink: #e4e6e9; --soft: #9aa0a8; --field: #23262a;"
        " --line: #82b1ff; --back: #ff8a80; --paper: #16181b; } }\n"
        ".flow { font: 13px/1 system-ui, sans-serif; } .flow .paper { fill: var(--paper); }"
        " .flow text { fill: var(--ink); text-anchor: middle; } .flow .note { fill: var(--soft); font-size: 11px; }"
        " .flow .box { fill: var(--field); stroke: var(--soft); } .flow .data { fill: none; }"
        " .flow .arrow { stroke: var(--line); stroke-width: 1.5; fill: none; marker-end: url(#flow-head); }"
        " .flow .head { fill: context-stroke; } .flow .back { stroke: var(--back); stroke-dasharray: 5 3; }"
    )
    head = '<marker id="flow-head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} 130" width="{total}" height="130" class="flow">',
        f"<style>{style}</style>",
        f'<defs>{head}<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect class="paper" width="{total}" height="130" rx="6"/>',
        *parts,
        "</svg>\n",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def learning(run: fs.Run, path: Path, epochs: Sequence[int]) -> None:
    """A moving image: decisions over the plane, and the outputs' membranes in one sample, epoch by epoch."""
    plane, frames = YinYangPlane(resolution=150), []
    sample = run.held_out[1].times[[_SAMPLE]]
    for epoch in epochs:
        network = run.initial if not epoch else fs.Run(run.folder, f"epoch_{epoch:04d}").network
        with fs.plots.style():
            frames.append(frame(run, network, plane, sample, epoch))
    palette = frames[-1].quantize(48, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    first, *others = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in frames)
    lengths = [900, *[350] * (len(frames) - 2), 2500]
    first.save(path, save_all=True, append_images=others, duration=lengths, loop=0, optimize=True)


def at_night(figure: Figure) -> None:
    """What is black becomes light; maps and their legends, which are transparent, stay on white."""
    for ax in figure.axes if mpl.rcParams["figure.facecolor"] == PAPER else ():
        if ax.images:
            ax.set_facecolor("white")
            for patch in ax.get_legend().get_patches() if ax.get_legend() else ():
                *colour, alpha = patch.get_facecolor()
                patch.set(alpha=None, facecolor=[1 - alpha * (1 - x) for x in colour], edgecolor="none")
        for part in ax.findobj(lambda x: isinstance(x, Line2D | LineCollection)) if not ax.images else ():
            if isinstance(part, Line2D) and part.get_color() == COLOURS[2]:
                part.set(color=INK, markerfacecolor=INK, markeredgecolor=INK)
            if isinstance(part, LineCollection) and to_hex(part.get_color()[0]) == COLOURS[2]:
                part.set_color(INK)


def frame(run: fs.Run, network: nn.Module, plane: YinYangPlane, sample: torch.Tensor, epoch: int) -> Image.Image:
    """An epoch."""
    assert isinstance(network, fs.Network)
    figure = Figure(figsize=(7.2, 3.0), dpi=100)
    left, right = figure.add_axes((0.02, 0.12, 0.36, 0.74)), figure.add_axes((0.56, 0.16, 0.42, 0.7))
    correct = fs.Trainer(network, run.loss, torch.optim.SGD(network.parameters())).evaluate(run.held_out[1]).accuracy
    fs.plots.decision_map(plane.record(network).output.detach(), run.loss, left, plane, names=run.class_names)
    x, y = plane.coordinates(sample)[0]
    left.plot(x, y, "o", color="white", markeredgecolor="black", markersize=7)
    left.set(title=f"epoch {epoch}: {100 * correct:.0f} % correct", xticks=[], yticks=[], xlabel="", ylabel="")
    with torch.no_grad():
        record = network.record(sample)
    fs.plots.membrane(network[-1], record.layers[-2][0], right, until=3.0)
    right.set(title="outputs in the marked sample", xlim=(1.4, 3.0), ylim=(-0.8, 1.3))
    _hidden_spikes(right)
    at_night(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _hidden_spikes(ax: Axes) -> None:
    """Only the ticks are in the legend, and no faint traces are drawn."""
    for line in ax.get_lines():
        if line.get_label() == "input spikes":
            place = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.06), "handletextpad": 0.0, "fontsize": 8}
            ax.legend([line], ["hidden spikes, before their delays"], **place)
        if line.get_alpha() == FAINT:
            line.set_visible(False)


def live_report(source: fs.Run, path: Path) -> None:
    """A whole report, with the part of the plotting library that a page without images needs."""
    from plotly.offline import get_plotlyjs_version

    name = "plotly.js-basic-dist-min"
    environment = json.loads((source.folder / "environment.json").read_text("utf-8"))
    for name_of in ("platform", "processor", "commit"):  # of whoever draws it
        environment.pop(name_of, None)
    (source.folder / "environment.json").write_text(json.dumps(environment), "utf-8")
    with TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", f"{name}@{get_plotlyjs_version()}"], check=True, cwd=folder)
        (packed,) = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as archive:
            found = archive.extractfile("package/plotly-basic.min.js")
            assert found is not None
            library = found.read().decode()
    with patch("plotly.offline.get_plotlyjs", lambda: library):
        path.write_text(run_page(source, budget=100_000), "utf-8")
