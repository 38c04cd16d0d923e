"""Losses between whole spike trains and target trains, and a term for spikes that are missing or too many.

Targets are trains like the output, `(batch, outputs, spikes)`, sorted, `inf` after the last spike, with any number of
columns. A spike that is missing, or one too many, has no time to move: the losses count it, and only `SpikeErrors` can
make it appear or go.
"""

from typing import ClassVar, Literal, TypedDict, Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from firstspike.layers import Network, Record
from firstspike.layers.named import named_layers
from firstspike.layers.trains import Form, form_of
from firstspike.layers.voltages import excess
from firstspike.losses.base import Costs, Loss, Reduction
from firstspike.losses.regularizers import Regularizer
from firstspike.ranges import NotNegative, Positive, checks_ranges
from firstspike.signature import takes_arguments_of
from firstspike.spiketime.values import check_padding, check_tensor, is_readable, real_times

Trains = Float[Tensor, "*batch outputs spikes"]


class _TrainOptions(TypedDict, total=False):
    """Keyword arguments of all losses on trains, see `Loss`."""

    reduction: Reduction
    tau_syn: Positive


@checks_ranges
class TrainLoss(Loss):
    """Base class of losses between spike trains, sorted here. A subclass writes `distance` of two trains.

    Args:
        reduction: how the losses of the samples are combined: `"mean"`, `"sum"` or `"none"`.
        tau_syn: as in the losses on first spike times; not used here.

    Raises:
        ValueError: a number outside its range.
    """

    reads = "trains"

    def __init__(self, tau_syn: Positive = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction, tau_syn=tau_syn)

    def per_sample(self, output: Trains, labels: Trains, /) -> Costs:
        """Sum over the outputs of the `distance` to their target trains `labels`, for each sample.

        Raises:
            ValueError: targets that do not fit the output, NaN or -inf in either.
        """
        for name, x in (("output", output), ("targets", labels)):
            check_tensor(name, x)
            if x.ndim < 2 or not x.is_floating_point() or x.shape[:-1] != output.shape[:-1]:
                raise ValueError(
                    f"{name}: expected spike trains (batch, outputs, spikes), got {x.dtype} of shape "
                    f"{tuple(x.shape)}, and the output has {tuple(output.shape)}; fill up trains with inf"
                )
        check_padding(labels)
        return self.distance(compact(real_times(output)), compact(real_times(labels).to(output))).sum(dim=-1)

    def distance(self, output: Trains, target: Trains) -> Float[Tensor, "*batch outputs"]:
        """Distance of each output's train to its target, in a subclass."""
        raise NotImplementedError

    def predict(self, output: Trains, /) -> Trains:
        """The trains themselves."""
        return output


@takes_arguments_of(TrainLoss)
@checks_ranges
class VanRossum(TrainLoss):
    """Squared distance of two trains after each spike became an exponential (van Rossum 2001)::

        D^2 = 1/tau int (f - g)^2 dt,      f(t) = sum_k exp(-(t - t_k) / tau)  over the spikes t_k < t, likewise g

    in closed form, so that value and gradient are exact. A spike without a partner far and wide costs 1/2. Spikes
    attract each other over about `tau`: with a short one, those that are far from all targets feel nothing.

    Args:
        tau: time constant of the exponential, in the unit of the times.
    """

    def __init__(self, tau: Positive, **options: Unpack[_TrainOptions]) -> None:
        super().__init__(**options)
        self.tau = float(tau)

    def distance(self, output: Trains, target: Trains) -> Float[Tensor, "*batch outputs"]:
        """The distance of two trains, as in `TrainLoss`."""
        times = torch.cat([output, target], dim=-1)
        sign = torch.cat([k * x.isfinite().to(x) for k, x in ((1, output), (-1, target))], dim=-1)
        # where two spikes meet, it has a kink: in both orders of the two, so that the mean has no gradient there
        return (self._in_order(times, sign) + self._in_order(times.flip(-1), sign.flip(-1))) / 2

    def _in_order(self, times: Trains, sign: Trains) -> Float[Tensor, "*batch outputs"]:
        times = torch.where(times.isfinite(), times, 0.0)  # before any arithmetic: the gradient of inf is NaN
        times, order = times.sort(dim=-1, stable=True)
        left = torch.exp(-times.diff(dim=-1, prepend=times[..., :1]) / self.tau)
        trace = found = times.new_zeros(times.shape[:-1])
        for own, decay in zip(sign.gather(-1, order).unbind(-1), left.unbind(-1), strict=True):
            found = found + own * (trace * decay + own / 2)
            trace = trace * decay + own
        return found


@takes_arguments_of(TrainLoss)
@checks_ranges
class MatchedSpikes(TrainLoss):
    """The cost of turning one train into the other (Victor and Purpura 1996)::

        D = min over pairings of   sum_pairs (|t_k - s_l| / scale)^p + 1 for each spike of either without a partner

    The best pairing is found exactly, and held fixed for the gradient. Two spikes further apart than `2 scale`
    (`1.4 scale` if squared) are no pair.

    Args:
        scale: the distance, in the unit of the times, that costs as much as one spike too many.
        error: `"absolute"`, p = 1 as in the source, with `1 / scale` as its cost q; or `"squared"`, p = 2, whose
            gradient vanishes where spikes meet.
    """

    def __init__(
        self, scale: Positive, error: Literal["absolute", "squared"] = "absolute", **options: Unpack[_TrainOptions]
    ) -> None:
        super().__init__(**options)
        self.scale, self.error = float(scale), error

    def distance(self, output: Trains, target: Trains) -> Float[Tensor, "*batch outputs"]:
        """The distance of two trains, as in `TrainLoss`."""
        shift = distances(output, target) / self.scale
        shift = shift if self.error == "absolute" else shift.square()
        return pairing(shift, output.isfinite(), target.isfinite())


def compact(trains: Trains) -> Trains:
    """Trains, sorted, without columns that are padding in all of them."""
    used = trains.isfinite().flatten(end_dim=-2).any(dim=0)
    used[:1] = True  # one column at least
    return (trains[..., used] if is_readable(trains) else trains).sort(dim=-1).values


def distances(output: Trains, target: Trains) -> Float[Tensor, "*batch outputs here there"]:
    """The distance of each spike from each target; any number if one of them is missing."""
    times, targets = (torch.where(x.isfinite(), x, 0.0) for x in (output, target))
    return (times.unsqueeze(-1) - targets.unsqueeze(-2)).abs()


def pairing(
    shift: Float[Tensor, "*batch here there"], here: Bool[Tensor, "*batch here"], there: Bool[Tensor, "*batch there"]
) -> Float[Tensor, "*batch"]:
    """The least cost of a pairing in order, from the costs of pairs; its gradient marks the pairs."""
    alone = here.to(shift.dtype)  # spikes that are not there cost nothing
    passed = torch.nn.functional.pad(there.to(shift.dtype).cumsum(dim=-1), (1, 0))
    paired = here.unsqueeze(-1) & there.unsqueeze(-2)
    least = passed  # no spikes here, against the first ones there
    for k in range(shift.shape[-2]):
        single = least + alone[..., k : k + 1]
        pair = torch.where(paired[..., k, :], least[..., :-1] + shift[..., k, :], torch.inf)
        # of equal ones one, where the gradient of a minimum would be half of each
        best = torch.cat([single[..., :1], torch.where(pair < single[..., 1:], pair, single[..., 1:])], dim=-1)
        least = (best - passed).cummin(dim=-1).values + passed
    return least[..., -1]


@takes_arguments_of(Regularizer)
@checks_ranges
class SpikeErrors(Regularizer):
    """Makes spikes appear that a target train lacks, and those go that are too many (after Memmesheimer et al. 2014)::

        R = alpha (sum_missing (threshold - V(s)) + sum_extra (V(t-) - threshold)) / threshold,    mean over the samples

    Targets s without a partner raise the membrane at their time, and spikes t without one lower it just before them,
    with the exact derivative of the membrane. Pairs are those of `MatchedSpikes(scale)`, and have no part in it. Of
    neurons from equations it is the value that is compared with the threshold, divided by its value at the start. The
    output must be the last layer's trains.

    Args:
        scale: as in `MatchedSpikes`.

    Source: Memmesheimer, Rubin, Ölveczky and Sompolinsky 2014, "Learning precisely timed spikes".
    """

    reads: ClassVar[Form] = "trains"

    def __init__(self, alpha: NotNegative, scale: Positive, tau_syn: Positive = 1.0) -> None:
        super().__init__(alpha, tau_syn)
        self.scale = float(scale)

    def forward(
        self, times: Trains, labels: Trains, network: nn.Module, record: Record | None = None
    ) -> Float[Tensor, ""]:
        """The term above. `labels` are the target trains, `record` that of a `Network`."""
        layers = named_layers(network)
        if record is None or not isinstance(network, Network) or not layers or form_of(network[-1]) != "trains":
            raise ValueError("SpikeErrors needs a Network whose last layer gives trains, and its record")
        last, times, target = layers[-1], compact(times), compact(labels.to(times))
        with torch.enable_grad():
            here, there = times.isfinite(), target.isfinite()
            shift = (distances(times, target) / self.scale).detach().requires_grad_()
            (pairs,) = torch.autograd.grad(pairing(shift, here, there).sum(), shift)
        extra, missing = here & (pairs.sum(dim=-1) == 0), there & (pairs.sum(dim=-2) == 0)
        before = times.detach() - 64 * torch.finfo(times.dtype).eps * (times.detach().abs() + self.tau_syn)
        at = torch.cat([torch.where(extra, before, 0.0), torch.where(missing, target, 0.0)], dim=-1)
        errors = torch.cat([extra.to(at.dtype), -missing.to(at.dtype)], dim=-1)
        if not bool(errors.any()):
            return times.new_zeros(())
        first = (errors == 0).to(torch.int8).argsort(dim=-1)[..., : int((errors != 0).sum(dim=-1).max())]
        above = excess(last.layer, last.inputs(record), at.gather(-1, first))
        return self.alpha * (errors.gather(-1, first) * above).sum(dim=(-1, -2)).mean()
