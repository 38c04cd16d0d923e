"""Recurrent layers on spike trains, here and in other libraries: 700 inputs, 256 neurons, a duration of 100 delays.

All get the same random spikes, weights of the same size and the same batch, and give a gradient of the sum of something
that they computed by the weights of inputs and recurrence. What one step costs does not depend on what it computes, and
where it does, the column "spikes" of the section says how many there were.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from firstspike import LIF, LIFRecurrent

STEPS, INPUTS, NEURONS = 100, 700, 256
TAU_MEM, TAU_SYN = 10.0, 5.0  # in delays, or steps; the ratio of 2 is what jaxsnn can do


class Sequences(NamedTuple):
    """Input trains (batch, 700, spikes) in [0, 100), and weights for them."""

    trains: Tensor
    weight: Tensor
    recurrent: Tensor

    def raster(self) -> Tensor:
        """Number of spikes in each step (steps, batch, 700)."""
        batch = self.trains.shape[0]
        empty = torch.zeros(STEPS + 1, batch, INPUTS)
        step = self.trains.clamp(max=STEPS).long().permute(2, 0, 1)
        return empty.scatter_add_(0, step, torch.ones(step.shape))[:STEPS]


def sequences(batch: int, rate: float = 0.05) -> Sequences:
    """Poisson spikes with a mean of ``rate`` for each input and step; weights with which most neurons spike."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.full((batch, INPUTS), rate * STEPS), generator=generator)
    most = int(counts.max())
    trains = torch.rand(batch, INPUTS, most, generator=generator) * STEPS
    trains[torch.arange(most) >= counts[..., None]] = torch.inf
    weight = torch.randn(NEURONS, INPUTS, generator=generator) * 0.06 + 0.004
    recurrent = torch.randn(NEURONS, NEURONS, generator=generator) * 0.03
    return Sequences(trains.sort(dim=-1).values, weight, recurrent)


def layer(case: Sequences, refractory: float = 0.0) -> LIFRecurrent:
    """Ours, with those weights."""
    neuron = LIF(TAU_MEM, TAU_SYN, refractory=refractory)
    made = LIFRecurrent(INPUTS, NEURONS, 100, float(STEPS), neuron, window=1.0, overflow="drop")
    with torch.no_grad():
        made.weight.copy_(case.weight)
        made.recurrent_weight.copy_(case.recurrent)
    return made


Call = Callable[[], tuple[float, Tensor | None]]
"""Gives the mean number of spikes of a neuron, and a number to differentiate; None where that is done already."""


def ours(case: Sequences, refractory: float = 0.0) -> Call:
    made = layer(case, refractory)

    def call() -> tuple[float, Tensor | None]:
        trains = made(case.trains)
        there = torch.isfinite(trains)
        return there.sum().item() / trains[..., 0].numel(), torch.where(there, trains, 0.0).sum()

    return call


def norse(case: Sequences) -> Call:
    from norse.torch import LIFParameters, LIFRecurrent

    parameters = LIFParameters(
        tau_syn_inv=torch.tensor(1 / TAU_SYN), tau_mem_inv=torch.tensor(1 / TAU_MEM), v_th=torch.tensor(1.0)
    )
    made = LIFRecurrent(INPUTS, NEURONS, parameters, dt=1.0)
    made.input_weights = nn.Parameter(case.weight * (TAU_MEM / TAU_SYN))
    made.recurrent_weights = nn.Parameter(case.recurrent * (TAU_MEM / TAU_SYN))
    raster = case.raster()

    def call() -> tuple[float, Tensor | None]:
        spikes, _ = made(raster)
        return spikes.sum().item() / spikes[0].numel(), spikes.sum()

    return call


def snntorch(case: Sequences) -> Call:
    import snntorch

    made = snntorch.RSynaptic(1 - 1 / TAU_SYN, 1 - 1 / TAU_MEM, linear_features=NEURONS)
    weight, raster = nn.Parameter(case.weight / TAU_SYN), case.raster()
    with torch.no_grad():
        made.recurrent.weight.copy_(case.recurrent / TAU_SYN)

    def call() -> tuple[float, Tensor | None]:
        spike, current, membrane = made.init_rsynaptic()
        total: Any = 0
        for drive in raster @ weight.T:
            spike, current, membrane = made(drive, spike, current, membrane)
            total = total + spike
        return total.sum().item() / total.numel(), total.sum()

    return call


def exact_event_adjoint(case: Sequences) -> Call:
    """Its recurrent layer has first spikes only: here one of the 100 windows, two samples at once, as memory allows."""
    from exact_event_adjoint import ExactAdjointRecurrent

    made = ExactAdjointRecurrent(INPUTS, NEURONS, tau_m=TAU_MEM, tau_s=TAU_SYN, t_max=1.0)
    with torch.no_grad():
        made.w_in.copy_(case.weight)
        made.w_rec.copy_(case.recurrent)
    begin = STEPS // 2
    inside = (case.trains >= begin) & (case.trains < begin + 1)
    firsts = torch.where(inside, case.trains - begin, 1.0).min(dim=-1).values

    def call() -> tuple[float, Tensor | None]:
        count = 0
        for some in firsts.split(2):
            spikes = made(some, torch.rand(len(some), NEURONS))
            spikes.sum().backward()
            count += int((spikes < 1.0).sum())
        return count / len(firsts) / NEURONS, None

    return call


def jaxsnn(case: Sequences) -> Call:
    """Its event loop has a step for each event of a sample, of inputs and of neurons, for all samples together."""
    import jax
    import jax.numpy as jnp
    from jaxsnn.event import modules
    from jaxsnn.event.modules.lif.lif import LIFParameters
    from jaxsnn.event.topology import Topology
    from jaxsnn.event.types import Spike

    batch, _, most = case.trains.shape
    times, order = case.trains.flatten(1).sort(dim=-1)
    events = int(torch.isfinite(times).sum(dim=-1).max())
    own = int(torch.isfinite(layer(case)(case.trains)).sum(dim=(1, 2)).max())  # room for as many spikes as ours have
    times = times[:, :events].clamp(max=2.0 * STEPS)
    network = Topology(t_max=float(STEPS), backprop_method="eventprop")
    parameters = LIFParameters(v_reset=0.0, v_th=1.0, tau_syn=TAU_SYN, tau_mem=TAU_MEM)
    scale = TAU_MEM / TAU_SYN
    weight, recurrent = (jnp.asarray((x.T * scale).numpy()) for x in (case.weight, case.recurrent))
    network.add({
        "inputs": modules.Source(INPUTS), "neurons": modules.LIF(NEURONS, events + own + 1, parameters),
        "weight": modules.Linear(pre_weights=weight), "recurrent": modules.Linear(pre_weights=recurrent, min_delay=1.0),
    })  # fmt: skip
    network.connect([
        ("inputs", "weight"), ("weight", "neurons"), ("neurons", "recurrent"), ("recurrent", "neurons"),
    ])  # fmt: skip
    init, apply = network.done()
    weights = init(jax.random.PRNGKey(0))
    spikes = Spike(
        time=jnp.asarray(times.numpy()), idx=jnp.asarray((order[:, :events] // most).numpy()),
        current=jnp.zeros((batch, events)), layer_idx=jnp.zeros((batch, events), dtype=int),
        internal=jnp.ones((batch, events), dtype=bool),
    )  # fmt: skip

    def total(weights: Any) -> Any:
        out = apply({"inputs": spikes}, weights)["neurons"]
        there = out.internal & (out.time < STEPS)
        return jnp.where(there, out.time, 0.0).sum(), there.sum()

    both = jax.jit(jax.value_and_grad(total, has_aux=True))

    def call() -> tuple[float, Tensor | None]:
        (_, count), _ = jax.block_until_ready(both(weights))
        return float(count) / batch / NEURONS, None

    return call


PEERS: dict[str, Callable[[Sequences], Call]] = {
    f"Norse LIFRecurrent, {STEPS} steps": norse,
    f"snnTorch RSynaptic, {STEPS} steps": snntorch,
    "exact-event-adjoint, first spikes of 1 window": exact_event_adjoint,
    "jaxsnn, all events": jaxsnn,
}
