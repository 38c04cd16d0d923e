"""The original code of Göltz et al. 2021 and this one, batch by batch: our side of the comparison in docs/results.md.

    python benchmarks/original.py start FOLDER      # writes FOLDER/start.npz: initial weights, order of the samples
    python benchmarks/original.py compare FOLDER    # reads FOLDER/original.npz, writes docs/results_original.png

Both train ``yin_yang_goeltz2021`` in double precision. ``original.npz`` is what the original's loop over batches does
from ``start.npz``: for each batch ``losses``, ``raised`` (-2 where no weights were raised, as in its training.py), and
in its layout ``weights_0``, ``weights_1`` before the batch and ``gradients_0``, ``gradients_1`` of its loss.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from firstspike.config import load_config
from firstspike.config.builder import build, build_data
from firstspike.layers import LIFLayer
from firstspike.plots import style
from firstspike.plots.look import COLOURS, log_axis
from firstspike.training import Trainer
from firstspike.training.batches import shuffled

CONFIG, EPOCHS = "yin_yang_goeltz2021", 300
NUDGE = 1e-6  # change of the initial weights that shows how fast trainings part; the original adds it to its sums
SHOWN = 10  # epochs in the figure


class Batches(NamedTuple):
    """A trainer with its batches, in the order of the training."""

    trainer: Trainer
    lifs: list[LIFLayer]
    batches: list[tuple[Tensor, Tensor]]
    per_epoch: int

    def loss(self, number: int) -> tuple[Tensor, Any]:
        """Loss with regularisers, and spike times of all layers, for the batch with that number."""
        times, labels = self.batches[number]
        member = self.trainer.members[0]
        _, total, record = self.trainer.objective(member.network, times, labels, member.substrate)
        return total, record


def training(order: np.ndarray | None = None) -> tuple[Batches, np.ndarray]:
    """The training of the config, and the order of its samples in each epoch unless one is given."""
    config = load_config(CONFIG, ["training.dtype=float64"])
    data = build_data(config).train
    trainer = build(config)
    if order is None:
        order = np.stack([shuffled(len(data), config.training.seed, epoch).numpy() for epoch in range(EPOCHS)])
    chosen = [part for epoch in torch.from_numpy(order) for part in epoch.split(config.training.batch_size)]
    lifs = [layer for layer in trainer.network.children() if isinstance(layer, LIFLayer)]
    return Batches(trainer, lifs, [(data.times[x], data.labels[x]) for x in chosen], len(chosen) // len(order)), order


def set_weights(lifs: list[LIFLayer], weights: list[np.ndarray]) -> None:
    for lif, weight in zip(lifs, weights, strict=True):
        lif.weight.data = torch.tensor(weight.T).contiguous()


def losses_from(weights: list[np.ndarray], order: np.ndarray, batches: int) -> np.ndarray:
    """Losses of the first batches of a training from these weights."""
    run, _ = training(order)
    set_weights(run.lifs, weights)
    member, losses = run.trainer.members[0], []
    for number in range(batches):
        total, record = run.loss(number)
        losses.append(total.item())
        if not member.silent.raise_weights_(run.trainer.network, record):
            member.optimizer.zero_grad()
            total.backward()
            member.optimizer.step()
        if (number + 1) % run.per_epoch == 0:
            member.schedule.step()
    return np.array(losses)


def compare_batches(theirs: Any, order: np.ndarray) -> None:
    """Each batch from the weights that the original has before it: loss, gradient, or raised weights."""
    run, _ = training(order)
    silent, network = run.trainer.members[0].silent, run.trainer.network
    weights = [theirs["weights_0"], theirs["weights_1"]]
    losses, gradients, raises, agree = [], [], [], []
    for number in range(len(weights[0]) - 1):
        set_weights(run.lifs, [weight[number] for weight in weights])
        total, record = run.loss(number)
        losses.append(abs(total.item() - theirs["losses"][number]))
        raised = silent.raise_weights_(network, record)
        agree.append(raised == (theirs["raised"][number] != -2))
        if raised:
            now = [lif.weight.detach().numpy().T for lif in run.lifs]
            raises.append(max(np.abs(w - after[number + 1]).max() for w, after in zip(now, weights, strict=True)))
            continue
        network.zero_grad()
        total.backward()
        mine = np.concatenate([lif.weight.grad.numpy().T.ravel() for lif in run.lifs])
        own = np.concatenate([theirs[f"gradients_{i}"][number].ravel() for i in range(len(weights))])
        gradients.append(np.linalg.norm(mine - own) / np.linalg.norm(own))
    print(f"{len(losses)} batches from the original's weights: losses differ by {max(losses):.0e} at most")
    print(f"the same batches raise weights: {all(agree)}; {len(raises)}, which differ by {max(raises, default=0):.0e}")
    print(
        f"gradients of the other {len(gradients)} differ by {np.median(gradients):.0e} of their norm (median),", end=" "
    )
    print(f"{np.quantile(gradients, 0.99):.0e} (99 %), {max(gradients):.0e} (largest)")


def figure(theirs: np.ndarray, ours: np.ndarray, nudged: np.ndarray, per_epoch: int, path: Path) -> None:
    shown = min(len(theirs), SHOWN * per_epoch)
    theirs, ours, nudged = (losses[:shown] for losses in (theirs, ours, nudged))
    epochs = np.arange(1, shown + 1) / per_epoch
    with style():
        _, (above, below) = plt.subplots(2, 1, figsize=(6, 5), sharex=True, layout="constrained")
        panels = (
            (above, "loss of a batch", {"original code": theirs, "firstspike": ours}, COLOURS[:2]),
            (
                below,
                "difference of losses",
                {
                    "original code and firstspike": np.abs(theirs - ours),
                    f"firstspike twice, weights {NUDGE:.0e} apart": np.abs(ours - nudged),
                },
                COLOURS[3:5],
            ),
        )
        for ax, label, lines, colours in panels:
            for (name, losses), colour, width in zip(lines.items(), colours, (1.2, 0.7), strict=True):
                ax.plot(epochs, losses, color=colour, linewidth=width, label=name)
            log_axis(ax, np.concatenate(list(lines.values())).tolist())
            ax.set_ylabel(label)
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        below.set_xlabel("epoch")
        plt.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figure", type=Path, default=Path(__file__).parents[1] / "docs" / "results_original.png")
    options = parser.parse_args()
    if options.what == "start":
        run, order = training()
        weights = {f"weights_{i}": lif.weight.detach().numpy().T for i, lif in enumerate(run.lifs)}
        np.savez(options.folder / "start.npz", order=order, **weights)
        return
    start, theirs = np.load(options.folder / "start.npz"), np.load(options.folder / "original.npz")
    first, order, count = [start["weights_0"], start["weights_1"]], start["order"], len(theirs["losses"])
    compare_batches(theirs, order)
    ours = losses_from(first, order, count)
    nudged = losses_from([weight + NUDGE for weight in first], order, count)
    apart = [int((np.abs(x - y) > 1e-3).argmax()) for x, y in ((theirs["losses"], ours), (ours, nudged))]
    print("losses differ by more than 0.001 from batch {} on, after a nudge of the weights from {}".format(*apart))
    figure(theirs["losses"], ours, nudged, -(-order.shape[1] // 150), options.figure)


if __name__ == "__main__":
    main()
