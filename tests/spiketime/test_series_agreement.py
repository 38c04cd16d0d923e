"""Neurons from equations: kernels and the reference, which share no adjoint, agree in random problems of any kind."""

import math

import pytest
import torch
from torch.func import grad, jvp, vmap

from agreement import DOUBLE, Drawn, learnt, results, same
from firstspike import Neuron, spike_trains
from firstspike.spiketime import TrainState, spike_window

INF = math.inf


def neuron_of(kind, some, **shared):
    """A neuron of that kind; ``some`` draws a parameter."""
    if kind == "qif":
        return Neuron(
            "dv/dt = (v*(v - 1) + i) / tau_m; di/dt = -i / tau_s", threshold="v > v_th", reset="v = v_r",
            receptors=["i"], tau_m=some(0.7, 1.3), tau_s=some(0.4, 1.0), v_th=some(3.0, 5.0), v_r=some(-2.0, 0.0),
            **shared,
        )  # fmt: skip
    if kind == "quotient":
        return Neuron(
            "dp/dt = (i*q - p) / tau_m; dq/dt = -p / tau_m; di/dt = -i / tau_s", threshold="p > v_th * q",
            reset="p = v_r; q = 1", start={"q": 1.0}, receptors=["i"],
            tau_m=some(0.7, 1.3), tau_s=some(0.4, 1.0), v_th=some(3.0, 5.0), v_r=some(-2.0, 0.0), **shared,
        )  # fmt: skip
    if kind == "izhikevich":  # times in 10 ms
        return Neuron(
            "dv/dt = 10*(0.04*v**2 + 5*v + 140 - u + 20*i); du/dt = 10*a*(b*v - u); di/dt = -i / tau_s",
            threshold="v > 30", reset="v = c; u += d", receptors=["i"], start={"v": "c", "u": "b*c"},
            a=some(0.02, 0.1), b=some(0.2, 0.25), c=some(-65.0, -55.0), d=some(2.0, 8.0), tau_s=some(0.4, 1.0),
            **shared,
        )  # fmt: skip
    if kind == "adex":
        return Neuron(
            "upswing = slope * exp((v - v_t) / slope); dv/dt = (upswing - v - w + i) / tau_m\n"
            "dw/dt = (a*v - w) / tau_w; di/dt = -i / tau_s",
            threshold="v > 1.4", reset="v = v_r; w += b", receptors=["i"], slope=some(0.15, 0.3), v_t=some(0.8, 1.0),
            tau_m=some(0.7, 1.3), tau_w=some(1.0, 4.0), tau_s=some(0.4, 1.0), a=some(-0.3, 0.5), b=some(0.0, 0.5),
            v_r=some(-0.5, 0.3), **shared,
        )  # fmt: skip
    if kind == "conductances":
        return Neuron(
            "dv/dt = (e_l - v + ge*(e_e - v) + gi*(e_i - v)) / tau_m; dge/dt = -ge / tau_e; dgi/dt = -gi / tau_i",
            threshold="v > v_th", reset="v = v_r", receptors=["ge", "gi"], e_l=some(-0.2, 0.3), e_e=some(3.0, 5.0),
            e_i=some(-1.0, -0.5), tau_m=some(0.7, 1.3), tau_e=some(0.3, 0.8), tau_i=some(0.4, 1.0),
            v_th=some(0.6, 1.0), v_r=some(-0.5, 0.2), **shared,
        )  # fmt: skip
    if kind == "resonator":
        return Neuron(
            "dv/dt = (i - v - w) / tau_m; dw/dt = (a*v - w) / tau_w; di/dt = -i / tau_s",
            threshold="v > v_th", reset="v = v_r; w += b", receptors=["i"], tau_m=some(0.3, 0.6), tau_w=some(0.3, 1.0),
            tau_s=some(0.3, 0.8), a=some(2.0, 8.0), b=some(0.0, 0.5), v_th=some(0.3, 0.6), v_r=some(-0.5, 0.1),
            **shared,
        )  # fmt: skip
    if kind == "delta":
        return Neuron(
            "dv/dt = (drive - v) / tau_m; dh/dt = -h / tau_h", threshold="v > v_th + h", reset="v = v_r; h += jump",
            receptors=["v", "h"], drive=some(0.0, 1.2), tau_m=some(0.7, 1.3), tau_h=some(0.5, 2.0),
            v_th=some(0.6, 1.0), v_r=some(-0.5, 0.3), jump=some(0.0, 0.4), **shared,
        )  # fmt: skip
    assert kind == "functions"
    return Neuron(
        "dv/dt = (i / (1 + 0.2*i*i) - tanh(v) + 0.3*sin(u)) / tau_m; di/dt = -i / tau_s\n"
        "du/dt = (cos(v) - u + log(2 + v*v) - (1 + u*u)**power) / tau_u",
        threshold="v + 0.1*sqrt(1 + u*u) > v_th", reset="v = v_r - 0.1*tanh(i); u = 0.5*u", receptors=["i"],
        tau_m=some(0.5, 1.0), tau_s=some(0.4, 1.0), tau_u=some(0.5, 2.0), power=some(0.3, 1.2), v_th=some(0.6, 0.9),
        v_r=some(-0.5, 0.1), **shared,
    )  # fmt: skip


STRENGTH = {"qif": 4.0, "quotient": 4.0, "conductances": 1.0, "resonator": 3.0, "adex": 3.0, "functions": 4.0}


def problem_of(kind, seed):
    """Leaves, the neuron, its starting time, and a function of leaves, backend, and observed spikes."""
    draw = Drawn(seed)
    samples, inputs, copies, outputs = draw.whole(1, 3), draw.whole(1, 5), draw.whole(1, 2), draw.whole(1, 4)
    shared = {}
    if draw.chance(0.6) or kind == "delta":  # whose threshold may fall below the reset
        shared["refractory"] = draw.parameter(outputs, 0.05, 0.4)
    grid = draw.chance(0.3)
    if grid:  # so that a release, too, is at the time of an arrival
        shared["refractory"] = torch.full((), 0.5, **DOUBLE).requires_grad_()
    if draw.chance(0.4) and "refractory" in shared:
        held = {"izhikevich": "v u i", "qif": "v i", "quotient": "p q", "adex": "v w"}
        shared["held"] = held.get(kind, "").split()  # of the others nothing runs away
    neuron = neuron_of(kind, lambda low, high: draw.parameter(outputs, low, high), **shared)
    times = draw.uniform(samples, inputs, copies, high=3.0)
    if draw.chance(0.3):
        times[draw.uniform(*times.shape) < 0.3] = INF
    times = (2 * times).round() / 2 if grid else times
    strength, receptors = STRENGTH.get(kind, 1.0), len(neuron.receptors)
    weight = strength * (0.5 * draw.normal(outputs, inputs) + 0.6)
    leaves = {"times": times, "weight": weight.abs() if kind == "conductances" else weight}
    options = {
        "max_spikes": 2 if draw.chance(0.2) else 12,
        "overflow": "drop",
        "until": float(draw.uniform(low=2, high=4)),
    }
    by_sign = receptors == 2 and draw.chance(0.4)
    options["receptor"] = "sign" if by_sign else [draw.whole(0, receptors - 1) for _ in range(inputs)]
    if draw.chance(0.3) and not grid:
        leaves["delay"] = draw.uniform(outputs, inputs, high=0.6)
    if draw.chance(0.3):
        options["max_weight_grad"] = float(draw.uniform(low=0.05, high=1.5))
    begin = 0.0
    if draw.chance(0.3):
        begin = 0.2
        rest = spike_window(times[:, :0], weight[:, :0], neuron, max_spikes=1, until=0.01, receptor=[]).state
        leaves |= {"voltage": rest.voltage.detach(), "current": rest.current + 0.1 * draw.normal(*rest.current.shape)}
        leaves["left"] = draw.uniform(samples, outputs, low=-0.5, high=0.5).clamp(min=0)
        leaves = {name: x.detach() for name, x in leaves.items()}

    def run(leaves, backend, observed):
        state = TrainState(leaves["voltage"], leaves["current"], leaves["left"], begin) if "left" in leaves else None
        found = spike_window(
            leaves["times"], leaves["weight"], neuron, state=state, delay=leaves.get("delay"), observed=observed,
            backend=backend, **options,
        )  # fmt: skip
        return found.trains, found.overflows.double(), *found.state[:3]

    return leaves, neuron, begin, run


KINDS = ["qif", "quotient", "izhikevich", "adex", "conductances", "resonator", "delta", "functions"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.exhaustive) for k in range(1, 43))])
@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree(kind, seed):
    leaves, neuron, begin, run = problem_of(kind, 1000 * KINDS.index(kind) + seed)
    own = learnt(neuron)
    expected = results(leaves, own, run, "reference")
    same(results(leaves, own, run, "cpu"), expected, times=1e-11)
    if seed % 3 == 0:
        trains = expected[0][0]
        seen = trains - 0.03 * Drawn(seed).uniform(*trains.shape)
        seen = torch.where(seen <= begin, INF, seen).sort(-1).values
        found, expected = (observing(leaves, own, run, backend, seen) for backend in ("cpu", "reference"))
        if expected is None:
            assert found is None
        else:
            same(found, expected, times=1e-11)


def observing(*given):
    """Results, or None for neurons whose membranes run away where a spike of theirs is not among those observed."""
    try:
        return results(*given)
    except ValueError as error:
        assert "has no spike times" in str(error)  # noqa: PT017
        return None


def qif(outputs, draw, refractory=0.0):
    """Each neuron with constants of its own."""

    def some(low, high):
        return draw.uniform(outputs, low=low, high=high).requires_grad_()

    return neuron_of("qif", some, refractory=refractory)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 17), (2, 0, 3), (0, 3, 3), (2, 3, 0)], ids=str)
def test_shapes(sizes):
    samples, inputs, outputs = sizes
    draw = Drawn(sum(sizes))
    neuron = qif(outputs, draw, 0.1)
    leaves = {"times": draw.uniform(samples, inputs, 1, high=1.0), "weight": draw.normal(outputs, inputs) + 6.0}

    def run(leaves, backend, observed):
        found = spike_window(leaves["times"], leaves["weight"], neuron, max_spikes=3, until=2.0, backend=backend)
        assert found.trains.shape == (samples, outputs, 3)
        assert found.state.current.shape == (samples, outputs, 1)
        return found.trains, *found.state[:3]

    found, expected = (results(leaves, learnt(neuron), run, backend) for backend in ("cpu", "reference"))
    assert 0 in sizes or found[0][0].isfinite().any()
    same(found, expected, times=1e-11)


def test_float32_is_computed_in_float64(backend):
    draw = Drawn(2)
    times, weight = (x.float() for x in (draw.uniform(2, 3, 1), draw.normal(4, 3) + 6.0))
    neuron = Neuron(
        "dv/dt = v*v - v + i; di/dt = -i / tau_s", threshold="v > 4", reset="v = -1", receptors=["i"], tau_s=0.5
    )
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [times.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()]
        out = spike_trains(*leaves, neuron, max_spikes=4, until=1.5, backend=backend)
        assert out.dtype == dtype
        by = torch.autograd.grad(out[out.isfinite()].sum(), leaves)
        assert by[0].dtype == dtype
        found.append([out.detach().float(), *(x.float() for x in by)])
    assert found[0][0].isfinite().any()
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-6)


CLOCK = "dv/dt = 1 / tau; di/dt = -i / 2"  # v grows with the time
ONE = {"receptors": ["i"], "tau": 1.0}


@pytest.mark.parametrize(
    ("threshold", "level"),
    [
        ("exp(v) > 3", math.log(3)),
        ("sin(v) > 0.5", math.pi / 6),
        ("v**5 > 3", 3**0.2),
        ("v**16 > 3", 3 ** (1 / 16)),
        ("tanh(v**6) > 0.5", math.atanh(0.5) ** (1 / 6)),
    ],
)
def test_a_threshold_whose_series_is_longer_than_those_of_the_states(threshold, level, backend):
    """Or that begins with terms that are 0."""
    neuron = Neuron(CLOCK, threshold=threshold, reset="v = 0", **ONE | {"tau": 2.0})
    none = torch.zeros(1, 0, 1, **DOUBLE), torch.zeros(1, 0, **DOUBLE)
    found = spike_trains(*none, neuron, max_spikes=3, until=7 * level, backend=backend)
    torch.testing.assert_close(found[0, 0], 2 * level * torch.arange(1, 4, **DOUBLE), rtol=1e-13, atol=0)


def test_a_state_whose_series_begins_late(backend):
    """The eighth power of the time."""
    neuron = Neuron("du/dt = 1; dv/dt = u**8; di/dt = -i", threshold="v > 1", reset="u = 0; v = 0", receptors=["i"])
    none = torch.zeros(1, 0, 1, **DOUBLE), torch.zeros(1, 0, **DOUBLE)
    found = spike_trains(*none, neuron, max_spikes=3, until=4.0, backend=backend)
    torch.testing.assert_close(found[0, 0], 9 ** (1 / 9) * torch.arange(1, 4, **DOUBLE), rtol=1e-13, atol=0)


def test_at_one_time_the_release_comes_first_then_its_spike_then_arrivals(backend):
    """At 3 the neuron is released, above its threshold, and spikes; the reset does not take what arrives then."""
    neuron = Neuron(CLOCK, threshold="v > 1", reset="v = 0; i = 0", held=[], refractory=2.0, **ONE)
    weight = torch.tensor([[5.0]], **DOUBLE, requires_grad=True)
    found = spike_window(torch.full((1, 1, 1), 3.0, **DOUBLE), weight, neuron, max_spikes=2, until=4.0, backend=backend)
    assert found.trains.tolist() == [[[1.0, 3.0]]]
    decay = math.exp(-0.5)
    assert found.state.current.item() == pytest.approx(5 * decay, rel=1e-13)
    (by,) = torch.autograd.grad(found.state.current.sum(), weight)
    assert by.item() == pytest.approx(decay, rel=1e-13)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_arrival_that_lifts_over_the_threshold_comes_before_the_spike(order, backend):
    """With all that arrives at that time: the reset takes it."""
    neuron = Neuron(
        "dv/dt = -v; di/dt = -i / 2", threshold="v > 1", reset="v = 0; i = 0.5*i", receptors=["v", "i"], refractory=0.1
    )
    times = torch.ones(1, 2, 1, **DOUBLE, requires_grad=True)
    weight = torch.full((1, 2), 2.0, **DOUBLE, requires_grad=True)
    found = spike_window(
        times, weight, neuron, max_spikes=2, until=2.0, receptor=list(order), overflow="error", backend=backend
    )
    assert found.trains.tolist() == [[[1.0, INF]]]
    decay = math.exp(-0.5)
    assert found.state.current.item() == pytest.approx(decay, rel=1e-13)
    by = torch.autograd.grad(found.trains[0, 0, 0] + found.state.current.sum(), [times, weight])
    direct, other = order.index(0), order.index(1)
    assert by[1][0, direct].item() == 0
    assert by[1][0, other].item() == pytest.approx(0.5 * decay, rel=1e-13)
    # the spike moves with the arrival that lifts; what had arrived before it decays until then
    assert by[0][0, direct, 0].item() + by[0][0, other, 0].item() == pytest.approx(1 + 0.5 * decay, rel=1e-13)


@pytest.mark.parametrize(
    ("flow", "threshold", "reset", "message"),
    [
        ("v*v + 1 + i", "v > 1e30", "v = 0", "not finite|too small"),
        ("log(v - 1) + i", "v > 5", "v = 0", "not finite"),
        ("1 + i", "v > 1", "v = 1.5", "right after its reset"),
    ],
)
def test_errors(flow, threshold, reset, message, backend):
    neuron = Neuron(f"dv/dt = {flow}; di/dt = -i", threshold=threshold, reset=reset, receptors=["i"])
    times, weight = torch.zeros(2, 1, 1, **DOUBLE), torch.ones(3, 1, **DOUBLE)
    with pytest.raises(ValueError, match=f"neuron 0 in sample 0 has no spike times: .*({message})"):
        spike_trains(times, weight, neuron, max_spikes=3, until=4.0, backend=backend)


def test_a_quotient_0_by_0_on_the_way_is_an_error_not_a_nan(backend):
    flow = "dv/dt = v / (1 - exp(-v)) + i; di/dt = -i"
    neuron = Neuron(flow, threshold="v > 1", reset="v = -1", receptors=["i"], start={"v": -1.0})
    times, weight = torch.zeros(1, 1, 1, **DOUBLE), torch.full((1, 1), 2.0, **DOUBLE, requires_grad=True)
    with pytest.raises(ValueError, match=r"no gradient: .* a quotient 0 / 0|no spike times: .* a quotient"):
        spike_trains(times, weight, neuron, max_spikes=1, overflow="drop", until=1.0, backend=backend).sum().backward()


def test_windows_that_follow_one_another_are_one_long_call(backend):
    draw = Drawn(7)
    refractory = torch.full((), 0.2, **DOUBLE).requires_grad_()
    neuron = qif(3, draw, refractory)
    leaves = {"times": draw.uniform(2, 3, 1, high=1.0), "weight": draw.normal(3, 3) + 6.0}

    def of_windows(ends):
        def run(leaves, backend, observed):
            state, parts = None, []
            for until in ends:
                found = spike_window(
                    leaves["times"], leaves["weight"], neuron, max_spikes=9, state=state, until=until, backend=backend
                )
                state = found.state
                parts.append(found.trains)
            return torch.cat(parts, -1).sort(-1).values[..., :9], *state[:3]

        return run

    spikes = results(leaves, {}, of_windows([2.0]), backend)[0][0]
    first = spikes[spikes.isfinite()].min().item()
    whole, pieces = (results(leaves, learnt(neuron), of_windows(x), backend) for x in ([2.0], [0.3, first + 0.1, 2.0]))
    assert whole[0][0].isfinite().sum() > 5
    same(pieces, whole, times=1e-12, grads=1e-9)


def call_of(options, names):
    """Trains and the state at the end as a function of tensors with these names."""

    def run(*given):
        given = dict(zip(names, given, strict=True))
        state = TrainState(*(given.pop(name) for name in ("voltage", "current", "left")), 0.1)
        times, weight, delay = (given.pop(name) for name in ("times", "weight", "delay"))
        neuron = Neuron(
            "dv/dt = (v*(v - 1) + i) / tau_m; di/dt = -i / tau_s", threshold="v > v_th", reset="v = v_r",
            receptors=["i"], tau_s=0.5, v_r=-1.0, **given,
        )  # fmt: skip
        found = spike_window(times, weight, neuron, delay=delay, state=state, **options)
        return found.trains, *found.state[:3]

    return run


def arguments(draw, copies):
    given = {"times": draw.uniform(2, 3, copies, low=0.2, high=copies), "weight": draw.uniform(2, 3, low=2.0, high=6.0)}
    given |= {"delay": draw.uniform(2, 3, high=0.3), "tau_m": torch.full((), 1.1, **DOUBLE)}
    given |= {"v_th": torch.tensor([3.0, 4.0], **DOUBLE), "refractory": torch.full((), 0.2, **DOUBLE)}
    left = torch.tensor([[0.0, 0.3], [0.0, 0.0]], **DOUBLE)
    return given | {"voltage": 0.3 * draw.uniform(2, 2), "current": draw.uniform(2, 2, 1), "left": left}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch itself, when forward mode is first used
def test_derivatives_are_those_of_finite_differences():
    """By all that they depend on, and in forward mode as well."""
    draw = Drawn(1)
    given = arguments(draw, 3)
    options = {"max_spikes": 6, "until": 4.0, "overflow": "error", "backend": "cpu"}
    call = call_of(options, list(given))
    values = tuple(given.values())
    tangents = tuple(torch.where(x > 0, draw.normal(*x.shape), 0.0) for x in values)  # what is left is at least 0

    def finite(*given):
        return [torch.where(x.isfinite(), x, 0.0) for x in call(*given)]

    assert finite(*values)[0].count_nonzero() >= 6
    pushed = jvp(finite, values, tangents)[1]
    up, down = (finite(*(x + h * y for x, y in zip(values, tangents, strict=True))) for h in (1e-6, -1e-6))
    for x, high, low in zip(pushed, up, down, strict=True):
        torch.testing.assert_close(x, (high - low) / 2e-6, rtol=1e-6, atol=1e-7)
    leaves = [x.clone().requires_grad_() for x in values[:-1]]
    torch.autograd.gradcheck(lambda *x: finite(*x, values[-1]), leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_networks_with_values_of_their_own_through_vmap(backend):
    draw = Drawn(9)
    given = arguments(draw, 1)
    names = list(given)
    call = call_of({"max_spikes": 2, "until": 1.5, "overflow": "drop", "backend": backend}, names)
    own = {name: x for name, x in given.items() if name != "times"}
    own = {name: torch.stack([x, x * (1 + 0.1 * draw.uniform(*x.shape))]) for name, x in own.items()}

    def loss(times, *given):
        return sum(torch.where(x.isfinite(), x, 0.0).square().sum() for x in call(times, *given))

    derive = grad(loss, argnums=tuple(range(len(names))))
    together = vmap(derive, in_dims=(None, *(0,) * len(own)))(given["times"], *own.values())
    for k in range(2):
        alone = derive(given["times"], *(x[k] for x in own.values()))
        for name, x, y in zip(names, together, alone, strict=True):
            assert name in ("left", "delay") or y.any()
            torch.testing.assert_close(x[k], y, rtol=1e-11, atol=1e-12)
