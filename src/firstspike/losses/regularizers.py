"""Terms that are added to a loss: `regularizer(times, labels, network, record) -> scalar`.

`times` are the output's; `record` has those of all layers, and may be left out where it is not looked at.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from firstspike.layers import Delay, Record
from firstspike.layers.trains import Form
from firstspike.losses.base import check_batch, check_not_negative, check_positive, of_true
from firstspike.ranges import NotNegative, Positive

_LINEAR_FROM = 10.0  # exponent above which EarlyOutput goes on as a straight line


class EarlyOutput(nn.Module):
    """Favours an early spike of the true neuron (Göltz, Kriener et al., Nat. Mach. Intell. 3, 823, 2021)::

        R = alpha exp(t_true / (beta tau_syn)),    mean over the samples

    Samples whose true neuron is silent add 0. Beyond an exponent of 10 the exponential is continued by its
    tangent, so that one late spike cannot overflow.

    Args:
        alpha: strength.
        beta: time scale, in units of `tau_syn`.
        tau_syn: synaptic time constant, in the unit of the times.

    Raises:
        ValueError: `alpha` negative, `beta` or `tau_syn` not positive.
    """

    reads: ClassVar[Form] = "first spikes"

    def __init__(self, alpha: NotNegative, beta: Positive = 1.0, tau_syn: Positive = 1.0) -> None:
        super().__init__()
        self.alpha = check_not_negative("alpha", alpha)
        self.beta = check_positive("beta", beta)
        self.tau_syn = check_positive("tau_syn", tau_syn)

    def forward(
        self,
        times: Float[Tensor, "*batch outputs"],
        labels: Int64[Tensor, "*batch"],
        network: nn.Module,
        record: Record | None = None,
    ) -> Float[Tensor, ""]:
        """The term above; `times` are the output's (`inf` = silent), and `network` is not looked at."""
        check_batch(times, labels)
        true_time = of_true(times, labels)
        silent = torch.isposinf(true_time)
        exponent = torch.where(silent, 0.0, true_time) / (self.beta * self.tau_syn)
        curved = exponent.clamp(max=_LINEAR_FROM)
        penalty = curved.exp() * (1 + (exponent - curved))
        return self.alpha * torch.where(silent, 0.0, penalty).mean()


class DelayL2(nn.Module):
    """Favours short delays (as in DelGrad: Göltz, Weber, Kriener et al., Nat. Commun. 16, 8245, 2025)::

        R = alpha sum (d / tau_syn)^2    over all delays of the network

    Delays are the tensors that modules of the network have as their attribute or property `delay`: of `Delay`, of
    connections past layers, of synapses, and of recurrent synapses what is added to the window. A delay that several
    inputs share, such as those that `Multiplex` copies, counts once.

    Args:
        alpha: strength.
        tau_syn: synaptic time constant, in the unit of the delays.

    Raises:
        ValueError: `alpha` negative, `tau_syn` not positive.
    """

    def __init__(self, alpha: NotNegative, tau_syn: Positive = 1.0) -> None:
        super().__init__()
        self.alpha = check_not_negative("alpha", alpha)
        self.tau_syn = check_positive("tau_syn", tau_syn)

    def forward(
        self,
        times: Float[Tensor, "*batch outputs"],
        labels: Int64[Tensor, "*batch"],
        network: nn.Module,
        record: Record | None = None,
    ) -> Float[Tensor, ""]:
        """The term above, 0 for a network without delays; of `times` only dtype and device matter."""
        total = times.new_zeros(())
        for module in network.modules():
            delay = getattr(module, "delay", None)
            if isinstance(delay, Tensor):
                each = delay[:: module.copies] if isinstance(module, Delay) else delay
                total = total + (each / self.tau_syn).square().sum()
        return self.alpha * total
