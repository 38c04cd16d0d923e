"""Equations that cannot be: one line that says where, at once, and nothing is executed."""

import math
import re

import pytest
import torch

from firstspike import Neuron, spike_trains

CELL = {"threshold": "v > 1", "reset": "v = 0", "receptors": ["i"]}


def chain(first, join, parts=60):
    lines = [first, *(join.format(f"a{k - 1}", k=k) for k in range(1, parts))]
    return "\n".join([*lines, f"dv/dt = a{parts - 1}", "di/dt = -i"])


FLOWS = {
    "a million characters": ("v+" * 500_000 + "v", "at most 20000 characters, got"),
    "brackets": ("(" * 4000 + "v" + ")" * 4000, "line 1: is not a formula"),
    "signs": ("-" * 5000 + "v", "line 1"),
    "sums": ("+".join("v" * 300), "nested at most 200 deep"),
    "an import": ("__import__('os').system('true')", "line 1, column 9: only numbers, names"),
    "a hidden name": ("__import__", "line 1, column 9: __import__ is no name"),
    "an attribute": ("v.__class__", "line 1, column 9: a dot is not allowed"),
    "lambda": ("(lambda: v)()", "column 9: only numbers, names"),
    "an f-string": ("f'{v}'", "column 9: only numbers, names"),
    "a string": ("'v'", "column 9: only numbers, names"),
    "a look-alike": ("i - \uff56", "column 13: '\uff56' is not a letter from a to z"),
    "another alphabet": ("-\u03bd", "column 10: '\u03bd' is not a letter"),
    "a walrus": ("(v := 3)", "column 10: only numbers, names"),
    "a list": ("[v for v in i]", "column 9: only numbers, names"),
    "an index": ("v[0]", "column 9: an index is not allowed"),
    "if": ("1 if v > 0 else 2", "column 9: `if` is not allowed"),
    "a comparison": ("v > 0", "column 9: a comparison is not allowed here"),
    "and": ("v and i", "column 9: and, or are not allowed"),
    "True": ("True - v", "column 9: only numbers, names"),
    "complex": ("1j*v", "column 9: only numbers, names"),
    "infinite": ("v*1e999", "column 11: numbers must be finite"),
    "digits": ("9" * 5000, "line 1: is not a formula: 9999"),
    "rounding": ("v // 2", "column 9: only numbers, names"),
    "a function of time": ("t - v", "column 9: t is not allowed: neurons do not depend on the time"),
    "a step": ("v / dt", "column 13: dt is not allowed: there are no time steps"),
    "noise": ("xi - v", "column 9: xi is not allowed: there is no noise"),
    "eval": ("eval(v)", "column 9: eval is not one of exp, log"),
    "two arguments": ("exp(v, v)", "column 9: exp takes one argument"),
    "a star": ("exp(*v)", "column 9: exp takes one argument"),
    "a null byte": ("v\0", "line 1: is not a formula"),
    "half a line": ("(v\n + 1)", "line 1: is not a formula"),
    "no value": ("v / tau", "the equations use tau: give each a value, missing tau"),
    "an attribute of neurons": ("parts - v", "parts cannot be the name of a state or parameter"),
    "an argument": ("threshold - v", "threshold cannot be the name of a state or parameter"),
}
WHOLE = {
    "doubled names": (chain("a0 = v + i", "a{k} = {0}*{0}"), "more than 5000 numbers, names and operations"),
    "doubled numbers": (chain("a0 = 1 + 1", "a{k} = {0}*{0}"), "more than 5000 numbers, names and operations"),
    "a chain": (chain("a0 = v", "a{k} = " + "-" * 150 + "{0}"), "nested more than 200 deep"),
    "a circle": ("a = b; b = a; dv/dt = a; di/dt = -i", "line 1: a is defined by itself"),
    "a keyword": ("dlambda/dt = -1; di/dt = -i", "line 1: expected dx/dt = ..., got 'dlambda/dt' on the left"),
    "a part lambda": ("lambda = 3; dv/dt = -v; di/dt = -i", "line 1: expected dx/dt"),
    "time as a state": ("dt/dt = -1; dv/dt = -v; di/dt = -i", "line 1: expected dx/dt"),
    "a look-alike": ("d\uff56/dt = -1; di/dt = -i", "line 1: expected dx/dt"),
    "twice": ("dv/dt = -v; dv/dt = i; di/dt = -i", "line 2: v has an equation already"),
    "none": ("", "must have 1 to 16 lines"),
    "no text": (b"dv/dt = -v", "equations must be a text"),
}
WHOLE = {name: (text, message.replace("...,", "... or name = ...,")) for name, (text, message) in WHOLE.items()}


def refused(message, make):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        make()
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(("flow", "message"), FLOWS.values(), ids=FLOWS)
def test_a_flow_that_is_no_formula(flow, message):
    refused(message, lambda: Neuron(f"dv/dt = {flow}; di/dt = -i", **CELL))


@pytest.mark.parametrize(("text", "message"), WHOLE.values(), ids=WHOLE)
def test_equations_that_cannot_be(text, message):
    refused(message, lambda: Neuron(text, **CELL))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold", "0 < v < 1", "threshold must be a comparison"),
        ("threshold", "v > 1 > 0", "threshold must be a comparison"),
        ("threshold", "v > 1 and i > 0", "threshold must be a comparison"),
        ("threshold", "v < 1", "threshold must be a comparison"),
        ("threshold", "v", "threshold must be a comparison"),
        ("threshold", "v > 1 and i", "threshold, column 2: and, or are not allowed"),
        ("threshold", "v > " + " + ".join(["x"] * 90), "threshold: more than 5000 numbers"),
        ("reset", "w = 0", "reset must set states"),
        ("reset", "v **= 2", "reset must set states"),
        ("reset", "v = (i := 3)", "reset, column 6: only numbers"),
        ("reset", "v = 0; v = 1", "reset: v is set twice"),
        ("reset", "v = " + " + ".join(["x"] * 90), "reset of v: more than 5000 numbers"),
        ("receptors", ["w"], "receptors must be some of the states"),
        ("receptors", [], "receptors must name the states"),
        ("held", ["w"], "held must be some of the states"),
        ("start", {"w": 0.0}, "start must name states"),
        ("start", 3.0, "start must be a dict of states"),
        ("positive", ["w"], "positive must be some of the parameters"),
        ("receptors", None, "receptors must be some of the states v, i, got None"),
        ("receptors", 3, "receptors must be some of the states v, i, got 3"),
        ("receptors", [["i"]], "receptors must be some of the states v, i, got ['i']"),
        ("held", 3, "held must be some of the states v, i, got 3"),
        ("positive", 3, "positive must be some of the parameters tau, got 3"),
        ("start", {"v": None}, "start of v must be a number or a formula, got None"),
        ("start", {"v": True}, "start of v must be a number or a formula, got True"),
        ("start", {3: 1.0}, "start must name states (v, i), got 3"),
        ("unit", 3, "unit must be the name of a unit of time, such as 'ms', or None, got 3"),
        ("tau", torch.ones(2) + 0j, "tau must be a number or a tensor, got torch.complex64, torch.strided"),
        ("tau", torch.ones(2).to_sparse(), "tau must be a number or a tensor, got torch.float32, torch.sparse_coo"),
        ("zeta", 1.0, "they do not use zeta"),
        ("tau", "9**9**9**9", "tau must be a number or a tensor"),
        ("tau", -1.0, "tau must be > 0 and finite, got -1.0"),
        ("tau", math.nan, "tau must be > 0 and finite, got nan"),
        ("refractory", -1.0, "refractory must be >= 0"),
    ],
)
def test_other_arguments_that_cannot_be(name, value, message):
    text = "x = " + " + ".join(["v*i"] * 90) + "; dv/dt = -v / tau; di/dt = -i"
    refused(message, lambda: Neuron(text, **{**CELL, "tau": 1.0, name: value}))


COMMENTS = {
    "many comments": "# a comment\n" * 110 + "dv/dt = -v / tau\ndi/dt = -i",
    "blank lines": "\n" * 200 + "dv/dt = -v / tau\n\ndi/dt = -i",
    "semicolons in comments": "dv/dt = -v / tau  # the membrane; in mV\ndi/dt = -i # current; in nA",
    "an equation in a comment": "dv/dt = -v / tau; di/dt = -i  # or; di/dt = -2*i",
    "flags of Brian2": "dv/dt = -v / tau : volt (unless refractory)\ndi/dt = -i : amp (event-driven)",
    "other flags of Brian2": "dv/dt = -v / tau : 1\ndi/dt = -i : 1 (clock-driven)",
}


@pytest.mark.parametrize("text", COMMENTS.values(), ids=COMMENTS)
def test_comments_and_flags(text):
    found = Neuron(text, **CELL | {"reset": "v = 0  # back; to rest"}, tau=2.0)
    plain = Neuron("dv/dt = -v / tau; di/dt = -i", **CELL, tau=2.0)
    assert (found.equations.flow, found.equations.after) == (plain.equations.flow, plain.equations.after)
    assert found.equations.held == ("v",)


def test_a_start_above_the_threshold():
    flow = "dv/dt = (e - v + i) / tau; di/dt = -i"
    given = {"threshold": "v > v_th", "reset": "v = e", "receptors": ["i"], "v_th": -50.0, "e": -65.0, "tau": 20.0}
    message = re.escape("starts at v=0, i=0, above its threshold v > v_th: set start={...} for its states, or check")
    with pytest.warns(UserWarning, match=message):
        Neuron(flow, **given)
    Neuron(flow, **given, start={"v": "e"})  # no warning


NONE = "neuron 0 in sample 0 has no spike times: "
RUNS = {
    "nested powers": ({"flow": "9**9**9**9*v"}, "(9 ** (9 ** (9 ** 9))) must be finite, got inf for neuron 0"),
    "a quotient": ({"flow": "v/(a - b)", "a": 1.0, "b": 1.0}, "must be finite, got inf for neuron 0"),
    "a power": ({"flow": "v*a**0.5", "a": torch.tensor(-2.0)}, "(a ** 0.5) must be finite, got nan"),
    "a start": ({"flow": "-v", "start": {"v": "1/0"}}, "must be finite"),
    "no number": ({"flow": "-a*v", "a": torch.tensor(math.nan)}, "a must be finite, got nan"),
    "a time constant": ({"flow": "-v/tau", "tau": torch.tensor(-1.0)}, "tau must be > 0 and finite, got -1.0"),
    "a refractory time": ({"flow": "-v", "refractory": torch.tensor(-1.0)}, "refractory must be >= 0"),
    "a pole": ({"flow": "v*v + i + 1", "threshold": "v > 1e300"}, f"{NONE}its states are not finite"),
    "a fast pole": ({"flow": "exp(v) + i", "threshold": "v > 1e6"}, NONE),
    "an underflow": ({"flow": "(i - v)/tau", "tau": 1e-300}, NONE),
    "oscillations": ({"flow": "i - v + sin(1e12*v)"}, f"{NONE}the steps of its series become too small"),
    "a logarithm": ({"flow": "log(v) + i"}, f"{NONE}its states are not finite"),
    "a root": ({"flow": "sqrt(v) - 1", "start": {"v": 0.5}}, NONE),
    "a reset": ({"flow": "i - v", "reset": "v = 2"}, f"{NONE}it is above its threshold right after its reset"),
    "a reset to nothing": ({"flow": "i - v", "reset": "v = log(-i)"}, f"{NONE}its states are not finite"),
    "a threshold": ({"flow": "i - v", "threshold": "v > log(v - 5)"}, f"{NONE}its states are not finite"),
}


@pytest.mark.parametrize(("options", "message"), RUNS.values(), ids=RUNS)
def test_neurons_without_a_result(options, message):
    options = CELL | options
    neuron = Neuron(f"dv/dt = {options.pop('flow')}; di/dt = -i", **options)
    times, weight = torch.tensor([[[0.5]]]), torch.tensor([[10.0]])
    with pytest.raises(ValueError, match=re.escape(message)):
        spike_trains(times, weight, neuron, max_spikes=5, until=5.0)
