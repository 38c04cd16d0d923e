"""Learn target spike trains, in milliseconds: one neuron, then a recurrent network with a layer of output neurons.

Pairs of spikes and targets pull at each other; targets without a spike raise the membrane where they are, and spikes
without a target lower it. All are exact gradients.

    python examples/target_trains.py target_trains.png
"""

import argparse

import matplotlib.pyplot as plt
import torch

import firstspike as fs

NEURON = fs.LIF(tau_mem=20.0, tau_syn=5.0, threshold=15.0, refractory=2.0, unit="ms")  # ms, and mV above rest
UNTIL, TOLERANCE = 200.0, 5.0  # ms
loss = fs.losses.MatchedSpikes(TOLERANCE)
errors = fs.losses.SpikeErrors(10.0, TOLERANCE, tau_syn=5.0)


def poisson(generator, inputs, spikes):
    """One sample of input trains."""
    return (UNTIL * torch.rand(1, inputs, spikes, generator=generator)).sort(dim=-1).values


def one_neuron(seed):
    """A neuron with 100 inputs and six targets."""
    generator = torch.Generator().manual_seed(seed)
    weights = {"weight_mean": 0.1, "weight_std": 0.3, "overflow": "drop"}
    network = fs.Network(fs.SpikeTrains(100, 1, 60, NEURON, generator=generator, **weights))
    target = torch.tensor([[[30.0, 55.0, 90.0, 115.0, 150.0, 180.0]]])
    return network, poisson(generator, 100, 20), target


def recurrent(seed):
    """A hundred recurrent neurons, 80 of which excite, and ten outputs that shall spike one after the other, thrice."""
    generator = torch.Generator().manual_seed(seed)
    options = {"overflow": "drop", "generator": generator}
    network = fs.Network(
        fs.SpikingRecurrent(
            40, 100, 60, UNTIL, NEURON, window=1.5, recurrent_signs=[1] * 80 + [-1] * 20, recurrent_std=0.3,
            weight_mean=0.1, weight_std=0.9, **options,
        ),
        fs.SpikeTrains(100, 10, 60, NEURON, weight_mean=0.2, weight_std=1.0, **options),
    )  # fmt: skip
    target = 30.0 + 10.0 * torch.arange(10)[:, None] + torch.tensor([0.0, 30.0, 60.0])
    return network, poisson(generator, 40, 20), target[None]


def learn(network, times, target, steps):
    """Train, and return the cost in each step. Spikes of recurrent layers move many others: they learn slowly."""
    rates = [0.002] * (len(network) - 1) + [0.1]
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(network, rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    costs = []
    for _ in range(steps):
        optimizer.zero_grad()
        record = network.record(times)
        cost = loss(record.output, target)
        (cost + errors(record.output, target, network, record)).backward()
        optimizer.step()
        for layer in network:
            layer.project_()  # signs stay
        schedule.step()
        costs.append(cost.item())
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", nargs="?", default="target_trains.png", help="the picture")
    given = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(11, 5), layout="constrained")
    for row, (name, make) in zip(axes, (("one neuron", one_neuron), ("recurrent", recurrent)), strict=True):
        network, times, target = make(given.seed)
        before = network(times).detach()
        costs = learn(network, times, target, given.steps)
        after = network(times).detach()
        apart = (after[0, :, :, None] - target[0, :, None, :]).abs().nan_to_num(nan=torch.inf).amin(dim=1)
        hit = apart < TOLERANCE
        extra = int(after.isfinite().sum() - hit.sum())
        print(
            f"{name}: {int(hit.sum())} of {target.numel()} targets hit, {apart[hit].mean():.2g} ms off on average, "
            f"{apart[hit].max():.2g} at most; {extra} spikes too many"
        )
        for ax, trains, title in zip(row, (before, after), ("before", "after"), strict=False):
            for output, train in enumerate(trains[0]):
                ax.plot(target[0, output], [output] * target.shape[-1], "o", color="#bbbbbb", markersize=7)
                spikes = train[train.isfinite()]
                ax.plot(spikes, [output] * len(spikes), "|", color="#1f77b4", markersize=9)
            ax.set(title=f"{name}, {title}", xlabel="time [ms]", ylabel="output neuron", xlim=(0, UNTIL))
            ax.set_yticks(range(len(target[0])))
        row[2].plot(costs)
        row[2].set(title="cost: pairs, and 1 for each error", xlabel="step", ylim=(0, None))
    figure.savefig(given.out, dpi=120)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
