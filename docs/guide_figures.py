"""Images of the guides, which ``figures.py`` draws: functions of a path, or of a run and a path."""

import copy
import csv
import itertools
import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import firstspike as fs
from firstspike.config import load_config
from firstspike.data import LatencyEncoder
from firstspike.layers import start_firing_
from firstspike.plots.look import COLOURS, GREY, legend_right, log_ticks, new_figure, time_label
from firstspike.plots.plane import YinYangPlane

HERE = Path(__file__).parent
NUMBERS = HERE.parent / "benchmarks" / "results.json"
_SAMPLE = 3


def raster_and_membranes(run: fs.Run) -> Figure:
    """The image of a sample, all spikes that follow, and the membranes of the outputs."""
    figure = new_figure(8.4, 2.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=(0.9, 1.1, 1.3))
    times, layer = run.held_out[1].times[_SAMPLE], run.network[-1]
    fs.plots.spike_images(times.unsqueeze(0), [left], (3, 3), ["input"])
    fs.plots.raster(run.network, run.record, middle, _SAMPLE)
    middle.set(title="all spikes", ylabel="")
    fs.plots.membrane(layer, run.record.layers[-2][_SAMPLE], right, names=run.class_names)
    right.get_lines()[-1].set_label("its input spikes\n(hidden)")
    legend_right(right)
    right.set_title("membranes of the outputs")
    return figure


def table_to_spikes(table: Path) -> Figure:
    """Rows of a table, and the spikes that encode them."""
    with table.open(encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    values = np.array([row[:-1] for row in rows], dtype=float)
    encoder = LatencyEncoder(late=2.0).fit(values)
    chosen = [next(k for k, row in enumerate(rows) if row[-1] == name) for name in dict.fromkeys(r[-1] for r in rows)]
    figure = new_figure(8.4, 1.9)
    for ax, k in zip(figure.subplots(1, len(chosen), sharex=True), chosen, strict=True):
        on, off = encoder(values[[k]])[0].reshape(2, -1)
        places = np.arange(len(on))
        for times, shift, colour, name in ((on, -0.17, COLOURS[0], "on"), (off, 0.17, COLOURS[4], "off")):
            ax.vlines(times, places + shift - 0.15, places + shift + 0.15, colour, linewidth=2.5, label=name)
        ax.set_yticks(
            places, [f"{name.partition(' (')[0]} {value:g}" for name, value in zip(head, values[k], strict=False)]
        )
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(on) - 0.5, -0.5), xlim=(0, 2.1), xlabel=time_label(), title=rows[k][-1])
    legend_right(ax, title="input")
    return figure


def in_the_loop(run: fs.Run) -> Figure:
    """Decisions of a network on an imperfect device, before and after some epochs with the device in the loop."""
    noise: dict[str, Any] = {"threshold_spread": 0.1, "threshold_batch_noise": 0.02, "spike_jitter": 0.02}
    device = fs.substrates.Noisy(**noise, weight_scale=20, seed=7)
    adapted = copy.deepcopy(run.network).requires_grad_(True)
    optimizer = torch.optim.Adam(adapted.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    silent = fs.SilentNeurons(limits=[0.3, 0.02], increment=0.0005)
    trainer = fs.Trainer(adapted, run.loss, optimizer, schedule=schedule, silent=silent, substrate=device)
    trainer.fit(run.data.train, epochs=10, batch_size=50, seed=0, progress_bar=False)
    plane, figure = YinYangPlane(), new_figure(8.0, 2.8)
    for ax, network, substrate, title in zip(
        figure.subplots(1, 3, sharey=True),
        (run.network, run.network, adapted),
        (None, device, device),
        ("trained and run in software", "the same network on the device", "trained further on the device"),
        strict=True,
    ):
        on = fs.Trainer(network, run.loss, torch.optim.SGD(network.parameters()), substrate=substrate)
        correct = statistics.fmean(on.evaluate(run.held_out[1]).accuracy for _ in range(3))
        with (substrate or fs.substrates.Exact()).open(network) as chip:
            output = chip.record(network, plane.times()).output
        fs.plots.decision_map(output, run.loss, ax, plane, names=run.class_names)
        ax.set_title(f"{title}:\n{100 * correct:.1f} % correct")
        if network is not adapted:
            ax.get_legend().remove()
        ax.label_outer()
    return figure


def causal_set() -> Figure:
    """The membrane that the first inputs alone would cause, for several numbers of them; one crossing is the spike."""
    neuron = fs.LIF(tau_mem=2.0)
    times = torch.tensor([0.0, 0.6, 1.2, 2.6], dtype=torch.float64)
    weight = torch.tensor([[2.3, -1.0, 1.4, 1.0]], dtype=torch.float64)
    spike = fs.first_spike_time(times.unsqueeze(0), weight, neuron).item()
    at = np.linspace(0, 3.2, 3201)
    since = at - times.numpy()[:, None]
    response = 2.0 * (np.exp(-since / 2) - np.exp(-since)) * (since > 0)
    figure = new_figure(7.5, 2.7)
    ax = figure.subplots()
    for count, colour in ((1, COLOURS[1]), (2, COLOURS[4]), (3, COLOURS[0])):
        voltage = weight[0, :count].numpy() @ response[:count]
        begin, end = times[count - 1].item(), times[count].item()
        after, inside = at >= begin, (at >= begin) & (at <= min(end, spike))
        ax.plot(at[after], voltage[after], color=colour, alpha=0.6, linestyle=(0, (4, 2)), linewidth=1)
        ax.plot(at[inside], voltage[inside], color=colour, linewidth=2.4)
        crossed = at[after & (voltage >= 1)]
        label = f"first {count}: " if count > 1 else "the first: "
        if len(crossed):
            valid = crossed[0] <= end
            ax.plot(crossed[0], 1, "o", color=colour, markerfacecolor=colour if valid else "white", zorder=4)
            label += f"{crossed[0]:.2f}, " + ("before the next: the spike" if valid else "after the next one arrived")
        else:
            label += "no time"
        ax.plot([], [], color=colour, label=label)
    ax.axhline(1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.plot(times, np.full(4, 0.03), "|", color=COLOURS[2], markersize=9, transform=ax.get_xaxis_transform())
    ax.set(xlabel=time_label(), ylabel="membrane [threshold]", ylim=(-0.12, 1.4))
    legend_right(ax, title="these inputs alone cross at")
    return figure


def time_steps() -> Figure:
    """A spike in time steps and the exact one; and both as functions of a weight."""
    neuron, step = fs.LIF(tau_mem=2.0), 0.25
    times = torch.tensor([[0.0, 0.5]], dtype=torch.float64)

    def membrane(at: np.ndarray, first: float) -> np.ndarray:
        since = at - times[0].numpy()[:, None]
        return np.array([first, 0.6]) @ (2.0 * (np.exp(-since / 2) - np.exp(-since)) * (since > 0))

    def exact(first: float) -> float:
        return fs.first_spike_time(times, torch.tensor([[first, 0.6]], dtype=torch.float64), neuron).item()

    def found(first: float) -> float:
        over = grid[membrane(grid, first) >= 1]
        return float(over[0]) if len(over) else np.nan

    grid, fine = step * np.arange(9), np.linspace(0, 2.0, 400)
    figure = new_figure(7.5, 2.6)
    left, right = figure.subplots(1, 2)
    on_grid, spike = membrane(grid, 1.7), exact(1.7)
    late = found(1.7)
    left.plot(fine, membrane(fine, 1.7), color=COLOURS[0], label="exact")
    left.step(grid, on_grid, where="post", color=COLOURS[4], linewidth=1, label=f"in steps of {step:g}")
    left.plot([spike], [1], "o", color=COLOURS[0], zorder=4)
    left.plot([late], [on_grid[grid == late][0]], "s", color=COLOURS[4], zorder=4)
    left.axhline(1, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    left.set(xlabel=time_label(), ylabel="membrane [threshold]", title=f"spike at {spike:.3f}, or at {late:g}")
    left.legend(loc="lower right")
    weights = np.linspace(1.2, 2.2, 201)
    right.plot(weights, list(map(exact, weights)), color=COLOURS[0], label="exact: has a slope")
    right.plot(
        weights, list(map(found, weights)), ".", color=COLOURS[4], markersize=3, label="in steps: flat, then jumps"
    )
    right.set(xlabel="first weight", ylabel=time_label(what="spike time"), title="spike time and weight")
    right.legend()
    return figure


def depth() -> Figure:
    """How much samples differ in each layer of a deep network with the usual weights, and with ``start_firing_``.

    In each sample and layer, times are relative to their mean: a shift of all of them says nothing of the class.
    """
    data, sizes = fs.data.digits("train"), [64] * 16 + [10]
    figure = new_figure(6.5, 2.5)
    ax = figure.subplots()
    for colour, marker, label in ((COLOURS[0], "o", "after start_firing_"), (COLOURS[4], "s", "as constructed")):
        torch.manual_seed(0)
        net = fs.Network(*(fs.LIFLinear(a, b) for a, b in itertools.pairwise(sizes)))
        if marker == "o":
            start_firing_(net, data.times[:256])
        spread = []
        for layer in net.record(data.times).layers:
            times = torch.where(layer.isfinite(), layer, torch.nan).detach()
            relative = times - times.nanmean(dim=1, keepdim=True)
            spread.append((relative - relative.nanmean(dim=0)).square().nanmean().sqrt().item())
        ax.plot(range(1, len(spread) + 1), spread, marker=marker, markersize=4, color=colour, label=label)
    ax.set(xlabel="layer", ylabel=time_label(what="difference of samples"), yscale="log")
    ax.set_xticks([1, 4, 8, 12, 16])
    log_ticks(ax.yaxis, *ax.get_ylim())
    legend_right(ax, title="weights")
    return figure


def receptors() -> Figure:
    """A neuron with two receptors, an adaptation and a threshold that moves."""
    neuron = fs.neurons.AdaptiveLIF(
        tau_mem=20.0, tau_syn=(5.0, 8.0), adaptation=[(100.0, 0.15)], threshold_adaptation=[(50.0, 0.2)], unit="ms"
    )
    layer = fs.SpikeTrains(2, 1, 50, neuron, receptor=[0, 1], until=150.0, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.5, -0.8]]))
    excitation = (5.0 + 6.0 * torch.arange(20, dtype=torch.float64)).tolist()
    inhibition = [70.0, 75.0, *[torch.inf] * 18]
    figure = new_figure(7.0, 2.6)
    ax = fs.plots.membrane(
        layer, torch.tensor([excitation, inhibition], dtype=torch.float64), figure.subplots(), until=150.0
    )
    ax.set(ylabel="", yticks=[])
    legend_right(ax)
    return figure


def populations() -> Figure:
    """Spikes of an E/I network, and what Elephant says of them."""
    import quantities as pq
    from elephant.conversion import BinnedSpikeTrain
    from elephant.spike_train_correlation import correlation_coefficient
    from elephant.statistics import cv, isi, mean_firing_rate

    draw, end = torch.Generator().manual_seed(0), 1000.0
    exc, neurons, inputs = 800, 1000, 400
    cell = fs.neurons.Cell("IF_curr_exp", cm=0.25, tau_m=20.0, tau_syn_E=5.0, tau_syn_I=5.0, tau_refrac=2.0)

    def projection(pre: range, post: range, current: float) -> fs.connect.Synapses:
        options: dict[str, Any] = {"weight": cell.weights(current), "delay": 1.5, "generator": draw}
        found = fs.connect.fixed_indegree(len(pre), len(post), len(pre) // 10, **options)
        return found.at(pre.start, post.start, neurons, neurons)

    e, i = range(exc), range(exc, neurons)
    layer = fs.SpikingRecurrent(
        inputs, neurons, max_spikes=200, duration=end, neuron=cell.neuron, window=1.5,
        recurrent=projection(e, e, 0.04) + projection(e, i, 0.06) + projection(i, range(neurons), -0.3),
        recurrent_signs=[1] * exc + [-1] * (neurons - exc),
        synapses=fs.connect.fixed_indegree(inputs, neurons, 40, weight=cell.weights(0.1), generator=draw),
    )  # fmt: skip
    with torch.no_grad():
        trains = layer(fs.data.poisson(0.02, end, inputs, samples=1, seed=1))
    figure = new_figure(8.4, 4.6)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    fs.plots.raster(layer, trains, upper.subplots())
    axes = lower.subplots(1, 3)
    labels, all_bins = ("rate [Hz]", "CV of intervals", "correlation in 20 ms"), (
        np.arange(0.0, 31.0) - 0.5, np.linspace(0.0, 2.0, 26), np.linspace(-0.3, 0.5, 33),
    )  # fmt: skip
    found = fs.to_neo(trains, layer).segments[0]
    for name, colour in (("E", COLOURS[-1]), ("I", COLOURS[0])):
        own = [x for x in found.spiketrains if x.annotations["source_population"] == name and len(x) > 3]
        binned = BinnedSpikeTrain(own[:150], bin_size=20 * pq.ms)
        together = correlation_coefficient(binned)[np.triu_indices(len(own[:150]), 1)]
        values = [[1e3 * float(mean_firing_rate(x)) for x in own], [cv(isi(x)) for x in own], together]
        for ax, value, bins, label in zip(axes, values, all_bins, labels, strict=True):
            weights = np.full(len(value), 100 / len(value))
            ax.hist(value, bins, weights=weights, histtype="step", color=colour, linewidth=1.4, label=name)
            ax.set_xlabel(label)
    axes[0].set_ylabel("neurons [%]")
    axes[2].set_ylabel("pairs [%]")
    legend_right(axes[2])
    return figure


def published() -> Figure:
    """Test errors of the shipped recipes, and those that were published for the same data."""
    accuracies = json.loads(measured("published"))["accuracies"]
    rows: list[tuple[str, list[float], list[float]]] = []
    for name, found in accuracies.items():
        said = re.findall(r"(\d\d\.\d+)(?: ± [\d.]+)? %", load_config(name).published)
        if said and found["test"]:
            rows.append((name, [100 - 100 * x for x in found["test"].values()], [100 - float(x) for x in said]))
    rows.sort(key=lambda row: statistics.fmean(row[1]))
    figure = new_figure(7.0, 0.9 + 0.22 * len(rows))
    ax = figure.subplots()
    places = range(len(rows))
    means = [statistics.fmean(here) for _, here, _ in rows]
    spreads = [statistics.stdev(here) for _, here, _ in rows]
    ax.errorbar(
        means, places, xerr=spreads, fmt="o", color=COLOURS[0], capsize=3, label="here, mean and\nstandard deviation"
    )
    there = [(value, place) for place, (_, _, values) in enumerate(rows) for value in values]
    hollow: Any = {"markerfacecolor": "none", "markersize": 6, "markeredgewidth": 1.4, "zorder": 4}
    ax.plot(*zip(*there, strict=True), "D", color=COLOURS[4], label="published", **hollow)
    ax.set_yticks(places, [name for name, _, _ in rows])
    ax.set(xscale="log", xlabel="test error [%]", ylim=(-0.6, len(rows) - 0.4))
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    log_ticks(ax.xaxis, *ax.get_xlim())
    legend_right(ax)
    return figure


def against_dense() -> Figure:
    """Times as multiples of those of dense layers, from the first table of the benchmarks."""
    lines = measured("against_dense").splitlines()
    (_, *runs), _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    names = [row[0].replace("`", "") for row in rows]
    figure = new_figure(7.5, 1.2 + 1.2 * len(runs))
    ax = figure.subplots()
    wide, colours = 0.78 / len(runs), (COLOURS[0], COLOURS[3], COLOURS[1], *COLOURS[4:])
    for k, (run, colour) in enumerate(zip(runs, colours, strict=False)):
        medians = [float(row[1 + k].split()[0]) for row in rows]
        at = np.arange(len(rows)) + wide * (k - (len(runs) - 1) / 2)
        ax.barh(at, medians, 0.95 * wide, color=colour, label=run.partition(", ")[2])
    ax.axvline(1, color=COLOURS[2], linewidth=0.9, linestyle=(0, (4, 3)), label="dense")
    ax.set_yticks(range(len(rows)), names)
    ax.set(xlabel="time, dense layer or network = 1", ylim=(len(rows) - 0.4, -0.6))
    ax.legend(loc="center right")
    return figure


def measured(figure: str) -> str:
    """The numbers that a figure shows, as text."""
    if figure == "published":
        return NUMBERS.read_text(encoding="utf-8")
    page = (HERE / "benchmarks.md").read_text(encoding="utf-8") if figure == "against_dense" else ""
    return page[page.find("|  |") :].partition("\n\n")[0]
