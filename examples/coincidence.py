"""A map of directions from learnt delays, in milliseconds: five neurons tell where a sound comes from.

A sound reaches the two ears up to 0.4 ms apart, and each sends one spike, with a jitter. A neuron spikes only if both
spikes arrive at about the same time (Jeffress 1948), and the earliest neuron says where the sound was. All weights are
equal and fixed: only delays learn, two for each neuron.

    python examples/coincidence.py coincidence.png
"""

import argparse

import matplotlib.pyplot as plt
import torch

import firstspike as fs

JITTER = 0.02  # ms
DIFFERENCES = torch.tensor([-0.4, -0.2, 0.0, 0.2, 0.4])  # ms: right minus left
NEURON = fs.LIF(tau_mem=0.2, tau_syn=0.1, unit="ms")


def sounds(difference, generator):
    """Spikes of the left and the right ear, for differences ``(samples,)`` in ms."""
    ears = 0.5 + torch.stack([-difference / 2, difference / 2], dim=1)
    return ears + JITTER * torch.randn(ears.shape, generator=generator)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("out", nargs="?", default="coincidence.png", help="the picture")
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(given.seed)
    names = [f"{1000 * x:.0f} us" for x in DIFFERENCES]
    labels = [torch.randint(5, (samples,), generator=generator) for samples in (2000, 500, 500)]
    data = [fs.data.SpikeData(sounds(DIFFERENCES[x], generator), x, names) for x in labels]

    delays = fs.layers.DelayRule("clip", scale=1.0, mean=0.4, std=0.1)
    layer = fs.SpikingLinear(2, 5, NEURON, delay=delays, weight_mean=1.7, weight_std=0.0, generator=generator)
    layer.weight.requires_grad_(False)
    network = fs.Network(layer)
    trainer = fs.Trainer(
        network, fs.losses.TimeCrossEntropy(xi=0.2, tau_syn=0.1), torch.optim.Adam([layer.delay_raw], 0.01),
        regularizers=[fs.losses.SilentPeak(1.0, max_silent=0.8)],
        silent=fs.SilentNeurons(limits=1.0),
    )  # fmt: skip
    before = layer.delay.detach().clone()
    trainer.fit(data[0], data[1], epochs=given.epochs, batch_size=50, seed=given.seed)
    after = layer.delay.detach().clone()
    print(f"test accuracy {100 * trainer.evaluate(data[2]).accuracy:.1f} %")
    print("left minus right delay [us]:", *(f"{1000 * (left - right):.0f}" for left, right in after.tolist()))

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for delay, name in ((before, "before"), (after, "after training")):
        axes[0].plot(1000 * DIFFERENCES, 1000 * (delay[:, 0] - delay[:, 1]), "o-", label=name)
    axes[0].plot(1000 * DIFFERENCES, 1000 * DIFFERENCES, ":", color="#888888", label="makes up for it")
    axes[0].set(xlabel="difference that a neuron stands for [us]", ylabel="left minus right delay [us]")
    axes[0].legend()
    probe = torch.linspace(-0.7, 0.7, 141)
    times = network(sounds(probe.repeat_interleave(40), generator)).detach()
    first = torch.nn.functional.one_hot(trainer.objective.predict(times).clamp(min=0), 5).unflatten(0, (-1, 40))
    for name, share in zip(names, first.double().mean(dim=1).T, strict=True):
        axes[1].plot(1000 * probe, share, label=name)
    axes[1].set(xlabel="difference of the sound [us]", ylabel="fraction of sounds that it wins")
    axes[1].legend(title="neuron", fontsize=8)
    figure.savefig(given.out, dpi=120)


if __name__ == "__main__":
    main()
