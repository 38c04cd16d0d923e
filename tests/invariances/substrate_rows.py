"""Substrates: with ideal settings, and one that is noisy."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from networks import UNBOUNDED, sizes
from problems import DOUBLE, POINT, TIMES, WEIGHT, Outputs, Problem, Quantity, Setting, Source
from rows import NO_NETWORK, NO_OBSERVED, NO_STATE, ONE_BACKEND, Row
from torch import Tensor, nn
from torch.func import functional_call

from firstspike import LIF, layers
from firstspike.layers import Network
from firstspike.substrates import SUBSTRATES, Substrate

FIXED = {"weight_mean": 0.0, "weight_std": 1.0} | DOUBLE


class Recorded(torch.autograd.Function):
    """What a substrate sees of a batch: its parameters are those of a module, as a training has them."""

    @staticmethod
    def forward(ctx: Any, network: Network, substrate: Substrate, times: Tensor, *parameters: Tensor) -> Any:
        with torch.enable_grad():
            times = times.detach().requires_grad_()
            layers = substrate.record(network, times).layers
        ctx.layers, ctx.leaves = layers, [times, *network.parameters()]
        return tuple(x.detach().clone() for x in layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        pairs = [(x, g) for x, g in zip(ctx.layers, grads, strict=True) if x.requires_grad]
        made, by = ([x[k] for x in pairs] for k in (0, 1))
        found = torch.autograd.grad(made, ctx.leaves, by, allow_unused=True)
        return None, None, *found


class Opened(nn.Module):
    """The same of the exact substrate, with tensors in place of the parameters."""

    def __init__(self, network: Network, substrate: Substrate) -> None:
        super().__init__()
        self.network, self.substrate = network, substrate

    def forward(self, times: Tensor) -> tuple[Tensor, ...]:
        return self.substrate.record(self.network, times).layers


def make(
    kind: str,
    settings: Mapping[str, Any],
    units: Mapping[str, tuple[Quantity, float]],
    first_delay: float,
    setting: Setting,
    member: int = 0,
) -> Problem:
    """Delays and a layer of first spikes, then one of trains."""
    source = Source(setting._replace(constants="numbers", ratio=min(setting.ratio, 100.0)), member)
    source.add("times", TIMES, source.times(setting.samples, setting.inputs), learnt=True)
    before = first_delay + source.uniform(setting.inputs, low=0.05)
    source.add("before", Quantity("i", time=1), before, learnt=True)
    weight = source.weights(setting.neurons, setting.inputs, arrivals=setting.inputs, spread=1.5).clamp(-2, 2)
    source.add("weight", WEIGHT, weight, learnt=True)
    out = source.weights(2, setting.neurons, arrivals=setting.neurons, charge=6.0).clamp(-2, 2)
    source.add("out_weight", Quantity("cj", weight=1), out, learnt=True)
    source.neuron(setting.neurons)
    source.add("rest", Quantity(time=1), 0.254)  # not a whole number of steps
    for name, (quantity, value) in units.items():
        source.add(name, quantity, value)

    def run(values: Mapping[str, Any], backend: str) -> Outputs:
        inputs, hidden = sizes(values)
        neuron = LIF(values["tau_mem"], values["tau_syn"], values["threshold"])
        network = Network(
            layers.Delay(inputs, UNBOUNDED, **DOUBLE),
            layers.LIFLinear(inputs, hidden, neuron, backend=backend, **FIXED),
            layers.LIFSpikeTrains(
                hidden, 2, 6, neuron.with_values(refractory=values["rest"]), overflow="drop", backend=backend, **FIXED
            ),
        )
        if values["weight"].dtype != torch.float64:
            network.to(values["weight"].dtype)
        substrate = SUBSTRATES[kind](**settings, **{name: values[name] for name in units})
        state = {"0.delay_raw": values["before"], "1.weight": values["weight"], "2.weight": values["out_weight"]}
        if kind == "exact":
            model, own = Opened(network, substrate), {f"network.{name}": x for name, x in state.items()}
            found = functional_call(model, own, (values["times"],))
        else:
            network.load_state_dict(state, strict=False)
            with substrate.open(network):
                found = Recorded.apply(network, substrate, values["times"], *state.values())
        return {"delayed": found[0], "hidden": found[1], "trains": found[2]}

    point = {"time": 1, "point": True}
    return source.problem(
        run, delayed=Quantity("bi", **point), hidden=Quantity("bo", **point), trains=Quantity("bcs", **point)
    )


COMMON = {
    **dict.fromkeys(("ensemble", "ensemble, other options"), NO_NETWORK),
    "neuron alone": "the next layer sees all of them",
    "cut": NO_STATE,
    "observed": NO_OBSERVED,
    "overflow": "see LIFSpikeTrains",
}
TURNS = {"transforms": "networks take turns"}
ONE = {"backends": ONE_BACKEND}
IDEAL = {"differences": "the gradient is that of ideal neurons"}
BY_PLACE = "noise is drawn place by place"
DRAWN = dict.fromkeys((f"{x} permuted" for x in ("inputs", "samples", "neurons")), BY_PLACE)
DRAWN |= dict.fromkeys(("input split", "silent input", "neuron repeated", "sample alone"), BY_PLACE)
TIME, RATE = Quantity(time=1), Quantity(weight=-1)
GRID = {"step": (TIME, 0.01), "duration": (POINT, 8.0)}
JITTER = dict.fromkeys(("input_jitter", "spike_jitter", "delay_jitter"), (TIME, 0.01))
LEVELS = {
    name: (Quantity(weight=1), 0.02) for name in ("threshold_offset", "threshold_spread", "threshold_batch_noise")
}
CHIP = {"threshold_offset": 0.0, "threshold_spread": 0.0, "threshold_batch_noise": 0.0, "delay_jitter": 0.0}
CHIP |= {"tau_us": 6.0, "refractory": 0.3175, "latency_us": 0.08}


def row(
    kind: str,
    name: str,
    covers: tuple[str, ...],
    units: Mapping[str, Any],
    excused: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    first_delay: float = 0.0,
    **options: Any,
) -> Row:
    made = partial(make, kind, settings or {}, units, first_delay)
    return Row(name, made, covers, COMMON | dict(excused), unchecked=("before",), **options)


SUBSTRATE_ROWS = [
    row("exact", "Exact", ("exact", "Exact"), {}, {}),
    row("noisy", "Noisy, ideal", ("noisy", "Noisy"), {}, TURNS),
    row("noisy", "Noisy", (), JITTER | LEVELS | {"weight_scale": (RATE, 30.0)}, TURNS | IDEAL | DRAWN, {"seed": 3}),
    row("integrator", "Integrator", ("integrator", "Integrator"), GRID, TURNS | IDEAL | ONE, slow=True,
        backends=("cpu",), shifts=(0.5, 64.0, -2.0)),
    row("mock_bss2", "MockBss2", ("mock_bss2", "MockBss2"), {"weight_scale": (RATE, 30.0)},
        TURNS | IDEAL | ONE | {"shift": "the window of a sample begins at 0 on the chip"}
        | dict.fromkeys(("input split", "neuron repeated"), "weights are whole numbers, and their halves are not"),
        CHIP, 1.5, slow=True, backends=("cpu",)),
]  # fmt: skip
