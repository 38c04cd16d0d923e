"""States of neurons from equations at given times, by the operator from one time to the next."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.layers.synapses import Arriving
from firstspike.layers.voltages import states_at
from firstspike.neurons import Neuron
from firstspike.plots.voltages import Voltages, double

_MOST = 1000  # spikes between two points
_ABOVE, _BELOW = 2.5, -2.5  # in which membranes are drawn that run away, in thresholds


def scale_of(neuron: Neuron) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """The membrane at the start, and how far the threshold is above; 1 where that is at infinity."""
    values = {name: double(x) for name, x in neuron.named_values.items()}
    starts, excess = neuron.beginning(values)
    rest = neuron.membrane_of({name: double(x) for name, x in starts.items()}, torch.zeros(1).double())
    above = values["threshold"] - rest if "threshold" in values else -double(excess)
    return rest, torch.where(above.isfinite() & (above > 0), above, 1.0)


def voltages_of(neuron: Neuron, at: Float[Tensor, " points"], seen: Arriving) -> Voltages:
    """The membrane, 0 at the start and 1 at the threshold; all other states, as changes, the largest of which is 1.

    Membranes that run away are cut. Neurons spike on here, also those of layers that have no room for it.
    """
    assert neuron.equations is not None
    with torch.no_grad():
        inputs, weight = seen.times.double()[None, :, None], seen.weight.double()
        voltage, others = states_at(
            at, inputs, weight, neuron, max_spikes=_MOST, delay=seen.delay, receptor=seen.receptor
        )
    states = dict(zip(neuron.equations.states, (voltage[0], *others[0].unbind(-1)), strict=True))
    rest, above = (x.reshape(-1, 1) for x in scale_of(neuron))
    turned = neuron.membrane_of({name: x.mT for name, x in states.items()}, at.double())  # neurons come last
    membrane = (turned.mT - rest) / above
    membrane = torch.where(membrane.isfinite(), membrane, _BELOW).clamp(_BELOW, _ABOVE)
    used = neuron.membrane_states
    order = dict.fromkeys([*neuron.equations.receptors, *states])  # inputs first, as of linear neurons
    currents = {name: states[name] for name in order if name not in used}
    moves = {name: x - x[:, :1] for name, x in currents.items()}
    shown = {name: x / x.abs().max().clamp(min=1e-300) for name, x in moves.items()}
    return Voltages(membrane, torch.ones_like(membrane), shown)
