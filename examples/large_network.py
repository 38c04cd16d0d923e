"""Train networks of 10 000 neurons with a million recurrent synapses: to target rates, and to tell spoken digits.

Four fifths of the neurons excite, the others inhibit, with delays of 1.5 ms. Exact spike times say how each spike moves
with each of the synapses, but a neuron without spikes has no spike to move: ``SpikeCount`` reaches it.

    python examples/large_network.py rates large_network.png --seeds 3
    python examples/large_network.py digits free-spoken-digit-dataset --seeds 3
    python examples/large_network.py digits free-spoken-digit-dataset --learns synapses --picture digits.png

``--learns everything`` and ``readout`` train a readout of all neurons, with or without the network. With ``synapses``,
``inputs`` and ``recurrent`` nothing outside of it learns: ten populations decide, each for a digit.
"""

import argparse
import statistics
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.distributions import Normal, Uniform

import firstspike as fs
from firstspike.data import DATASETS
from firstspike.plots.look import COLOURS, GREY

EACH, DELAY = 100, 1.5  # recurrent synapses of a neuron, and their delay in ms
NEURON, SLOWER = (fs.LIF(mem, syn, refractory=2.0, unit="ms") for mem, syn in ((10.0, 2.0), (20.0, 5.0)))
LEARNS = "everything", "readout", "synapses", "inputs", "recurrent"


def layer_of(inputs, neurons, each, drive, duration, generator, weight=0.02, neuron=NEURON):
    """Excitatory and inhibitory neurons, each with synapses from some of the inputs and from others of the layer."""
    excite, options = neurons * 4 // 5, {"delay": DELAY, "generator": generator}
    rule = fs.connect.fixed_indegree
    few = min(EACH, neurons // 5)
    excites = rule(excite, neurons, few * 4 // 5, weight=Uniform(0.5 * weight, 1.5 * weight), **options)
    inhibits = rule(neurons - excite, neurons, few // 5, weight=Uniform(-7.5 * weight, -2.5 * weight), **options)
    return fs.SpikingRecurrent(
        inputs, neurons, 20, duration, neuron, window=DELAY, overflow="drop",
        synapses=rule(inputs, neurons, each, weight=drive, generator=generator),
        recurrent=excites.at(sources=neurons) + inhibits.at(excite),
        recurrent_signs=[1] * excite + [-1] * (neurons - excite),
    )  # fmt: skip


def rates(seed, neurons, steps, samples=4, duration=100.0):
    """A network that is nearly silent learns a rate for each neuron: 5 Hz, of inhibitory neurons 10 Hz, on average."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer_of(1000, neurons, 10, Uniform(0.07, 0.21), duration, generator)
    network = fs.Network(fs.PoissonSpikes(1000, 0.02, duration), layer)  # at 20 Hz, drawn anew in each step
    spread, mean = 0.5, torch.tensor([5.0, 10.0])[(torch.arange(neurons) >= neurons * 4 // 5).long()]
    target = mean * torch.exp(spread * torch.randn(neurons, generator=generator) - spread**2 / 2)  # log-normal
    count = fs.losses.SpikeCount(1.0, target * duration / 1e3, target * duration / 1e3, recurrent=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.004)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    nothing = torch.full((samples, 0), torch.inf)

    def measured():
        with torch.no_grad():
            trains = torch.cat([network(nothing) for _ in range(32)])
        return trains, 1e3 / duration * trains.isfinite().sum(dim=-1).float().mean(dim=0)

    torch.manual_seed(seed)  # of the Poisson inputs
    before, start = measured(), time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.no_grad():  # the term needs numbers of spikes alone
            record = network.record(nothing)
        count(record.output, None, network, record).backward()
        optimizer.step()
        schedule.step()
        layer.project_()  # signs stay
    return target, before, measured(), time.process_time() - start


def show_rates(results, neurons):
    """Print what was reached, and draw the first seed."""
    excite = neurons * 4 // 5
    for name, part in (("excitatory", slice(excite)), ("inhibitory", slice(excite, None))):
        target = [x[0][part].mean().item() for x in results]
        means = [[x[k][1][part].mean().item() for x in results] for k in (1, 2)]
        close = [torch.corrcoef(torch.stack([x[0][part], x[2][1][part]]))[0, 1].item() for x in results]
        print(
            f"{name}: target {spread(target)}, before {spread(means[0])}, after {spread(means[1])} Hz; correlation of "
            f"rates with targets {spread(close)}"
        )
    print(f"{spread([x[3] for x in results])} s of CPU time")
    target, before, after, _ = results[0]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", width_ratios=(2, 1))
    few, most = neurons // 10, float(target.quantile(0.999))
    kinds = ("excitatory", COLOURS[0], 0, excite), ("inhibitory", COLOURS[1], excite, neurons)
    for (left, right), title, (trains, found) in zip(axes, ("before", "after"), (before, after), strict=True):
        for name, colour, first, last in kinds:
            shown = trains[0, first : first + (last - first) // 10]
            place, spike = shown.isfinite().nonzero(as_tuple=True)
            options = {"color": colour, "markersize": 1.5, "label": name, "rasterized": True}
            left.plot(shown[place, spike], place + first // 10, ".", **options)
            right.plot(target[first:last], found[first:last], ".", **options)
        right.plot([0, most], [0, most], color=GREY, linewidth=1)
        left.set(
            title=f"{few} of the neurons, {title}", xlabel="time [ms]", ylabel="neuron", ylim=(0, few), xlim=(0, 100)
        )
        right.set(title=f"rates {title}", xlabel="target [Hz]", ylabel="rate [Hz]", xlim=(0, most), ylim=(0, most))
    axes[0, 1].legend(markerscale=6, loc="upper left")
    return figure


def digits(seed, neurons, epochs, data, learns="everything", folder=None, looks=False):
    """A network learns to tell spoken digits, played five times as fast: everything, or a part of it.

    Without a readout that learns, every tenth neuron belongs to the population of a digit. Its spikes count for this
    digit, early ones more. With a ``folder`` the training is resumed. ``looks``: what is ``seen`` before and after it.
    """
    generator, populations = torch.Generator().manual_seed(seed), learns not in ("everything", "readout")
    neuron, weight = (SLOWER, 0.01) if populations else (NEURON, 0.02)
    layer = layer_of(data.train.features, neurons, 8, Normal(0.08, 0.08), 130.0, generator, weight, neuron)
    options = {"tau": 40.0 if populations else 100.0, "weight_mean": 0.0, "weight_std": 0.0}
    readout = fs.IntegralReadout(neurons, 10, neuron, **options)
    if populations:
        with torch.no_grad():
            readout.weight.copy_(torch.arange(neurons) % 10 == torch.arange(10)[:, None])
            readout.weight *= 20 / readout(layer(data.train.times[:100])).mean()
    network, batch_size = fs.Network(layer, readout), 10 if populations else 30
    rates = {
        "everything": {layer.weight: 0.002, layer.recurrent_weight: 0.0005, readout.weight: 0.0002},
        "readout": {readout.weight: 0.0002},
        "synapses": {layer.weight: 0.003, layer.recurrent_weight: 0.004},
        "inputs": {layer.weight: 0.003},
        "recurrent": {layer.recurrent_weight: 0.004},
    }[learns]
    for values in network.parameters():
        values.requires_grad_(values in rates)
    optimizer = torch.optim.Adam([{"params": [values], "lr": rate} for values, rate in rates.items()])
    steps = epochs * -(-len(data.train) // batch_size) if populations else epochs
    trainer = fs.Trainer(
        network, fs.losses.ReadoutCrossEntropy(), optimizer,
        regularizers=[] if learns == "readout" else [fs.losses.SpikeCount(1.0, 0.2, 1.0, recurrent=True)],
        augment=fs.Augment(jitter=0.5, dropout=0.1),
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        schedule_by="batch" if populations else "epoch",
    )  # fmt: skip
    before, start = seen(network, data.test) if looks else None, time.process_time()
    kept = {} if folder is None else {"folder": folder / f"{learns}_{seed}", "resume": True, "checkpoint_every": 1}
    result = trainer.fit(
        data.train, data.validation, epochs=epochs, batch_size=batch_size, seed=seed, test=data.test, **kept
    )
    took = time.process_time() - start
    return result.test.accuracy, took, before, seen(network, data.test) if looks else None


def seen(network, data):
    """Spikes of the first recording, and what the populations say of each digit, in the mean over its recordings."""
    with torch.no_grad():
        records = [network.record(times) for times in data.times.split(50)]
    values = torch.cat([x.output for x in records])
    accuracy = (values.argmax(dim=1) == data.labels).float().mean().item()
    means = torch.stack([values[data.labels == digit].mean(dim=0) for digit in range(10)])
    return records[0].layers[0][0], means, accuracy


def show_digits(before, after, neurons):
    """Spikes of the populations in one recording of a zero, and what they say of all digits."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained", width_ratios=(1.7, 1))
    for (left, right), title, (trains, means, accuracy) in zip(axes, ("before", "after"), (before, after), strict=True):
        shown = torch.arange(0, neurons, max(10, neurons // 500 // 10 * 10))[:, None] + torch.arange(10)
        for digit in range(10):
            found = trains[shown[:, digit]]
            place, spike = found.isfinite().nonzero(as_tuple=True)
            colour = COLOURS[0] if digit == 0 else GREY
            left.plot(found[place, spike], digit - 0.45 + 0.9 * place / len(found), ".", color=colour, markersize=1.5)
        left.set(title=f"spikes for a zero, {title}", xlabel="time [ms]", ylabel="population", yticks=range(10))
        drawn = right.imshow(means - means.mean(dim=1, keepdim=True), cmap="Blues", vmin=0)
        right.set(title=f"{title}: {100 * accuracy:.0f} % right", xlabel="population", ylabel="digit")
        right.set(xticks=range(10), yticks=range(10))
        figure.colorbar(drawn, ax=right, label="value above the mean")
    return figure


def spread(values):
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):.4g}" + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=["rates", "digits"])
    parser.add_argument("where", help="the picture of the rates, or the folder of the digits")
    parser.add_argument("--neurons", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=250, help="of the rates")
    parser.add_argument("--epochs", type=int, default=4, help="of the digits")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--learns", default="everything", choices=LEARNS, help="of the digits")
    parser.add_argument("--picture", help="of the digits, if populations decide")
    parser.add_argument("--runs", type=Path, help="of the digits: a folder to resume from")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    if given.task == "rates":
        results = [rates(seed, given.neurons, given.steps) for seed in seeds]
        show_rates(results, given.neurons).savefig(given.where, dpi=120)
        return
    encode = {"kind": "level_crossing", "levels": 8, "dt": 2.0}  # 2 ms for each of 10 ms
    data = DATASETS["spoken_digits"](folder=given.where, channels=48, encode=encode)
    found = []
    for seed in seeds:
        looks = bool(given.picture) and not found  # at the first seed
        found.append(digits(seed, given.neurons, given.epochs, data, given.learns, given.runs, looks))
        print(f"seed {seed}: test accuracy {100 * found[-1][0]:.1f} %", flush=True)
    print(f"test accuracy {spread([100 * x[0] for x in found])} %, {spread([x[1] for x in found])} s of CPU time")
    if given.picture:
        show_digits(*found[0][2:], given.neurons).savefig(given.picture, dpi=120)


if __name__ == "__main__":
    main()
