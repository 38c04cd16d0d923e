"""Known networks as recurrent layers with their inputs, for ``benchmarks/large.py``.

Where a network has delta currents, voltages at random at the start or no fixed inputs, its layer has what a simulator
of spikes can be given exactly: exponential currents of the same charge, and inputs at random times. Each says so.
Units are ms, mV, and weights in mV: the charge of a synapse over the capacity.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.distributions import LogNormal, Uniform

import firstspike as fs

DTYPE = torch.float32


@dataclass
class Case:
    """A network, what arrives at it, and how NEST may divide time."""

    layer: fs.SpikingRecurrent
    times: Tensor
    """Input times ``(1, inputs, spikes)``, at least one step after 0."""
    steps: Sequence[float] = (0.1,)
    """Steps of NEST: the fastest one counts."""


def poisson(rate: float | Tensor, inputs: int, duration: float, draw: torch.Generator) -> Tensor:
    """Poisson trains ``(1, inputs, spikes)`` of a rate in Hz, from 1 ms on; ``inf`` after the last spike."""
    mean = torch.as_tensor(rate, dtype=torch.float64).expand(inputs) * duration * 1e-3
    count = torch.poisson(mean, draw).long()
    times = 1.0 + duration * torch.rand(inputs, int(count.max()), generator=draw, dtype=torch.float32)
    times[torch.arange(times.shape[1]) >= count.unsqueeze(-1)] = math.inf
    return times.double()[None]


def balanced(
    neurons: int, synapses: int, duration: float = 150.0, *, dtype: torch.dtype = DTYPE,
    two: bool = False, each: bool = False,
) -> Case:  # fmt: skip
    """Four fifths excite, the others inhibit five times as strongly; delays of 1.5 ms; a tenth as many Poisson inputs.

    Args:
        neurons: how many.
        synapses: from the network, of each neuron; ten are from inputs.
        duration: ms.
        dtype: of the layer.
        two: whether excitation and inhibition have their own time constants.
        each: whether delays are drawn, up to 10 ms.
    """
    draw = torch.Generator().manual_seed(0)
    inputs, excite, size = neurons // 10, neurons * 4 // 5, 0.3 / synapses**0.5
    indegree = [round(synapses * part) for part in (0.8, 0.2)]
    options = {"delay": Uniform(1.5, 10.0) if each else 1.5, "multapses": True, "generator": draw}
    weight, strong = Uniform(0.5 * size, 1.5 * size), Uniform(-7.5 * size, -2.5 * size)
    recurrent = fs.connect.fixed_indegree(excite, neurons, indegree[0], weight=weight, **options).at(sources=neurons)
    recurrent += fs.connect.fixed_indegree(neurons - excite, neurons, indegree[1], weight=strong, **options).at(excite)
    outer = fs.connect.fixed_indegree(
        inputs, neurons, 10, weight=Uniform(0.075, 0.225), multapses=True, generator=draw
    )  # fmt: skip
    receptors = {}
    if two:
        kinds = [0] * excite + [1] * (neurons - excite)
        receptors = {"receptor": [0] * inputs, "recurrent_receptor": kinds}
    layer = fs.SpikingRecurrent(
        inputs, neurons, round(duration * 0.08) + 8, duration,
        fs.LIF(10.0, (2.0, 4.0) if two else 2.0, refractory=2.0), window=1.5, overflow="drop", synapses=outer,
        recurrent=recurrent, dtype=dtype, **receptors,
    )  # fmt: skip
    return Case(layer, poisson(50.0, inputs, duration, draw), (0.1, 0.5))


def brunel(duration: float = 100.0, dtype: torch.dtype = DTYPE) -> Case:
    """Brunel (2000), 10 000 and 2 500 neurons, asynchronous and irregular (g = 5, twice the threshold rate).

    Currents are exponential, of 0.5 ms, where the original has jumps of the membrane of the same charge.
    """
    draw = torch.Generator().manual_seed(0)
    excite, inhibit, jump = 10_000, 2_500, 0.1
    neurons, threshold, tau = excite + inhibit, 20.0, 20.0
    options = {"delay": 1.5, "generator": draw}
    recurrent = fs.connect.fixed_indegree(excite, neurons, 1000, weight=jump, **options).at(sources=neurons)
    recurrent += fs.connect.fixed_indegree(inhibit, neurons, 250, weight=-5 * jump, **options).at(excite)
    layer = fs.SpikingRecurrent(
        neurons, neurons, 40 + round(0.1 * duration), duration,
        fs.LIF(tau, 0.5, threshold=threshold, reset=10.0, refractory=2.0), window=1.5, overflow="drop",
        synapses=fs.connect.one_to_one(neurons, weight=jump), recurrent=recurrent, dtype=dtype,
    )  # fmt: skip
    return Case(layer, poisson(2e3 * threshold / (jump * tau), neurons, duration, draw), (0.1, 0.5))


def cuba(duration: float = 200.0, dtype: torch.dtype = DTYPE) -> Case:
    """Vogels and Abbott (2005) with currents, 4 000 neurons, as in the review of Brette (2007); delays of 0.1 ms.

    Voltages are relative to the reset, -60 mV. One volley with random weights stands for random voltages at the start.
    """
    draw = torch.Generator().manual_seed(0)
    excite, neurons, tau = 3200, 4000, 20.0
    options = {"delay": 0.1, "generator": draw}
    recurrent = fs.connect.fixed_probability(excite, neurons, 0.02, weight=1.62 * 5 / tau, **options)
    recurrent = recurrent.at(sources=neurons)
    recurrent += fs.connect.fixed_probability(neurons - excite, neurons, 0.02, weight=-9.0 * 10 / tau, **options).at(
        excite
    )
    layer = fs.SpikingRecurrent(
        1, neurons, round(0.1 * duration) + 20, duration,
        fs.LIF(tau, (5.0, 10.0), threshold=10.0, reset=0.0, refractory=5.0, bias=11.0), window=0.1, overflow="drop",
        receptor="sign", recurrent_signs=[1] * excite + [-1] * (neurons - excite),
        synapses=fs.connect.all_to_all(1, neurons, weight=Uniform(0.0, 12.0), generator=draw),
        recurrent=recurrent, dtype=dtype,
    )  # fmt: skip
    return Case(layer, torch.ones(1, 1, 1, dtype=torch.float64))


POPULATIONS = [20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948]
"""Of the layers 2/3, 4, 5 and 6, each excitatory and then inhibitory."""
RATES = [0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829]
"""Spikes per second of the whole network, which replace what synapses that are left out would send."""
EXTERNAL = [1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100]
"""Inputs of each neuron from elsewhere, at 8 Hz."""
CONNECTED = [
    [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
    [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
    [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
    [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
    [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
    [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
    [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
    [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
]
"""Probability that two neurons are connected at least once: of a population that receives, from all that send."""


def psp_charge(peak: float, mem: float, syn: float) -> float:
    """The weight in mV with which a postsynaptic potential has that peak."""
    at = mem * syn / (mem - syn) * math.log(mem / syn)
    return peak * (mem - syn) / mem / (math.exp(-at / mem) - math.exp(-at / syn))


def microcircuit(duration: float = 100.0, dtype: torch.dtype = DTYPE, scale: float = 0.1) -> Case:
    """Potjans and Diesmann (2014): a square millimetre of cortex, neurons and synapses of each scaled by a tenth.

    Weights are scaled by the root, with a constant current for what is lost of the mean, as usual. Delays are whole
    steps of 0.1 ms, as in NEST. Neurons begin at rest.
    """
    draw = torch.Generator().manual_seed(0)
    sizes = [round(scale * n) for n in POPULATIONS]
    first, neurons = np.cumsum([0, *sizes]).tolist(), sum(sizes)
    mem, syn = 10.0, 0.5
    charge = psp_charge(0.15, mem, syn)
    parts, bias = [], []
    for receives, row in enumerate(CONNECTED):
        lost = 0.0
        for sends, chance in enumerate(row):
            pairs = POPULATIONS[receives] * POPULATIONS[sends]
            whole = math.log1p(-chance) / math.log1p(-1 / pairs)  # synapses at full size
            number = round(whole * scale**2)
            strength = charge * (-4.0 if sends % 2 else 2.0 if (receives, sends) == (0, 2) else 1.0)
            lost += whole / POPULATIONS[receives] * strength * RATES[sends] * 1e-3
            mean = 0.75 if sends % 2 else 1.5
            delay = torch.normal(mean, 0.5 * mean, (number,), generator=draw, dtype=torch.float64)
            delay = (10 * delay).round().clamp(min=1) / 10
            ends = [first[x] + torch.randint(sizes[x], (number,), generator=draw) for x in (sends, receives)]
            weight = strength / scale**0.5 * (1 + 0.1 * torch.randn(number, generator=draw))
            parts.append((torch.stack(ends), weight, delay))
        lost += EXTERNAL[receives] * charge * 8e-3
        bias += [mem * (1 - scale**0.5) * lost] * sizes[receives]
    index, weight, delay = (torch.cat(x, dim=-1) for x in zip(*parts, strict=True))
    recurrent = fs.connect.pairs(index, neurons, neurons, multapses=True, weight=weight, delay=delay)
    rate = torch.tensor([8.0 * scale * k for k, n in zip(EXTERNAL, sizes, strict=True) for _ in range(n)])
    neuron = fs.LIF(mem, syn, threshold=15.0, reset=0.0, refractory=2.0, bias=torch.tensor(bias, dtype=dtype))
    layer = fs.SpikingRecurrent(
        neurons, neurons, round(0.1 * duration) + 20, duration, neuron, window=0.1, overflow="drop",
        synapses=fs.connect.one_to_one(neurons, weight=charge / scale**0.5), recurrent=recurrent, dtype=dtype,
    )  # fmt: skip
    return Case(layer, poisson(rate, neurons, duration, draw))


def fly(duration: float = 1000.0, dtype: torch.dtype = DTYPE, synapses: int = 5_000_000) -> Case:
    """Synthetic, of the size of a fly's brain: 138 000 neurons, delays of 1.8 ms, few of which spike.

    Pairs are drawn at random, three tenths of the neurons inhibit. Sizes of connections are log-normal. The neurons and
    their time constants are those of published models of the whole brain, whose synapses are not: 100 neurons are
    driven at 150 Hz, and the network as a whole spikes as often as there.
    """
    draw = torch.Generator().manual_seed(0)
    neurons, tau, syn = 138_000, 20.0, 5.0
    strength = LogNormal(math.log(0.275 * syn / tau), 1.0)
    indegree = round(synapses / neurons)
    recurrent = fs.connect.fixed_indegree(
        neurons, neurons, indegree, weight=strength, delay=1.8, autapses=False, generator=draw
    )
    sign = torch.where(torch.rand(neurons, generator=draw) < 0.3, -1, 1)
    recurrent = recurrent.with_values(weight=recurrent.weight * sign[recurrent.source])
    layer = fs.SpikingRecurrent(
        100, neurons, round(0.2 * duration) + 20, duration,
        fs.LIF(tau, syn, threshold=7.0, reset=0.0, refractory=2.2), window=1.8, overflow="drop",
        synapses=fs.connect.one_to_one(100, weight=17.0).at(targets=neurons), recurrent=recurrent, dtype=dtype,
    )  # fmt: skip
    return Case(layer, poisson(150.0, 100, duration, draw), (0.1, 0.2))


def million(duration: float = 100.0, dtype: torch.dtype = DTYPE) -> Case:
    """A million neurons with 100 synapses each, as ``balanced``."""
    return balanced(1_000_000, 100, duration, dtype=dtype)


KNOWN: dict[str, Callable[..., Case]] = {
    "brunel": brunel,
    "cuba": cuba,
    "microcircuit": microcircuit,
    "fly": fly,
    "fly15": lambda duration=1000.0, dtype=DTYPE: fly(duration, dtype, 15_000_000),
    "million": million,
}
