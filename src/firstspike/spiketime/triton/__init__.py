"""Kernels for GPUs in Triton, which GPU builds of PyTorch include. The contract is ``contract``'s."""

from firstspike.neurons import Neuron
from firstspike.spiketime.contract import refuses_closed_form
from firstspike.spiketime.triton.gradients import backward as backward
from firstspike.spiketime.triton.spikes import forward as forward
from firstspike.spiketime.triton.spikes import saves as saves


def supports(neuron: Neuron, recurrent: bool) -> str | None:
    """The reason why such neurons are not supported, or None."""
    return "it computes recurrent neurons window by window" if recurrent else refuses_closed_form(neuron)
