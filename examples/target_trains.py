"""Learn target spike trains, in milliseconds: one neuron, then a recurrent network with a layer of output neurons.

Pairs of spikes and targets pull at each other; targets without a spike raise the membrane where they are, and spikes
without a target lower it. All are exact gradients.

    python examples/target_trains.py --out target_trains.png
"""

import argparse

import matplotlib.pyplot as plt
import torch

import firstspike as fs

NEURON = fs.LIF(tau_mem=20.0, tau_syn=5.0, threshold=15.0, refractory=2.0)  # ms, and mV above rest
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
    """Sixty recurrent neurons, 80 % of which excite, and ten outputs that shall spike one after the other, thrice."""
    generator = torch.Generator().manual_seed(seed)
    signs = [1] * 48 + [-1] * 12
    network = fs.Network(
        fs.SpikingRecurrent(
            20, 60, 60, UNTIL, NEURON, window=1.5, recurrent_signs=signs, recurrent_std=0.3, weight_mean=1.0,
            weight_std=1.0, overflow="drop", generator=generator,
        ),
        fs.SpikeTrains(60, 10, 60, NEURON, weight_mean=0.2, weight_std=0.5, overflow="drop", generator=generator),
    )  # fmt: skip
    target = 30.0 + 10.0 * torch.arange(10)[:, None] + torch.tensor([0.0, 30.0, 60.0])
    return network, poisson(generator, 20, 20), target[None]


def learn(network, times, target, steps, rate):
    """Train, and return the cost in each step."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
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
        costs.append(float(cost))
    return costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="target_trains.png", help="the picture")
    given = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(11, 5), layout="constrained")
    for row, (name, make, rate) in zip(
        axes, (("one neuron", one_neuron, 0.05), ("recurrent", recurrent, 0.02)), strict=True
    ):
        network, times, target = make(given.seed)
        before = network(times).detach()
        costs = learn(network, times, target, given.steps, rate)
        after = network(times).detach()
        pairs = (after[0, :, :, None] - target[0, :, None, :]).abs().nan_to_num(nan=torch.inf).amin(dim=1)
        hit, count = pairs < TOLERANCE, int(after.isfinite().sum())
        print(
            f"{name}: {int(hit.sum())} of {target.numel()} targets hit, {pairs[hit].mean():.2g} ms off on average, "
            f"{pairs[hit].max():.2g} at most; {count - int(hit.sum())} spikes too many"
        )
        for ax, spikes, title in zip(row, (before, after), ("before", "after"), strict=False):
            for out, train in enumerate(spikes[0]):
                ax.plot(target[0, out], [out] * target.shape[-1], "o", color="#bbbbbb", markersize=7)
                ax.plot(
                    train[train.isfinite()], [out] * int(train.isfinite().sum()), "|", color="#1f77b4", markersize=9
                )
            ax.set(title=f"{name}, {title}", xlabel="time [ms]", ylabel="output", xlim=(0, UNTIL))
        row[2].plot(costs)
        row[2].set(title="cost: pairs, and 1 for each error", xlabel="step", ylim=(0, None))
    figure.savefig(given.out, dpi=120)


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
