"""Backends accept a neuron or refuse it with a reason."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from firstspike import LIF, first_spike_time, spike_trains
from firstspike.neurons import QIF, Neuron, Parameter, Unit
from firstspike.spiketime.backends import BACKENDS, accepting
from firstspike.spiketime.contract import DIFFERENTIABLE, QUANTITIES

CPU = torch.device("cpu")
CONVEX = "its search for spikes needs a membrane that is concave while it rises"


@dataclass(frozen=True, eq=False)
class Quadratic(Neuron):
    """A neuron that no backend computes."""

    v_peak: float = 10.0

    parameters: ClassVar = {"v_peak": Parameter(Unit(potential=1), 0.0)}
    state: ClassVar = {"voltage": Unit(potential=1)}
    resets: ClassVar = {}


@dataclass(frozen=True, eq=False)
class Leaky(Quadratic):
    concave_rise: ClassVar = True


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
def test_a_neuron_is_refused_with_a_reason(backend):
    times, weight = torch.zeros(2, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match=f"backend {backend!r} refuses Quadratic: {CONVEX}"):
        first_spike_time(times, weight, Quadratic(), backend=backend)
    with pytest.raises(ValueError, match=f"backend {backend!r} refuses Leaky: it computes neurons with the parameters"):
        spike_trains(times[..., None], weight, Leaky(), max_spikes=3, backend=backend)


def test_the_base_of_neurons_needs_equations():
    with pytest.raises(TypeError, match="equations"):
        Neuron()


def test_a_neuron_has_the_checks_of_its_parameters():
    with pytest.raises(ValueError, match=r"v_peak must be > 0 and finite, got -1"):
        Quadratic(-1)
    assert Quadratic(2) == Quadratic(2.0)
    assert Quadratic() != Leaky()


def test_recurrence_in_one_call():
    """On a CPU, of linear neurons; everywhere else window by window, for a reason."""
    own = torch.ones(3)
    for neuron in (LIF(), LIF(reset=0.0 * own), LIF(tau_mem=own), LIF(tau_syn=own), LIF(bias=0.1)):
        assert accepting("auto", CPU, neuron, recurrent=True) == ("auto", "")
        assert accepting("cpu", CPU, neuron, recurrent=True) == ("cpu", "")
    window, others = "it computes recurrent neurons window by window", "its recurrent kernels take no neurons from equ"
    assert accepting("reference", CPU, LIF(), recurrent=True) == (None, window)
    assert accepting("auto", CPU, QIF(), recurrent=True) == (None, f"{others}ations; {window}")


def test_auto_takes_the_fastest_that_accepts(monkeypatch):
    cpu = BACKENDS["cpu"]()
    monkeypatch.setitem(BACKENDS, "cpu", lambda: cpu)
    assert accepting("auto", CPU, LIF()) == ("auto", "")
    monkeypatch.setattr(type(cpu), "supports", property(lambda self: lambda *_: "not today" if self is cpu else None))
    assert accepting("auto", CPU, LIF()) == ("reference", "")
    assert accepting("cpu", CPU, LIF()) == (None, "not today")


def test_the_table_follows_the_neuron():
    names = list(DIFFERENTIABLE)
    assert names[:3] == ["times", "weight", "delay"]
    closed = [name for name in LIF.parameters if name not in ("refractory", "tau_rise")]
    assert closed == names[3:8]  # a rise time is the time constant of a component
    assert ["jumps", "parameters", *LIF.state, "left", "refractory"] == names[8:]
    assert list(QUANTITIES)[len(names) :] == ["observed", "receptor"]
    assert {name for name, quantity in QUANTITIES.items() if quantity.time} == {
        "times", "delay", "tau_mem", "tau_syn", "left", "refractory", "observed",
    }  # fmt: skip
