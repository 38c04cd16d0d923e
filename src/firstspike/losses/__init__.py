"""Losses on first spike times and on the values of readouts, and terms to add to them.

A loss is a module: `loss(times, labels)` is the mean of `loss.per_sample(times, labels)`, and
`loss.predict(times)` returns the class of each sample, -1 if no neuron spikes. A `ReadoutLoss` takes the values of a
readout in place of the times. `VanRossum` and `MatchedSpikes` compare whole trains with target trains.
`coincidence_factor` is a score of trains, without a gradient.

Do not apply losses of torch such as `torch.nn.CrossEntropyLoss` to spike times: they take scores, the largest of which
wins, and push the neuron of the true class to spike late. `inf` makes them NaN. `TimeCrossEntropy` is the one to use:
the cross-entropy of `-times / xi`, safe for silent neurons. Likewise, use `loss.predict(times)` instead of `argmax`.

A regularizer is a module called `regularizer(times, labels, network, record)`. Both take `tau_syn`. Their other times
are in units of it. Means over a batch without samples are NaN, as in torch.
"""

from torch import nn

from firstspike.losses.base import Loss, TimeLoss
from firstspike.losses.coincidence import coincidence_factor
from firstspike.losses.readout import ReadoutCrossEntropy, ReadoutMSE, ReadoutRegression
from firstspike.losses.regularizers import DelayL2, EarlyOutput, LayerWindow, SilentPeak, SpikeCount
from firstspike.losses.times import ShiftInvariantMSE, TimeCrossEntropy, TimeMSE
from firstspike.losses.trains import MatchedSpikes, SpikeErrors, VanRossum

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": TimeCrossEntropy,
    "matched_spikes": MatchedSpikes,
    "mse": TimeMSE,
    "readout_cross_entropy": ReadoutCrossEntropy,
    "readout_mse": ReadoutMSE,
    "regression": ReadoutRegression,
    "shift_invariant": ShiftInvariantMSE,
    "van_rossum": VanRossum,
}

REGULARIZERS: dict[str, type[nn.Module]] = {
    "delay_l2": DelayL2,
    "early_output": EarlyOutput,
    "layer_window": LayerWindow,
    "silent_peak": SilentPeak,
    "spike_count": SpikeCount,
    "spike_errors": SpikeErrors,
}

__all__ = [
    "DelayL2", "EarlyOutput", "LayerWindow", "MatchedSpikes", "ReadoutCrossEntropy", "ReadoutMSE", "ReadoutRegression",
    "ShiftInvariantMSE", "SilentPeak", "SpikeCount", "SpikeErrors", "TimeCrossEntropy", "TimeLoss", "TimeMSE",
    "VanRossum", "coincidence_factor",
]  # fmt: skip
