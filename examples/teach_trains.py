"""Teach trains by teacher forcing: a city from noise, and a recurrent network that becomes the one it listens to.

If a neuron spiked as its teacher does, all inputs and resets would be known, and its membrane a linear function of its
weights: at the threshold at each target, below it elsewhere. The weights that do this solve a convex problem, each
neuron for itself. In a recurrent layer the targets of the others are inputs, too.

    python examples/teach_trains.py oxford folder city.png     # oxford-input.ras, oxford-target.ras: see below
    python examples/teach_trains.py teacher --seed 0

The folder has the files of that name in github.com/fzenke/pub2018superspike, `themes`. With `ground_truth.npy` from
github.com/lava-nc/lava-dl, `tutorials/lava/lib/dl/netx/oxford`, SLAYER's network is scored as ours is.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch

import firstspike as fs

UNIT = 1.0  # ms: how far apart the membrane is seen between targets


def responses(at, trains, neuron):
    """The membrane without spikes that each input makes with a weight of 1: ``(points, inputs)``."""
    silent = torch.full((len(trains), 1, 1), torch.inf)
    alone = trains.unsqueeze(1)  # each input is the sample of a neuron of its own
    return fs.layers.states_at(at, alone, torch.ones(1, 1), neuron, observed=silent)[0][:, 0].T


def conditions(trains, spikes, neuron, until, seen, gap):
    """How the membrane depends on the weights if a neuron spikes when it should, at the targets and elsewhere.

    ``seen`` are the responses at each ``UNIT``. Nothing is asked of the membrane in the ``gap`` before a target.
    """
    spikes, at, refractory = spikes[spikes.isfinite()], UNIT * torch.arange(len(seen)), float(neuron.refractory)
    released = spikes + refractory
    here = responses(torch.cat([spikes, released]), trains, neuron)
    here, start = here[: len(spikes)], here[len(spikes) :]
    start, since = torch.cat([start, 0 * seen[:1]]), torch.cat([released, at.new_tensor([-torch.inf])])
    following = torch.cat([spikes, at.new_tensor([torch.inf])])

    def after_last(rows, times, last):  # what a reset took away decays; place -1 is before all spikes
        left = torch.exp(-(times - since[last]) / float(neuron.tau_mem))
        return rows - left.unsqueeze(-1) * start[last], times >= since[last]

    targets, free = after_last(here, spikes, torch.arange(len(spikes)) - 1)
    place = torch.searchsorted(spikes, at, right=True)
    between, awake = after_last(seen, at, place - 1)
    return targets[free], between[awake & (following[place] - at > gap) & (at <= until)]


def solved(targets, between, threshold, begin, margin, slack, steps=20):
    """Weights, close to those at the ``begin``: a membrane at the threshold at targets, a margin below it elsewhere.

    The squared errors of what is violated are minimised, by Newton's method: which conditions are violated changes.
    """
    rows = torch.cat([targets, between]) / threshold
    aims = torch.cat([torch.ones(len(targets)), torch.full((len(between),), 1.0 - margin)])
    loose = torch.cat([torch.full((len(targets),), slack), torch.full((len(between),), 10 * slack)])
    always = torch.arange(len(rows)) < len(targets)
    active, weight = always, begin
    for _ in range(steps):
        some = rows[active]
        errors = aims[active] - some @ begin
        if len(some) < len(begin):
            weight = begin + some.T @ torch.linalg.solve(some @ some.T + loose[active].diag(), errors)
        else:
            scale = loose[active].rsqrt()
            stacked = torch.cat([scale.unsqueeze(-1) * some, torch.eye(len(begin))])
            known = torch.cat([scale * errors, 0 * begin]).unsqueeze(-1)
            weight = begin + torch.linalg.lstsq(stacked, known, driver="gels").solution[:, 0]
        before, active = active, always | (rows @ weight > aims)
        if active.equal(before):
            break
    return weight


def teach(trains, spikes, neuron, until, begin, exists=None, *, margin, slack, gap):
    """Weights ``(out, inputs)`` with which neurons answer ``trains (samples, inputs, n)`` by ``spikes``."""
    at = UNIT * torch.arange(int(until / UNIT) + 1)
    seen, weights = [responses(at, sample, neuron) for sample in trains], begin.clone()
    for k, weight in enumerate(weights):
        some = torch.ones(len(weight), dtype=torch.bool) if exists is None else exists[k]
        parts = [
            conditions(sample[some], train[k], neuron, until, known[:, some], gap)
            for sample, train, known in zip(trains, spikes, seen, strict=True)
        ]
        targets, between = (torch.cat(x) for x in zip(*parts, strict=True))
        weight[some] = solved(targets, between, float(neuron.threshold), weight[some], margin, slack)
    return weights


def hits(output, target, tolerance):
    """The most pairs of a spike and a target, each in one pair, that are at most ``tolerance`` apart."""
    found = 0
    for spikes, wanted in zip(output.flatten(0, -2).tolist(), target.flatten(0, -2).tolist(), strict=True):
        spikes = iter([x for x in spikes if x < np.inf] + [np.inf])
        spike = next(spikes)
        for time in wanted:
            while spike < time - tolerance:
                spike = next(spikes)
            if time < np.inf and spike <= time + tolerance:
                found, spike = found + 1, next(spikes)
    return found


def says(name, output, target, tolerance=2.0):
    """One line: which part of the targets has a spike, and which part of the spikes a target."""
    found, spikes, wanted = hits(output, target, tolerance), output.isfinite().sum(), target.isfinite().sum()
    return f"{name}: {found / wanted:.2%} of {wanted} targets hit within {tolerance:g} ms, {found / spikes:.2%} of \
{spikes} spikes have a target"


def coincidence(output, target, until):
    """The coincidence factor within 1 ms, the mean over neurons: 1 for equal trains, 0 by chance."""
    return float(fs.losses.coincidence_factor(output, target, 1.0, until).nanmean())


def trains_of(events, inputs=200):
    """Trains from rows of time and number."""
    return fs.data.trains_from_events([(events[:, 0], events[:, 1].astype(int))], inputs=inputs).double()


def oxford(folder, out, seed, hidden):
    """200 trains of noise become 200 that draw the Radcliffe Camera in Oxford (Zenke and Ganguli 2018)."""
    files = [np.loadtxt(folder / f"oxford-{name}.ras") for name in ("input", "target")]
    times, target = (trains_of(x * [1e3, 1] - [0, first]) for x, first in zip(files, (0, 1), strict=True))
    until, generator = 1890.0, torch.Generator().manual_seed(seed)
    weights = {"weight_mean": 0.1, "weight_std": 0.5, "overflow": "drop", "generator": generator}
    network = fs.Network(
        fs.SpikeTrains(200, hidden, 500, fs.LIF(10.0, 5.0, unit="ms"), **weights),
        fs.SpikeTrains(hidden, 200, 300, fs.LIF(10.0, 5.0, unit="ms"), overflow="drop"),
    )
    start = perf_counter()
    with torch.no_grad():
        trains = network[0](times)
        layer = network[1]
        begin = torch.zeros_like(layer.weight)
        layer.weight.copy_(teach(trains, target, layer.neuron, until, begin, margin=0.3, slack=2e-4, gap=1.0))
        output = network(times)
    print(says(f"firstspike, {hidden} hidden neurons, {perf_counter() - start:.0f} s", output, target))
    shown = [(target, "target"), (output, "firstspike")]
    if (folder / "ground_truth.npy").exists():
        peer = trains_of(np.load(folder / "ground_truth.npy")[:, [2, 0]])
        print(says("SLAYER", peer, target))
        late = max(np.arange(-5, 5.25, 0.25), key=lambda x: hits(peer - x, target, 2.0))
        print(says(f"SLAYER, all spikes {-late:g} ms later", peer - late, target))
        shown.append((peer, "SLAYER"))
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 4), layout="constrained", sharey=True)
    for ax, (trains, name) in zip(axes, shown, strict=True):
        spikes = [train[train.isfinite()].numpy() for train in trains[0]]
        ax.plot(np.concatenate(spikes), np.repeat(range(200), [len(x) for x in spikes]), ".", color="k", markersize=1)
        ax.set(title=name, xlabel="time [ms]", xlim=(0, until))
    axes[0].set_ylabel("output neuron")
    figure.savefig(out, dpi=120)


def recurrent(generator, until, mean):
    """200 neurons, 160 of which excite, with a tenth of all connections and a delay of 1.5 ms."""
    neuron = fs.LIF(tau_mem=20.0, tau_syn=5.0, threshold=15.0, refractory=2.0, unit="ms")
    return fs.SpikingRecurrent(
        40, 200, 200, until, neuron, window=1.5, recurrent_signs=[1] * 160 + [-1] * 40, recurrent_std=1.0,
        recurrent_mask=torch.rand(200, 200, generator=torch.Generator().manual_seed(0)) < 0.1,
        weight_mean=mean, weight_std=0.6, overflow="drop", generator=generator,
    )  # fmt: skip


@torch.no_grad()
def teacher(seed, samples, mean, until=500.0):
    """A student with other weights listens to a teacher, and is asked with inputs that neither had before."""
    generator = torch.Generator().manual_seed(seed)
    master, student, other = (recurrent(generator, until, mean) for _ in range(3))
    inputs, tests = (
        (until * torch.rand(count, 40, round(until / 10), generator=generator)).sort(dim=-1).values
        for count in (samples, 10)
    )
    spikes, wanted = master(inputs), master(tests)
    print(f"seed {seed}: {wanted.isfinite().sum() / wanted[..., 0].numel() / until * 1000:.1f} spikes/s; before: "
          f"{coincidence(student(tests), wanted, until):.3f}", end="; ", flush=True)  # fmt: skip
    start = perf_counter()
    trains = torch.cat([torch.nn.functional.pad(x, (0, spikes.shape[-1] - x.shape[-1]), value=torch.inf) for x in
                        (inputs, spikes + master.window)], dim=1)  # fmt: skip
    begin = torch.cat([student.weight, student.recurrent_weight], dim=1)
    exists = torch.cat([torch.ones_like(student.weight), student.recurrent_mask], dim=1) > 0
    found = teach(trains, spikes, student.neuron, until, begin, exists, margin=0.0, slack=1e-10, gap=0.0)
    student.weight.copy_(found[:, :40])
    student.recurrent_weight.copy_(found[:, 40:])
    took = perf_counter() - start
    output = student(tests)
    print(
        f"after {took:.0f} s: {coincidence(output, wanted, until):.3f}, weights "
        f"{(found - torch.cat([master.weight, master.recurrent_weight], dim=1))[exists].abs().median():.1g} off"
    )
    other.load_state_dict(master.state_dict())
    other.weight.mul_(1 + 1e-6 * torch.randn(other.weight.shape, generator=generator))
    parts = [[torch.where((x >= a) & (x < b), x, torch.inf).sort(dim=-1).values for x in (other(tests), output, wanted)]
             for a, b in pairwise(np.linspace(0, until, 6))]  # fmt: skip
    for k, name in enumerate(("the teacher with weights 1e-6 off", "the student")):
        print(f"  {name}, in fifths of the time:", *(f"{coincidence(x[k], x[2], until / 5):.3f}" for x in parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    tasks = parser.add_subparsers(dest="task", required=True)
    city = tasks.add_parser("oxford")
    city.add_argument("folder", type=Path)
    city.add_argument("out", nargs="?", default="city.png", help="the picture")
    city.add_argument("--hidden", type=int, default=1024)
    listens = tasks.add_parser("teacher")
    listens.add_argument("--samples", type=int, default=20, help="of 500 ms, to learn from")
    listens.add_argument("--mean", type=float, default=0.3, help="of the weights of inputs: spikes are what teaches")
    for task in (city, listens):
        task.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.task == "oxford":
        oxford(given.folder, given.out, given.seed, given.hidden)
    else:
        teacher(given.seed, given.samples, given.mean)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
