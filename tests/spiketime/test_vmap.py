"""torch.func over the operator: the same numbers, bit for bit, as a loop."""

import math

import pytest
import torch
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap

from firstspike import LIF, BiasSpikes, Delay, DelayRule, LIFLinear, Multiplex, Network, first_spike_time
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

N, SAMPLES, INPUTS, OUTPUTS = 3, 4, 5, 6
NAMES = ("times", "weight", "threshold", "delay", "observed")
MAPPED = [("observed",), ("times", "observed"), NAMES]


@pytest.fixture(params=[1.0, 1.37])
def ratio(request):
    return request.param


def arguments(mapped=(), seed=0, sizes=(N,)):
    """A full set of arguments; those in ``mapped`` have leading dimensions to map over."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name, *shape):
        lead = sizes if name in mapped else ()
        return torch.rand(*lead, *shape, generator=generator, dtype=torch.float64)

    values = {
        "times": draw("times", SAMPLES, INPUTS) * 2,
        "weight": draw("weight", OUTPUTS, INPUTS) * 5 - 0.5,
        "threshold": draw("threshold", OUTPUTS) + 0.5,
        "delay": draw("delay", OUTPUTS, INPUTS),
        "observed": draw("observed", SAMPLES, OUTPUTS) * 3,
    }
    values["times"][..., 0, 0] = math.inf
    return values


def spikes(values, ratio, backend, **options):
    values = dict(values)
    neuron = LIF(ratio, 1.0, values.pop("threshold", 1.0))
    return first_spike_time(neuron=neuron, backend=backend, **values, **options)


def loss(values, ratio, backend, **options):
    out = spikes(values, ratio, backend, **options)
    return torch.where(out.isfinite(), out, torch.zeros_like(out)).square().sum()


def dims(values, mapped):
    return ({name: 0 if name in mapped else None for name in values},)


def at(values, mapped, *index):
    return {name: x[index] if name in mapped else x for name, x in values.items()}


def unobserved(values):
    return {name: x for name, x in values.items() if name != "observed"}


@pytest.mark.parametrize("mapped", MAPPED, ids="-".join)
def test_forward_equals_a_loop(mapped, ratio, backend):
    values = arguments(mapped)
    found = vmap(lambda v: spikes(v, ratio, backend), in_dims=dims(values, mapped))(values)
    loop = torch.stack([spikes(at(values, mapped, k), ratio, backend) for k in range(N)])
    assert found.isfinite().any()
    assert torch.equal(found, loop)


@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("mapped", MAPPED, ids="-".join)
def test_gradients_equal_a_loop(mapped, limit, ratio, backend):
    values = arguments(mapped)
    observed = {"observed": values.pop("observed")}

    def derive(v, o):
        return grad(lambda x: loss({**x, **o}, ratio, backend, max_weight_grad=limit))(v)

    found = vmap(derive, in_dims=(*dims(values, mapped), *dims(observed, mapped)))(values, observed)
    for k in range(N):
        alone = derive(at(values, mapped, k), at(observed, mapped, k))
        for name in values:
            assert torch.equal(found[name][k], alone[name]), name


@pytest.mark.parametrize("mapped", [("weight",), ("times",), ("times", "weight"), ("threshold", "delay")], ids="-".join)
def test_gradient_through_vmap(mapped, ratio, backend):
    """Backward through a mapped forward, by autograd and by torch.func."""
    values = unobserved(arguments(mapped))

    def total(v):
        out = vmap(lambda v: spikes(v, ratio, backend), in_dims=dims(v, mapped))(v)
        return torch.where(out.isfinite(), out, torch.zeros_like(out)).square().sum()

    leaves = {name: x.clone().requires_grad_() for name, x in values.items()}
    total(leaves).backward()
    functional = grad(total)(values)
    parts = [grad(lambda v: loss(v, ratio, backend))(at(values, mapped, k)) for k in range(N)]
    for name in values:
        looped = torch.stack([part[name] for part in parts])
        looped = looped if name in mapped else looped.sum(0)
        torch.testing.assert_close(leaves[name].grad, looped, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(functional[name], looped, rtol=1e-12, atol=1e-13)


def test_gradients_per_sample(ratio, backend):
    values = unobserved(arguments())
    times, weight = values.pop("times"), values.pop("weight")

    def derive(weight, times):
        return grad(lambda w: loss({"times": times, "weight": w, **values}, ratio, backend))(weight)

    found = vmap(derive, in_dims=(None, 0))(weight, times)
    assert found.shape == (SAMPLES, OUTPUTS, INPUTS)
    for b in range(SAMPLES):
        assert torch.equal(found[b], derive(weight, times[b]))
    together = derive(weight, times)
    torch.testing.assert_close(found.sum(0), together, rtol=1e-12, atol=1e-13)


def test_nested(ratio, backend):
    """Networks by inputs: a map in a map."""
    times = arguments(("times",), sizes=(2,))["times"]
    weight = arguments(("weight",), sizes=(N,))["weight"]

    def one(weight, times):
        return spikes({"times": times, "weight": weight}, ratio, backend)

    found = vmap(vmap(one, in_dims=(None, 0)), in_dims=(0, None))(weight, times)
    derived = vmap(
        vmap(
            grad(lambda w, t: loss({"times": t, "weight": w}, ratio, backend)),
            in_dims=(None, 0),
        ),
        in_dims=(0, None),
    )(weight, times)
    assert found.shape == (N, 2, SAMPLES, OUTPUTS)
    for n in range(N):
        for m in range(2):
            assert torch.equal(found[n, m], one(weight[n], times[m]))
            alone = grad(lambda w, m=m: loss({"times": times[m], "weight": w}, ratio, backend))(weight[n])
            assert torch.equal(derived[n, m], alone)


def test_other_dimensions(ratio, backend):
    values = arguments(("times", "weight"))

    def one(times, weight):
        return spikes({"times": times, "weight": weight}, ratio, backend)

    plain = vmap(one)(values["times"], values["weight"])
    moved = vmap(one, in_dims=(1, 2), out_dims=1)(values["times"].movedim(0, 1), values["weight"].movedim(0, 2))
    assert torch.equal(moved.movedim(1, 0), plain)
    chunked = vmap(one, chunk_size=2)(values["times"], values["weight"])
    assert torch.equal(chunked, plain)


LINEAR = ("times", "weight", "delay", "first", "second", "jump", "bias", "voltage", "current")


MAPPED = [pytest.param(x, marks=pytest.mark.exhaustive) for x in (("weight",), ("times", "voltage", "current"))]


@pytest.mark.slow  # it has kernels of its own to compile
@pytest.mark.parametrize("mapped", [*MAPPED, ("first", "jump", "bias"), LINEAR])
def test_linear_neurons_equal_a_loop(mapped, backend):
    """Windows and gradients; the reference multiplies matrices in another order."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "times": (SAMPLES, INPUTS, 2), "weight": (OUTPUTS, INPUTS), "delay": (OUTPUTS, INPUTS), "first": (OUTPUTS,),
        "second": (1,), "jump": (OUTPUTS,), "bias": (OUTPUTS,), "voltage": (SAMPLES, OUTPUTS),
        "current": (SAMPLES, OUTPUTS, 4),
    }  # fmt: skip
    values = {
        name: torch.rand(*(N,) * (name in mapped), *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    values["weight"] = 4 * values["weight"] - 0.8

    def window(v):
        neuron = AdaptiveLIF(
            1.5, (0.5 + v["first"], 0.5 + v["second"]), 1.0, -0.1, 0.1, bias=v["bias"],
            adaptation=[(2.0, v["jump"])], threshold_adaptation=[(1.5, 0.3)],
        )  # fmt: skip
        state = TrainState(0.9 * v["voltage"], v["current"], torch.zeros_like(v["voltage"]), 0.0)
        found = spike_window(
            v["times"], v["weight"], neuron, delay=v["delay"], receptor="sign", max_spikes=20, overflow="drop",
            state=state, until=2.0, backend=backend,
        )  # fmt: skip
        trains = torch.where(found.trains.isfinite(), found.trains, 0.0)
        return trains.square().sum() + found.state.current.square().sum(), found.trains

    derive = grad(window, has_aux=True)
    grads, trains = vmap(derive, in_dims=dims(values, mapped))(values)
    exact = {"rtol": 0, "atol": 0} if backend == "cpu" else {"rtol": 1e-11, "atol": 1e-12}
    for k in range(N):
        own, alone = derive(at(values, mapped, k))
        assert alone.isfinite().any()
        torch.testing.assert_close(trains[k], alone, **exact)
        for name, x in own.items():
            assert x.any()
            torch.testing.assert_close(grads[name][k], x, **exact, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("sizes", [(0, INPUTS, OUTPUTS), (SAMPLES, 0, OUTPUTS), (SAMPLES, INPUTS, 0)])
def test_empty(sizes, backend):
    samples, inputs, outputs = sizes
    times, weight = torch.rand(samples, inputs), torch.rand(N, outputs, inputs)
    found = vmap(lambda w: first_spike_time(times, w, LIF(), backend=backend))(weight)
    assert found.shape == (N, samples, outputs)
    by_times = vmap(lambda t: first_spike_time(t, weight[0], LIF(), backend=backend))(times.expand(N, -1, -1))
    assert by_times.shape == (N, samples, outputs)


def test_second_derivatives_say_that_there_are_none(backend):
    values = unobserved(arguments())
    weight = values.pop("weight")
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        grad(lambda w: grad(lambda x: loss({"weight": x, **values}, 1.0, backend))(w).square().sum())(weight)


@pytest.mark.usefixtures("checked_at_once")
def test_wrong_values_are_seen_inside_vmap(backend):
    values = unobserved(arguments(("weight",)))
    values["weight"][-1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="weight must be finite"):
        vmap(lambda v: spikes(v, 1.0, backend), in_dims=dims(values, ("weight",)))(values)


def test_ensemble_of_networks(ratio, backend):
    generator = torch.Generator().manual_seed(0)
    make = {"generator": generator, "dtype": torch.float64}

    def network():
        lif = LIF(ratio)
        return Network(
            Multiplex(2),
            BiasSpikes([0.3], dtype=torch.float64),
            LIFLinear(2 * INPUTS + 1, 7, lif, delay=DelayRule(), backend=backend, **make),
            Delay(7, **make),
            LIFLinear(7, 2, lif, weight_mean=2.0, weight_std=0.1, backend=backend, **make),
        )

    networks = [network() for _ in range(N)]
    times = arguments()["times"]
    parameters, buffers = stack_module_state(networks)
    base = networks[0]

    def objective(parameters, buffers, times):
        out = functional_call(base, (parameters, buffers), (times,))
        return torch.where(out.isfinite(), out, torch.zeros_like(out)).square().sum()

    gradients, losses = vmap(grad_and_value(objective), in_dims=(0, 0, None))(parameters, buffers, times)
    for k, net in enumerate(networks):
        own = objective(dict(net.named_parameters()), dict(net.named_buffers()), times)
        assert own.item() > 0
        assert losses[k].item() == pytest.approx(own.item(), rel=1e-13)
        own.backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=1e-11, atol=1e-12)
