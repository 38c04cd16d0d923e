"""Neurons from equations twice: as text for the package, and as functions of Python for the truth in 40 digits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from series_digits import Cell, cos, exp, log, power, sin, tanh


class Kind(NamedTuple):
    """A neuron, and numbers near which its parameters and inputs are."""

    text: str
    options: Mapping[str, Any]
    """Of ``Neuron``, other than parameters."""
    cell: Cell
    values: Mapping[str, float]
    weights: tuple[float, ...]
    """Of an input, for each receptor."""
    until: float = 4.0
    start: Callable[[Mapping], Sequence] = lambda p: [0, 0]
    refractory: float = 0.0


def _lif(x, p):
    return (x[1] - x[0]) / p["tau_m"], -x[1] / p["tau_s"]


def _qif(x, p):
    return (x[0] * (x[0] - 1) + x[1]) / p["tau_m"], -x[1] / p["tau_s"]


def _quotient(x, p):
    n, d, i = x
    return (i * d - n) / p["tau_m"], -n / p["tau_m"], -i / p["tau_s"]


def _izhikevich(x, p):
    v, u, i = x
    return 0.04 * v * v + 5 * v + 140 - u + i, p["a"] * (p["b"] * v - u), -i / p["tau_s"]


def _adex(x, p):
    v, w, i = x
    rise = p["delta"] * exp((v - p["v_t"]) / p["delta"])
    return (rise - (v - p["e_l"]) - w + i) / p["tau_m"], (p["a"] * (v - p["e_l"]) - w) / p["tau_w"], -i / p["tau_s"]


def _conductance(x, p):
    v, e, i = x
    flow = (-(v - p["e_l"]) - e * (v - p["e_e"]) - i * (v - p["e_i"])) / p["tau_m"]
    return flow, -e / p["tau_e"], -i / p["tau_i"]


def _adlif(x, p):
    v, w, i = x
    return (i - v - w) / p["tau_m"], (p["a"] * v - w) / p["tau_w"], -i / p["tau_s"]


def _mixture(x, p):
    v, u, i = x
    c = cos(u)
    shape = tanh(v) + p["k"] * sin(v * u) - power(1 + v * v, p["q"]) / (2 + c)
    return (i - v + shape) / p["tau_m"], log(1.5 + u * u) * p["a"] - u * u * u / p["tau_w"], -i / p["tau_s"]


def _weak(x, p):
    return (x[1] - x[0] + p["k"] * exp(sin(4 * x[0]))) / p["tau_m"], -x[1] / p["tau_s"]


def _above(x, p):
    return x[0] - p["v_th"]


def _to_reset(x, p):
    return p["v_r"], *x[1:]


SYNAPSE = "di/dt = -i / tau_s"
PLAIN = {"threshold": "v > v_th", "reset": "v = v_r", "receptors": ["i"]}
KINDS = {
    "lif": Kind(
        f"dv/dt = (i - v) / tau_m; {SYNAPSE}", PLAIN, Cell(_lif, _above, _to_reset, (1,), (0,)),
        {"tau_m": 1.3, "tau_s": 0.8, "v_th": 1.0, "v_r": -0.1}, (3.0,), refractory=0.2,
    ),
    "qif": Kind(
        f"dv/dt = (v*(v - 1) + i) / tau_m; {SYNAPSE}", PLAIN, Cell(_qif, _above, _to_reset, (1,), (0,)),
        {"tau_m": 0.6, "tau_s": 0.5, "v_th": 10.0, "v_r": -10.0}, (4.0,),
    ),
    "qif as a quotient": Kind(
        f"dn/dt = (i*d - n) / tau_m; dd/dt = -n / tau_m; {SYNAPSE}",
        {"threshold": "n > v_th * d", "reset": "n = v_r; d = 1", "receptors": ["i"], "start": {"d": 1.0}},
        Cell(_quotient, lambda x, p: x[0] - p["v_th"] * x[1], lambda x, p: (p["v_r"], 1, x[2]), (2,), (0,)),
        {"tau_m": 0.6, "tau_s": 0.5, "v_th": 10.0, "v_r": -10.0}, (4.0,), start=lambda p: [0, 1, 0],
    ),
    "izhikevich": Kind(
        f"dv/dt = 0.04*v**2 + 5*v + 140 - u + i; du/dt = a*(b*v - u); {SYNAPSE}",
        {"threshold": "v > v_th", "reset": "v = c; u += d", "receptors": ["i"], "start": {"v": "c", "u": "b*c"}},
        Cell(_izhikevich, _above, lambda x, p: (p["c"], x[1] + p["d"], x[2]), (2,), (0,)),
        {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0, "tau_s": 2.0, "v_th": 30.0}, (30.0,), until=30.0,
        start=lambda p: [p["c"], p["b"] * p["c"], 0],
    ),
    "adex": Kind(
        "rise = delta * exp((v - v_t) / delta); "
        f"dv/dt = (rise - (v - e_l) - w + i) / tau_m; dw/dt = (a*(v - e_l) - w) / tau_w; {SYNAPSE}",
        {"threshold": "v > v_th", "reset": "v = v_r; w += b", "receptors": ["i"], "start": {"v": "e_l"}},
        Cell(_adex, _above, lambda x, p: (p["v_r"], x[1] + p["b"], x[2]), (2,), (0,)),
        {"delta": 0.3, "v_t": 1.0, "e_l": 0.1, "tau_m": 0.9, "tau_w": 4.0, "tau_s": 0.6, "a": 0.2, "b": 0.3,
         "v_th": 2.0, "v_r": 0.2}, (4.0,), start=lambda p: [p["e_l"], 0, 0], refractory=0.15,
    ),
    "conductances": Kind(
        "dv/dt = (-(v - e_l) - g_e*(v - e_e) - g_i*(v - e_i)) / tau_m; dg_e/dt = -g_e / tau_e; dg_i/dt = -g_i / tau_i",
        {"threshold": "v > v_th", "reset": "v = v_r", "receptors": ["g_e", "g_i"]},
        Cell(_conductance, _above, _to_reset, (1, 2), (0,)),
        {"e_l": 0.1, "e_e": 4.0, "e_i": -1.0, "tau_m": 1.1, "tau_e": 0.5, "tau_i": 0.9, "v_th": 1.0, "v_r": 0.05},
        (2.5, 0.5), start=lambda p: [0, 0, 0], refractory=0.2,
    ),
    "resonator": Kind(
        f"dv/dt = (-v - w + i) / tau_m; dw/dt = (a*v - w) / tau_w; {SYNAPSE}",
        {"threshold": "v >= v_th", "reset": "v = v_r; w = w + b*tau_w", "receptors": ["i"]},
        Cell(_adlif, _above, lambda x, p: (p["v_r"], x[1] + p["b"] * p["tau_w"], x[2]), (2,), (0,)),
        {"tau_m": 0.5, "tau_w": 0.7, "tau_s": 0.3, "a": 6.0, "b": 0.2, "v_th": 0.5, "v_r": 0.0}, (4.0,),
        start=lambda p: [0, 0, 0],
    ),
    "delta synapse": Kind(
        "dv/dt = (b - v) / tau_m; dh/dt = -h / tau_h",
        {"threshold": "v > v_th + h", "reset": "v = v_r; h += 0.3", "receptors": ["v"]},
        Cell(lambda x, p: ((p["b"] - x[0]) / p["tau_m"], -x[1] / p["tau_h"]),
             lambda x, p: x[0] - (p["v_th"] + x[1]), lambda x, p: (p["v_r"], x[1] + 0.3), (0,), (0,), (0,)),
        {"tau_m": 1.3, "tau_h": 2.0, "b": 1.5, "v_th": 1.1, "v_r": -0.2}, (0.7,), refractory=0.1,
    ),
    "not held": Kind(  # above its threshold as soon as it is released
        f"dv/dt = (i - v) / tau_m; {SYNAPSE}", PLAIN | {"held": []}, Cell(_lif, _above, _to_reset, (1,), ()),
        {"tau_m": 0.5, "tau_s": 0.8, "v_th": 0.5, "v_r": -0.1}, (4.0,), refractory=0.4,
    ),
    "weak": Kind(  # series of the states say nothing of what the threshold, and the derivative by k, follow from
        f"dv/dt = (i - v + k*exp(sin(4*v))) / tau_m; {SYNAPSE}",
        PLAIN | {"threshold": "v + b*sin(exp(sin(3*v))) > v_th"},
        Cell(_weak, lambda x, p: x[0] + p["b"] * sin(exp(sin(3 * x[0]))) - p["v_th"], _to_reset, (1,), (0,)),
        {"k": 0.0, "b": 0.2, "tau_m": 1.1, "tau_s": 0.8, "v_th": 1.0, "v_r": -0.1}, (6.0,), until=1.0, refractory=0.1,
    ),
    "mixture": Kind(
        "shape = tanh(v) + k*sin(v*u) - (1 + v**2)**q / (2 + cos(u)); dv/dt = (i - v + shape) / tau_m; "
        f"du/dt = log(1.5 + u**2)*a - u**3/tau_w; {SYNAPSE}",
        {"threshold": "v + 0.1*u > v_th + b*tanh(u)", "reset": "v = v_r*exp(-u*b); u = u*b - v/7", "receptors": ["i"],
         "held": ["u", "v"], "start": {"v": "-k/q", "u": "sqrt(a)"}},
        Cell(_mixture, lambda x, p: x[0] + 0.1 * x[1] - (p["v_th"] + p["b"] * tanh(x[1])),
             lambda x, p: (p["v_r"] * exp(-x[1] * p["b"]), x[1] * p["b"] - x[0] / 7, x[2]), (2,), (0, 1)),
        {"k": 0.3, "q": 0.7, "a": 0.8, "b": 0.4, "tau_m": 0.8, "tau_w": 1.1, "tau_s": 0.7, "v_th": 0.6, "v_r": -0.3},
        (6.0,), until=1.5, start=lambda p: [-p["k"] / p["q"], power(p["a"], 0.5), 0], refractory=0.1,
    ),
}  # fmt: skip
