"""Other libraries' layers of the same shape, where they are installed; each returns a call that makes the output.

exact-snn-nn, exact-event-adjoint and SpikingJelly's Tempotron compute first spike times; snnTorch and Norse step
through time with surrogate gradients, here 100 steps on a dense input of spikes. SpikingJelly works on the GPU with
Triton. BATS works on a GPU only, through CuPy, and gives no gradient by the times of a network's inputs.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from cases import LATEST, Case
from torch import Tensor

STEPS = 100

Peer = Callable[[Case], Callable[[], Tensor]]


def exact_snn_nn(case: Case) -> Callable[[], Tensor]:
    from exact_snn import ExactTTFSLinear

    outputs, inputs = case.weight.shape
    layer = ExactTTFSLinear(inputs, outputs, tm=2.0, ts=1.0, t_max=2 * LATEST, bias_val=0.0).to(case.times.device)
    with torch.no_grad():
        layer.weight[:, :-1] = case.weight
    return lambda: layer(case.times.T).T


def exact_event_adjoint(case: Case) -> Callable[[], Tensor]:
    from exact_event_adjoint import ExactAdjointLinear

    outputs, inputs = case.weight.shape
    layer = ExactAdjointLinear(inputs, outputs, tau_m=2.0, tau_s=1.0, t_max=2 * LATEST).to(case.times.device)
    with torch.no_grad():
        layer.weight.copy_(case.weight)
    return lambda: layer(case.times)


def tempotron(case: Case) -> Callable[[], Tensor]:
    from spikingjelly.timing_based.neuron import Tempotron

    outputs, inputs = case.weight.shape
    batch = case.times.shape[0]
    device = case.times.device
    layer = Tempotron(inputs, outputs, duration=2 * LATEST, tau=2.0, tau_s=1.0).to(device)
    with torch.no_grad():
        layer.weight.copy_(case.weight / 4)  # its kernel's peak is 1, ours at this ratio is 1/4 in units of 2 tau_mem
    indices = torch.arange(inputs, device=device).repeat(batch)
    offsets = torch.arange(batch + 1, device=device) * inputs
    return lambda: torch.nan_to_num(layer(case.times.flatten(), indices, offsets)[2], posinf=0.0)


def bats(case: Case) -> Callable[[], Tensor]:
    if case.times.device.type != "cuda":
        raise ValueError("works on a GPU only")
    import cupy
    from bats.Layers import InputLayer, LIFLayer
    from bats.Network import Network

    outputs, inputs = case.weight.shape
    network, first = Network(), InputLayer(n_neurons=inputs, name="inputs")
    network.add_layer(first, input=True)
    layer = LIFLayer(first, n_neurons=outputs, tau_s=1.0, theta=1.0, delta_theta=1.0, max_n_spike=1, name="outputs")
    network.add_layer(layer)
    layer.weights = cupy.from_dlpack(case.weight.detach())
    times = cupy.from_dlpack(case.times.detach().unsqueeze(-1).contiguous())
    counts = cupy.ones(times.shape[:2], dtype=cupy.int32)

    class Pass(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, weight: Tensor) -> Tensor:
            network.reset()
            network.forward(times, counts, max_simulation=math.inf, training=True)
            return torch.from_dlpack(network.output_spike_trains[0])[..., 0].clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            errors = cupy.from_dlpack(grad.unsqueeze(-1).contiguous())
            return torch.from_dlpack(network.backward(errors)[1]).sum(dim=0)

    return lambda: Pass.apply(case.weight)


def _spikes(case: Case) -> Tensor:
    """Input spikes (steps, batch, inputs)."""
    at = (case.times.detach() / (2 * LATEST) * STEPS).long().clamp(max=STEPS - 1)
    empty = torch.zeros(STEPS, *case.times.shape, device=at.device)
    return empty.scatter_(0, at[None], 1.0).requires_grad_()


def snntorch(case: Case) -> Callable[[], Tensor]:
    import snntorch as snn

    step = 2 * LATEST / STEPS
    layer = snn.Synaptic(alpha=math.exp(-step), beta=math.exp(-step / 2))
    weight, spikes = torch.nn.Parameter(case.weight.detach() * step), _spikes(case)

    def call() -> Tensor:
        current, membrane = layer.init_synaptic()
        drive, total = spikes @ weight.T, torch.zeros((), device=spikes.device)
        for now in drive:
            out, current, membrane = layer(now, current, membrane)
            total = total + out
        return total

    return call


def norse(case: Case) -> Callable[[], Tensor]:
    from norse.torch import LIFCell, LIFParameters

    step = 2 * LATEST / STEPS
    cell = LIFCell(LIFParameters(tau_syn_inv=torch.tensor(1.0), tau_mem_inv=torch.tensor(0.5)), dt=step)
    weight, spikes = torch.nn.Parameter(case.weight.detach()), _spikes(case)

    def call() -> Tensor:
        state, total = None, torch.zeros((), device=spikes.device)
        for now in spikes @ weight.T:
            out, state = cell(now, state)
            total = total + out
        return total

    return call


PEERS: dict[str, Peer] = {
    "exact-snn-nn": exact_snn_nn,
    "exact-event-adjoint": exact_event_adjoint,
    "SpikingJelly Tempotron": tempotron,
    "BATS": bats,
    f"snnTorch {STEPS} steps": snntorch,
    f"Norse {STEPS} steps": norse,
}
