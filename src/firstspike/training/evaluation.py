"""What a network makes of a data set."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from firstspike.data import SpikeData
from firstspike.layers import Network
from firstspike.losses import TimeLoss

_CHUNK = 1000  # samples at once: enough to keep all cores busy, little enough for any memory


@dataclass(frozen=True)
class Evaluation:
    """Loss, decisions and output times of a network on a data set.

    Args:
        loss: mean over the samples, without regularisers.
        accuracy: fraction of correct decisions; a silent decision is a wrong one.
        silent: silent fraction of each layer in ``layers``.
        times: output times, ``inf`` where silent.
        predictions: class per sample, -1 where the deciding neuron is silent.
        labels: true classes.
    """

    loss: float
    accuracy: float
    silent: tuple[float, ...]
    times: Float[Tensor, "samples outputs"]
    predictions: Int64[Tensor, " samples"]
    labels: Int64[Tensor, " samples"]

    @property
    def accuracy_error(self) -> float:
        """Binomial standard error of the accuracy."""
        return float((self.accuracy * (1 - self.accuracy) / len(self.labels)) ** 0.5)


@torch.no_grad()
def evaluate(network: Network, loss: TimeLoss, data: SpikeData, layers: list[int]) -> Evaluation:
    """Run the network on all samples. ``layers`` are the indices of those whose silent fraction is asked for."""
    outputs = []
    silent = torch.zeros(len(layers), dtype=torch.float64)
    for start in range(0, len(data), _CHUNK):
        record = network.record(data.times[start : start + _CHUNK])
        outputs.append(record.output)
        counts = torch.stack([torch.isinf(record.layers[i]).mean(dim=-1, dtype=torch.float64).sum() for i in layers])
        silent += counts.cpu()
    times = torch.cat(outputs)
    predictions = loss.predict(times)
    return Evaluation(
        loss=loss(times, data.labels).item(),
        accuracy=(predictions == data.labels).mean(dtype=torch.float64).item(),
        silent=tuple((silent / len(data)).tolist()),
        times=times,
        predictions=predictions,
        labels=data.labels,
    )
