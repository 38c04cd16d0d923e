"""Forward mode: tangents that agree with finite differences and, row by row, with the backward pass."""

import math

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vmap

from fifty_digits import RATIOS
from firstspike import LIF, SpikingRecurrent, first_spike_time
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window, transforms

pytestmark = [
    pytest.mark.slow,  # it has kernels of its own to compile
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.filterwarnings(
        "ignore:.torch.jit.script. is deprecated"
    ),  # torch itself, when forward mode is first used
]

SAMPLES, INPUTS, OUTPUTS = 3, 5, 4
INF = math.inf


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(ratio, delayed=True, own=True):
    """Everything that spike times depend on. All neurons fire, except the last, and one input never arrives."""
    weight = 2.5 + draw(OUTPUTS, INPUTS, seed=1)
    weight[:, 1] = -0.5
    weight[-1] *= 0.01
    values = {"times": 1.5 * draw(SAMPLES, INPUTS), "weight": weight, "threshold": 0.8 + 0.4 * draw(OUTPUTS, seed=2)}
    values["times"][0, -1] = INF
    if delayed:
        values["delay"] = 0.1 + draw(OUTPUTS, INPUTS, seed=3)
    if own:
        values["tau_syn"] = torch.tensor([1.0, 1.2, 1.0, 0.8], dtype=torch.float64)
        if ratio < INF:
            values["tau_mem"] = ratio * torch.tensor([1.0, 1.2, 0.9, 1.0], dtype=torch.float64)
    return values


def spikes(values, ratio, backend, **options):
    values = dict(values)
    neuron = LIF(values.pop("tau_mem", ratio), values.pop("tau_syn", 1.0), values.pop("threshold", 1.0))
    return first_spike_time(neuron=neuron, backend=backend, **values, **options)


def tangents_of(values, seed=10):
    found = {name: draw(*x.shape, seed=seed + k) - 0.5 for k, (name, x) in enumerate(values.items())}
    found["times"] = torch.where(values["times"].isfinite(), found["times"], 0.0)
    return found


def push(function, values, tangents):
    """Value and tangent for dicts of arguments."""
    return jvp(
        lambda *xs: function(dict(zip(values, xs, strict=True))), tuple(values.values()), tuple(tangents.values())
    )


def pulled(function, values, tangents):
    """The tangent as backward passes give it, a row of the Jacobian at a time."""
    rows = jacrev(function)(values)
    return sum((row * tangents[name]).flatten(2).sum(2) for name, row in rows.items())


@pytest.mark.parametrize("own", [False, True], ids=["numbers", "neurons"])
@pytest.mark.parametrize("delayed", [False, True])
def test_tangents_agree_with_the_backward_pass(delayed, own, ratio, backend):
    values = arguments(ratio, delayed, own)
    tangents = tangents_of(values)
    out, moved = push(lambda v: spikes(v, ratio, backend), values, tangents)
    assert torch.equal(out, spikes(values, ratio, backend))
    assert out[:, :-1].isfinite().all()
    assert out[:, -1].isinf().all()
    assert not moved[:, -1].any()
    assert moved[:, :-1].all()
    expected = pulled(lambda v: spikes(v, ratio, backend), values, tangents)
    torch.testing.assert_close(moved, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("delayed", [False, True])
def test_tangents_agree_with_finite_differences(delayed, ratio, backend):
    values = {name: x[:-1] if len(x) == OUTPUTS else x for name, x in arguments(ratio, delayed).items()}
    tangents, step = tangents_of(values), 1e-6

    def at(distance):
        return spikes({name: x + distance * tangents[name] for name, x in values.items()}, ratio, backend)

    _, moved = push(lambda v: spikes(v, ratio, backend), values, tangents)
    torch.testing.assert_close(moved, (at(step) - at(-step)) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["times", "weight", "threshold", "delay", "tau_mem", "tau_syn"])
def test_each_tangent_alone(name, backend):
    """What has no tangent counts as fixed; the parts add up to the whole."""
    values = arguments(1.37)
    tangents = tangents_of(values)
    alone = {key: tangents[key] if key == name else torch.zeros_like(x) for key, x in values.items()}
    with forward_ad.dual_level():
        duals = values | {name: forward_ad.make_dual(values[name], tangents[name])}
        moved = forward_ad.unpack_dual(spikes(duals, 1.37, backend)).tangent
    torch.testing.assert_close(
        moved, push(lambda v: spikes(v, 1.37, backend), values, alone)[1], rtol=1e-13, atol=1e-15
    )
    torch.testing.assert_close(moved, pulled(lambda v: spikes(v, 1.37, backend), values, alone), rtol=1e-12, atol=1e-13)
    assert moved[:, :-1].all()


def test_jacobians(ratio, backend):
    values = arguments(ratio)
    forward, backward = (jac(lambda v: spikes(v, ratio, backend))(values) for jac in (jacfwd, jacrev))
    for name in values:
        assert backward[name].any(), name
        torch.testing.assert_close(forward[name], backward[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("ratio", "delayed", "started"),
    [(ratio, delayed, bool((k + delayed) % 2)) for k, ratio in enumerate(RATIOS) for delayed in (False, True)],
)
def test_jacobians_of_trains(delayed, started, ratio, backend):
    """Each spike, and the state at the end, by everything; the inputs have two times each."""
    values = arguments(ratio, delayed)
    values["times"] = torch.stack([values["times"], values["times"] + 0.3], -1)
    names = ("voltage", "current", "refractory")
    state = {name: 0.3 * draw(SAMPLES, OUTPUTS, seed=seed) for seed, name in enumerate(names, 4)}
    state["refractory"][0] = 0

    def out(values):
        given = dict(values)
        start = TrainState(*(given.pop(name) for name in names), 0.0)
        neuron = LIF(given.pop("tau_mem", ratio), given.pop("tau_syn", 1.0), given.pop("threshold"))
        found = spike_window(
            neuron=neuron.with_values(refractory=0.05, reset=-0.1), max_spikes=8, overflow="drop", until=2.5,
            backend=backend, state=start if started else None, **given,
        )  # fmt: skip
        trains = torch.where(found.trains.isfinite(), found.trains, 0.0)
        return torch.cat([trains, *(x.unsqueeze(-1) for x in found.state[:3])], -1)

    values |= state
    assert (out(values)[..., :-3] > 0).sum() > SAMPLES * OUTPUTS
    forward, backward = (jac(out)(values) for jac in (jacfwd, jacrev))
    for name in values:
        assert backward[name].any() == (started or name not in state), name
        torch.testing.assert_close(forward[name], backward[name], rtol=1e-10, atol=1e-12)


def linear_arguments(several):
    """Of neurons with two receptors, one of which has a rise time, adaptation and a bias."""
    weight = 2.0 + draw(OUTPUTS, INPUTS, seed=1)
    weight[:, 1] = -0.5
    values = {"times": 1.5 * draw(SAMPLES, INPUTS), "weight": weight, "delay": 0.1 + draw(OUTPUTS, INPUTS, seed=2)}
    if several:
        values["times"] = torch.stack([values["times"], values["times"] + 0.3], -1)
        values |= {"reset": -0.2 * draw(OUTPUTS, seed=3), "jump": 0.1 + 0.2 * draw(OUTPUTS, seed=4)}
        values |= {
            "other": 0.1 + draw(1, seed=5),
            "part": 1.0 + draw(OUTPUTS, seed=6),
            "refractory": torch.full((OUTPUTS,), 0.05, dtype=torch.float64),
            "current": draw(SAMPLES, OUTPUTS, 5),
        }
        values |= {"voltage": 0.3 * draw(SAMPLES, OUTPUTS, seed=7), "left": 0.2 * draw(SAMPLES, OUTPUTS, seed=8)}
        values["left"][0] = 0
    values |= {
        "mem": 1.5 + draw(OUTPUTS, seed=9),
        "first": 0.8 + draw(1, seed=10),
        "second": 0.8 + draw(OUTPUTS, seed=11),
    }
    return values | {
        "rise": 0.3 + draw(OUTPUTS, seed=12),
        "bias": 0.3 * draw(OUTPUTS, seed=13),
        "threshold": 1 + draw(1),
    }


def linear_spikes(values, several, backend, receptor="sign"):
    given = dict(values)
    taus = {"tau_syn": (given.pop("first"), given.pop("second")), "tau_rise": (given.pop("rise"), 0.0)}
    taus |= {name: given.pop(name) for name in ("bias", "threshold")}
    if not several:
        neuron = LIF(given.pop("mem"), **taus)
        return first_spike_time(neuron=neuron, receptor=[0, 1, 0, 1, 1], backend=backend, **given)
    neuron = AdaptiveLIF(
        given.pop("mem"), **taus, reset=given.pop("reset"), refractory=given.pop("refractory"),
        adaptation=[(2.0, given.pop("jump"))], threshold_adaptation=[(given.pop("part"), given.pop("other"))],
    )  # fmt: skip
    state = TrainState(*(given.pop(name) for name in ("voltage", "current", "left")), 0.0)
    found = spike_window(
        neuron=neuron, receptor=receptor, max_spikes=8, overflow="drop", until=2.5, state=state, backend=backend,
        **given,
    )  # fmt: skip
    trains = torch.where(found.trains.isfinite(), found.trains, 0.0)
    return torch.cat([trains, found.state.current, *(found.state[k].unsqueeze(-1) for k in (0, 2))], -1)


@pytest.mark.parametrize("several", [False, True], ids=["first", "window"])
def test_jacobians_of_linear_neurons(several, backend):
    """First spikes, trains, states at the end with all components, by everything; also along one direction."""
    values = linear_arguments(several)
    out = linear_spikes(values, several, backend)
    assert (out.isfinite() & (out != 0)).sum() > SAMPLES * OUTPUTS / 2
    forward, backward = (jac(lambda v: linear_spikes(v, several, backend))(values) for jac in (jacfwd, jacrev))
    for name in values:
        assert backward[name].any(), name
        torch.testing.assert_close(forward[name], backward[name], rtol=1e-9, atol=1e-11)
    tangents = tangents_of(values)
    found, moved = push(lambda v: linear_spikes(v, several, backend), values, tangents)
    torch.testing.assert_close(found, out, rtol=1e-13, atol=1e-14)
    expected = sum((backward[name] * tangents[name]).flatten(out.ndim).sum(-1) for name in values)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-10)


def test_trains_with_numbered_receptors(backend):
    """All times of an input reach the receptor of that input."""
    values = linear_arguments(True)
    tangents = tangents_of(values)
    tangents["left"] = torch.where(values["left"] > 0, tangents["left"], 0.0)  # which cannot be less

    def run(values):
        return linear_spikes(values, True, backend, [0, 1, 0, 1, 1])

    moved = push(run, values, tangents)[1]
    up, down = (run({name: x + h * tangents[name] for name, x in values.items()}) for h in (1e-6, -1e-6))
    torch.testing.assert_close(moved, (up - down) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("neuron", [LIF(2.0), LIF(2.0, bias=0.9)], ids=["lif", "bias"])
def test_recurrent_layers_go_window_after_window(neuron):
    """Their kernels for all windows have no forward mode."""
    layer = SpikingRecurrent(
        3, 4, 5, 2.0, neuron, dtype=torch.float64, weight_mean=2.0, weight_std=0.1, overflow="drop"
    )

    def total(times):
        trains = layer(times)
        return torch.where(trains.isfinite(), trains, 0.0).square().sum()

    times, along = draw(2, 3), draw(2, 3)
    _, moved = jvp(total, (times,), (along,))
    assert layer(times).isfinite().any()
    torch.testing.assert_close(moved, (torch.func.grad(total)(times) * along).sum())


@pytest.mark.parametrize("own", [False, True], ids=["layer", "neurons"])
def test_time_constants_shared_by_tensor(own, backend):
    times, weight = arguments(1.5)["times"], arguments(1.5)["weight"]
    mem = torch.full((OUTPUTS,) if own else (), 1.5, dtype=torch.float64)

    def out(mem, syn):
        return first_spike_time(times, weight, LIF(mem, syn), backend=backend)

    forward, backward = (jac(out, argnums=(0, 1))(mem, torch.ones_like(mem)) for jac in (jacfwd, jacrev))
    for a, b in zip(forward, backward, strict=True):
        assert a.any()
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # of torch's, for any constant
def test_linearize(backend):
    values = arguments(2.0)
    names, primals = list(values), tuple(values.values())

    def out(*xs):
        return spikes(dict(zip(names, xs, strict=True)), 2.0, backend)

    found, push_forward = linearize(out, *primals)
    assert torch.equal(found, out(*primals))
    for seed in (20, 40):
        tangents = tuple(tangents_of(values, seed).values())
        torch.testing.assert_close(push_forward(*tangents), jvp(out, primals, tangents)[1], rtol=1e-13, atol=1e-15)


def test_gradcheck_in_forward_mode(ratio, backend):
    values = {name: x[:-1] if len(x) == OUTPUTS else x for name, x in arguments(ratio).items()}
    values["times"] = values["times"][1:]
    names, inputs = list(values), [x.clone().requires_grad_() for x in values.values()]

    def out(*xs):
        return spikes(dict(zip(names, xs, strict=True)), ratio, backend)

    assert torch.autograd.gradcheck(out, inputs, atol=1e-8, rtol=1e-5, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("mapped", ["values", "tangents", "both"])
def test_vmap_of_jvp_equals_a_loop(mapped, backend):
    values = [arguments(1.37) for _ in range(3)]
    for k, each in enumerate(values):
        each["weight"] = each["weight"] * (1 + 0.1 * k)
        each["tau_mem"] = each["tau_mem"] + 0.2 * k
        each["times"] = each["times"] + 0.1 * k
    tangents = [tangents_of(values[0], 10 * (k + 1)) for k in range(3)]
    if mapped == "tangents":
        values = [values[0]] * 3
    if mapped == "values":
        tangents = [tangents[0]] * 3

    def moved(values, tangents):
        return push(lambda v: spikes(v, 1.37, backend), values, tangents)[1]

    stacked = [{name: torch.stack([x[name] for x in many]) for name in values[0]} for many in (values, tangents)]
    dims = (None if mapped == "tangents" else 0, None if mapped == "values" else 0)
    given = (values[0] if mapped == "tangents" else stacked[0], tangents[0] if mapped == "values" else stacked[1])
    found = vmap(moved, in_dims=dims)(*given)
    for k in range(3):
        torch.testing.assert_close(found[k], moved(values[k], tangents[k]), rtol=1e-12, atol=1e-13)
    # the other way round: tangents through a mapped forward pass
    through = push(vmap(lambda v: spikes(v, 1.37, backend)), *stacked)[1]
    torch.testing.assert_close(through, vmap(moved)(*stacked), rtol=1e-12, atol=1e-13)


def test_observed(ratio, backend):
    """The tangent is taken at the observed times, and they themselves move nothing."""
    values = arguments(ratio)
    observed = spikes(values, ratio, backend) + 0.05
    observed[:, -1] = 2.0  # the ideal neuron would be silent
    observed[0, 0] = INF

    def out(v):
        return spikes(v, ratio, backend, observed=observed)

    tangents = tangents_of(values)
    found, moved = push(out, values, tangents)
    assert torch.equal(found, observed)
    torch.testing.assert_close(moved, pulled(out, values, tangents), rtol=1e-12, atol=1e-13)
    assert moved.any()
    assert moved[0, 0] == 0
    _, moved = jvp(
        lambda seen: spikes(values, ratio, backend, observed=seen), (observed,), (torch.ones_like(observed),)
    )
    assert not moved.any()


def test_a_bound_on_weight_gradients_leaves_tangents_alone(backend):
    values = arguments(2.0)
    tangents = tangents_of(values)
    free, bounded = (
        push(lambda v, x=x: spikes(v, 2.0, backend, max_weight_grad=x), values, tangents)[1] for x in (None, 1e-9)
    )
    assert torch.equal(free, bounded)


def test_inputs_that_never_arrive_move_nothing(backend):
    values = arguments(2.0)
    tangents = tangents_of(values)
    _, expected = push(lambda v: spikes(v, 2.0, backend), values, tangents)
    tangents["times"][values["times"].isinf()] = math.nan
    assert torch.equal(push(lambda v: spikes(v, 2.0, backend), values, tangents)[1], expected)


def test_in_parts(backend, monkeypatch):
    """Large batches take the Jacobian in parts; leading dimensions are samples."""
    values = arguments(1.37)
    values["times"] = 1.5 * draw(2, 5, INPUTS, seed=7)
    tangents = tangents_of(values)
    whole = push(lambda v: spikes(v, 1.37, backend), values, tangents)[1]
    assert whole.shape == (2, 5, OUTPUTS)
    monkeypatch.setattr(transforms, "_AT_ONCE", 3 * OUTPUTS * INPUTS)
    parts = push(lambda v: spikes(v, 1.37, backend), values, tangents)[1]
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=1e-15)


def test_float32(ratio, backend):
    values = arguments(ratio, own=False)
    single = {name: x.float() for name, x in values.items()}
    _, wide = push(lambda v: spikes(v, ratio, backend), values, tangents_of(values))
    tangents = {name: x.float() for name, x in tangents_of(values).items()}
    _, narrow = push(lambda v: spikes(v, ratio, backend), single, tangents)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sizes", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty(sizes, backend):
    samples, inputs, outputs = sizes
    times, weight = torch.rand(samples, inputs), torch.rand(outputs, inputs)
    out, moved = jvp(lambda t, w: first_spike_time(t, w, LIF(), backend=backend), (times, weight), (times, weight))
    assert out.shape == moved.shape == (samples, outputs)
    assert not moved.any()


def test_tangents_are_differentiable_by_the_tangents(backend):
    """A tangent is linear in the tangents of the inputs: that derivative is a first one."""
    values = arguments(2.0)
    times, weight = values["times"], values["weight"]

    def moved(direction):
        return jvp(lambda w: first_spike_time(times, w, LIF(2.0), backend=backend), (weight,), (direction,))[1].sum()

    found = grad(moved)(torch.zeros_like(weight))
    expected = grad(lambda w: spikes({"times": times, "weight": w}, 2.0, backend)[:, :-1].sum())(weight)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


SECOND = {
    "hessian": lambda loss, w: hessian(loss)(w),
    "reverse over forward": lambda loss, w: jacrev(jacfwd(loss))(w),
    "forward over forward": lambda loss, w: jacfwd(jacfwd(loss))(w),
    "reverse over reverse": lambda loss, w: jacrev(jacrev(loss))(w),
    "jvp of grad": lambda loss, w: jvp(grad(loss), (w,), (w,)),
}


@pytest.mark.parametrize("kind", SECOND)
def test_second_derivatives_say_that_there_are_none(kind, backend):
    times, weight = arguments(1.0)["times"], arguments(1.0)["weight"][:-1]

    def loss(weight):
        return first_spike_time(times, weight, LIF(), backend=backend).square().sum()

    with pytest.raises(NotImplementedError, match="spike times have first derivatives only, no Hessian"):
        SECOND[kind](loss, weight)
