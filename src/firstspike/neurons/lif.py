"""Leaky integrate-and-fire neurons with current-based synapses::

    tau_mem dV/dt = -V + bias + tau_mem sum_r I_r(t) / tau_syn_r,      I_r(t) = sum_i w_i exp(-(t - t_i) / tau_syn_r)

where the sum goes over receptors r, and over the inputs i that reach each. V is relative to the leak potential. Times
are in any unit, the same for all. By convention ``tau_syn = 1``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

from firstspike.neurons.base import POTENTIAL, TIME, Component, Kind, Neuron, Parameter, Unit, each
from firstspike.ranges import Finite, NotNegative, Positive, PositiveOrInf, reads_plainly

_OUT_OF_REACH = 1e12
_LASTING = 1e22  # how many tau_mem a current takes to decay: less than rounding for times of a million
Positives = Positive | Tensor | tuple[Positive | Tensor, ...]
NotNegatives = NotNegative | Tensor | tuple[NotNegative | Tensor, ...]
Pairs = Sequence[tuple[Positive | Tensor, Finite | Tensor]]
"""A time constant and a jump for each."""


@reads_plainly
@dataclass(frozen=True, eq=False, repr=False)
class LIF(Neuron):
    """Parameters of a leaky integrate-and-fire neuron, validated and immutable.

    Normalisation of Göltz et al. 2021 (eq. 1): ``C dV/dt = -g_leak V + I`` with ``C = tau_syn``, so that
    ``g_leak = tau_syn / tau_mem``. A model given with ``g_leak``, ``leak`` and ``threshold`` in other units has the
    threshold ``(threshold - leak) * g_leak * tau_mem / tau_syn`` here.

    Each is one number for all neurons of a layer, or a tensor ``()`` or ``(out,)``, which may require a gradient. The
    values of tensors are checked when they are used. Neurons with several receptors, a rise time, a bias, or without a
    reset are solved event by event; all others in closed form.

    Args:
        tau_mem: membrane time constant, > 0. The number ``math.inf`` is a neuron without leak, a tensor is finite.
        tau_syn: synaptic time constant, > 0, in the same unit as all times; a tuple with one for each receptor, such as
            an excitatory and an inhibitory one. Which receptor an input reaches is said by the layer.
        threshold: membrane potential, relative to the leak potential, at which the neuron spikes, > 0.
        reset: membrane after a spike, below the threshold, in spike trains. As a spike is exactly at the threshold, a
            reset to 0 is the same as subtracting the threshold. None: a spike leaves the membrane as it is, and is
            followed by another only where the membrane has been below the threshold, or the refractory time ends above
            it. This needs a refractory time, or parts of the threshold that rise.
        refractory: time for which the membrane stays at ``reset`` after a spike, >= 0, in spike trains. Spike times
            have a gradient with respect to it that is 0 where it is 0. Without a reset the neuron does not spike for
            that time.
        tau_rise: time constant with which a synaptic current rises, 0 for one that jumps. Equal to ``tau_syn`` it is an
            alpha function. A tuple has one for each receptor.
        bias: constant input, as the membrane where it alone acts comes to rest. It acts from time 0 on, or from the
            start of a window, with the membrane at 0. Inputs before that do not arrive.
        unit: name of the unit of all times in figures and reports, such as ``"ms"``; None for ``tau_syn``.

    Raises:
        ValueError: a value outside of these bounds, or not a number.
    """

    tau_mem: PositiveOrInf | Tensor = 1.0
    tau_syn: Positives = 1.0
    threshold: Positive | Tensor = 1.0
    reset: Finite | Tensor | None = 0.0
    refractory: NotNegative | Tensor = 0.0
    tau_rise: NotNegatives = 0.0
    bias: Finite | Tensor = 0.0
    unit: str | None = field(default=None, kw_only=True)

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "tau_mem": Parameter(TIME, 0.0, infinite=True),
        "tau_syn": Parameter(TIME, 0.0, several=True),
        "threshold": Parameter(POTENTIAL, 0.0),
        "reset": Parameter(POTENTIAL, -math.inf, optional=True),
        "refractory": Parameter(TIME, 0.0, included=True),
        "tau_rise": Parameter(TIME, 0.0, included=True, several=True),
        "bias": Parameter(POTENTIAL, -math.inf),
    }
    state: ClassVar[Mapping[str, Unit]] = {"voltage": POTENTIAL, "current": POTENTIAL}
    resets: ClassVar[Mapping[str, str]] = {"voltage": "reset"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.reset, float) and isinstance(self.threshold, float) and not self.reset < self.threshold:
            raise ValueError(f"reset must be finite and below the threshold of {self.threshold}, got {self.reset}")
        if self.reset is None and _absent(self.refractory) and not getattr(self, "threshold_jump", ()):
            raise ValueError("reset=None needs a refractory time > 0: the membrane is still at the threshold, got 0")
        if self.tau_syn == ():
            raise ValueError("tau_syn must have a time constant for each receptor, got none")
        if not isinstance(self.tau_mem, Tensor) and self.tau_mem == math.inf and not _absent(self.bias):
            raise ValueError("bias is the membrane at rest, which a neuron without leak (tau_mem=inf) does not have")
        _check_rises("tau_rise", self.tau_rise, len(each(self.tau_syn)), "receptors")
        simple = _absent(self.tau_rise) and _absent(self.bias) and self.reset is not None
        self.__dict__["_closed"] = simple and not isinstance(self.tau_syn, tuple)  # asked for in every call

    def without_spikes(self) -> Self:
        """A copy of the neuron with a threshold that no membrane reaches."""
        return self.with_values(threshold=_OUT_OF_REACH)

    def driven(self) -> tuple[Self, float | Tensor]:
        """See ``Neuron``: a synaptic current that lasts."""
        if not isinstance(self.tau_mem, Tensor) and self.tau_mem == math.inf:
            raise ValueError("a current adds to the bias, which a neuron without leak (tau_mem=inf) does not have")
        taus, rises = each(self.tau_syn), self.tau_rise
        if not _absent(rises):
            rises = (*(rises if isinstance(rises, tuple) else (rises,) * len(taus)), 0.0)
        mem = self.tau_mem.detach() if isinstance(self.tau_mem, Tensor) else self.tau_mem
        return self.with_values(tau_syn=(*taus, _LASTING * mem), tau_rise=rises), _LASTING * mem / self.tau_mem

    @property
    def concave_rise(self) -> bool:
        """Whether the membrane rises concavely: d2V/dt2 = -dV/dt / tau_mem - I / tau_syn**2 < 0 where V > 0 rises."""
        return not self.components

    @property
    def components(self) -> tuple[Component, ...]:
        """The currents of the receptors; none of a neuron that has a closed solution: one receptor, and no extras."""
        return () if self.__dict__["_closed"] else self._synapses

    @property
    def _synapses(self) -> tuple[Component, ...]:
        return _rising("synapse", "rise", self.tau_syn, self.tau_rise, 0.0)


@reads_plainly
@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveLIF(LIF):
    """A LIF neuron whose spikes make the next ones less likely: adaptation currents and parts of the threshold.

    Each spike adds a jump to each of them, which then decays::

        tau_mem dV/dt = -V + ... - tau_mem sum_k A_k / adaptation_tau_k,      dA_k/dt = -A_k / adaptation_tau_k
        threshold(t) = threshold + sum_k H_k,                                 dH_k/dt = -H_k / threshold_tau_k

    so that an adaptation current acts like an inhibitory synapse of the neuron onto itself, with the jump as its
    weight. Threshold parts are those of Kobayashi et al. 2009 ("Made-to-order spiking neuron model ...", MAT), there
    with ``reset=None``, and of Bellec et al. 2018 ("Long short-term memory and learning-to-learn ...").

    With a rise time r_k a current does not jump: what jumps is ``dO_k/dt = -O_k / r_k``, which decays into it, as in a
    synapse with ``tau_rise``.

    Args:
        tau_mem: see ``LIF``, as the others that are not here.
        adaptation: time constants and jumps of the adaptation currents, ``[(tau, jump), ...]``.
        threshold_adaptation: likewise of the parts of the threshold.
        adaptation_tau: in place of ``adaptation``, its time constants, > 0: the name under which they are trained.
        adaptation_jump: and its jumps, as an inhibitory weight, in the unit of the membrane. Negative ones excite.
        adaptation_rise: time constants, >= 0, with which the adaptation currents rise, one for each or one for all. 0
            is one that jumps.
        threshold_tau: in place of ``threshold_adaptation``, its time constants, > 0.
        threshold_jump: and its jumps, in the unit of the membrane. A threshold that falls below the reset is an error
            where there is no refractory time: the neuron would spike on and on at once.

    Raises:
        ValueError: a value outside of these bounds. As many jumps as time constants are needed.
    """

    adaptation_tau: tuple[Positive | Tensor, ...] = ()
    adaptation_jump: tuple[Finite | Tensor, ...] = ()
    adaptation_rise: NotNegatives = 0.0
    threshold_tau: tuple[Positive | Tensor, ...] = ()
    threshold_jump: tuple[Finite | Tensor, ...] = ()
    adaptation: InitVar[Pairs] = ()
    threshold_adaptation: InitVar[Pairs] = ()

    parameters: ClassVar[Mapping[str, Parameter]] = {
        **LIF.parameters,
        "adaptation_tau": Parameter(TIME, 0.0, several=True),
        "adaptation_jump": Parameter(POTENTIAL, -math.inf, several=True),
        "adaptation_rise": Parameter(TIME, 0.0, included=True, several=True),
        "threshold_tau": Parameter(TIME, 0.0, several=True),
        "threshold_jump": Parameter(POTENTIAL, -math.inf, several=True),
    }

    def __post_init__(self, adaptation: Pairs, threshold_adaptation: Pairs) -> None:
        for name, pairs in (("adaptation", adaptation), ("threshold", threshold_adaptation)):
            try:
                split = tuple(zip(*((tau, jump) for tau, jump in pairs), strict=True)) or ((), ())
            except (TypeError, ValueError):
                shown = "adaptation" if name == "adaptation" else "threshold_adaptation"
                raise ValueError(f"{shown} must be pairs [(tau, jump), ...], got {pairs!r}") from None
            if pairs:
                object.__setattr__(self, f"{name}_tau", split[0])
                object.__setattr__(self, f"{name}_jump", split[1])
        super().__post_init__()
        for name in ("adaptation", "threshold"):
            taus, jumps = each(getattr(self, f"{name}_tau")), each(getattr(self, f"{name}_jump"))
            if len(taus) != len(jumps):
                raise ValueError(f"{name}_tau and {name}_jump need as many values, got {len(taus)} and {len(jumps)}")
        _check_rises("adaptation_rise", self.adaptation_rise, len(each(self.adaptation_tau)), "adaptation currents")

    @property
    def components(self) -> tuple[Component, ...]:
        """The currents of the receptors, of the adaptation, and the parts of the threshold."""
        adaptation = _rising("current", "onset", self.adaptation_tau, self.adaptation_rise, self.adaptation_jump)
        threshold = zip(each(self.threshold_tau), each(self.threshold_jump), strict=True)
        return (*self._synapses, *adaptation, *(Component("threshold", *pair) for pair in threshold))


def _rising(kind: Kind, onset: Kind, taus: Any, rises: Any, jumps: Any) -> tuple[Component, ...]:
    """Currents, each behind what it rises by, if that is not 0. Rises and jumps are one for all, or one for each."""
    found, many = [], len(each(taus))
    for tau, rise, jump in zip(each(taus), each(rises) * many, each(jumps) * many, strict=False):
        risen = not _absent(rise)
        found += [Component(onset, rise, jump)] * risen + [Component(kind, tau, 0.0 if risen else jump)]
    return tuple(found)


def _check_rises(name: str, rises: Any, many: int, things: str) -> None:
    if isinstance(rises, tuple) and len(rises) != many:
        raise ValueError(f"{name} must have one value for each of {many} {things}, got {len(rises)}")


def _absent(value: Any) -> bool:
    return isinstance(value, float) and value == 0.0
