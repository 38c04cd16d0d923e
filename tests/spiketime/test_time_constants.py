"""Time constants that are tensors: gradients by them, and neurons that have their own."""

import math

import mpmath as mp
import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from firstspike import LIF, LIFLinear, first_spike_time

pytestmark = pytest.mark.usefixtures("poisoned_memory", "on_device")

INF = math.inf
FINITE = [1.0, 1 + 1e-9, 2.0, 1.37, 0.5, 10.0]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def firing_case(samples=3, inputs=5, outputs=4):
    """All neurons fire well above a tangent; one input is inhibitory, one never arrives."""
    times = rand(samples, inputs) * 1.5
    weight = 2.5 + rand(outputs, inputs, seed=1)
    weight[:, 1] = -0.5
    times[0, -1] = INF
    return times, weight


def spread(ratio, shape):
    """Time constants around a ratio: one pair for all, or one for each neuron, some of them of exactly that ratio."""
    syn = torch.ones(shape, dtype=torch.float64)
    mem = ratio * syn
    if shape:
        syn = syn * torch.tensor([1.0, 1.2, 1.0, 0.8], dtype=torch.float64)
        mem = mem * torch.tensor([1.0, 1.2, 0.9, 1.0], dtype=torch.float64)
    return mem, syn


@pytest.fixture(params=FINITE, ids=lambda ratio: f"ratio={ratio:.10g}")
def finite(request):
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (4,)], ids=["layer", "neurons"])
@pytest.mark.parametrize("delayed", [False, True])
def test_gradcheck(delayed, shape, finite, backend):
    times, weight = firing_case()
    mem, syn = spread(finite, shape)
    threshold, delay = torch.linspace(0.8, 1.2, 4, dtype=torch.float64), 0.1 + rand(4, 5, seed=2)
    arrives = times.isfinite()
    finite_times = torch.where(arrives, times, 0.0)

    def spikes(finite_times, weight, threshold, mem, syn, delay):
        arrival = torch.where(arrives, finite_times, INF)
        lif = LIF(mem, syn, threshold)
        return first_spike_time(arrival, weight, lif, delay=delay if delayed else None, backend=backend)

    inputs = [x.clone().requires_grad_() for x in (finite_times, weight, threshold, mem, syn, delay)]
    assert spikes(*inputs).isfinite().all()
    assert torch.autograd.gradcheck(spikes, inputs, atol=1e-8, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("shape", [(), (4,)], ids=["layer", "neurons"])
def test_gradcheck_without_leak(shape, backend):
    times, weight = firing_case()
    _, syn = spread(1.0, shape)

    def spikes(weight, syn):
        return first_spike_time(times, weight, LIF(INF, syn), backend=backend)

    assert spikes(weight, syn).isfinite().all()
    assert torch.autograd.gradcheck(
        spikes, (weight.requires_grad_(), syn.requires_grad_()), atol=1e-8, rtol=1e-5, fast_mode=True
    )


def derivative(function, x):
    """A central difference; a smaller step would leave too few digits where the time constants are almost equal."""
    x, step = mp.mpf(x), mp.mpf(x) * mp.mpf(10) ** -12
    return (function(x + step) - function(x - step)) / (2 * step)


@pytest.mark.parametrize("tau_syn", [1.0, 5e-3])
@pytest.mark.parametrize("neurons", [1, 2])
def test_against_high_precision(neurons, tau_syn, finite, backend, exact):
    """The implicit function theorem with derivatives of the membrane by mpmath, for shared and single constants."""
    times, weights, tau_mem = [0.1, 0.2, 0.3, 2.0], [7.0, -1.0, 4.0, 50.0], finite * tau_syn
    times = [t * tau_syn for t in times]
    x, w = torch.tensor([times], dtype=torch.float64), torch.tensor([weights] * neurons, dtype=torch.float64)
    mem = torch.tensor([tau_mem, 3 * tau_mem][:neurons], dtype=torch.float64).requires_grad_()
    syn = torch.full_like(mem, tau_syn).requires_grad_()
    spike = first_spike_time(x, w, LIF(mem, syn), backend=backend)
    spike[0, 0].backward()
    with mp.workdps(exact.digits):
        t = exact.first_spike(tuple(times), tuple(weights), tau_mem, tau_syn, 1.0)
        rise = exact.slope(t, times, weights, tau_mem, tau_syn)
        by_mem = -derivative(lambda tau: exact.membrane(t, times, weights, tau, tau_syn), tau_mem) / rise
        by_syn = -derivative(lambda tau: exact.membrane(t, times, weights, tau_mem, tau), tau_syn) / rise
    assert spike[0, 0].item() == pytest.approx(float(t), rel=1e-14)
    assert mem.grad[0].item() == pytest.approx(float(by_mem), rel=1e-12)
    assert syn.grad[0].item() == pytest.approx(float(by_syn), rel=1e-12)
    assert not mem.grad[1:].any()
    assert not syn.grad[1:].any()


def compare(found, expected, rtol, atol):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: name + text)


def gradients(values, backend, grads, observed=None, limit=None):
    """Spike times, and gradients by everything that is there."""
    leaves = {name: x.clone().requires_grad_() for name, x in values.items()}
    lif = LIF(leaves["tau_mem"], leaves["tau_syn"], leaves["threshold"])
    out = first_spike_time(
        leaves["times"],
        leaves["weight"],
        lif,
        delay=leaves.get("delay"),
        observed=observed,
        max_weight_grad=limit,
        backend=backend,
    )
    out.backward(torch.where(out.isfinite(), grads, torch.full_like(grads, math.nan)))
    return {"spikes": out.detach(), **{name: x.grad for name, x in leaves.items()}}


def mixed_case(delayed, inputs=20, samples=6, outputs=40):
    """Neurons of all sorts: early, late, just reaching the threshold or not, silent; equal times among the inputs."""
    times = rand(samples, inputs, seed=3) * 3
    times[:, 4] = times[:, 5]
    times[1, ::3] = INF
    times[2] = INF
    mem, syn = 0.3 + 3 * rand(outputs, seed=4), 0.5 + rand(outputs, seed=5)
    mem[:4], syn[:4] = torch.tensor([1.0, 2.0, 0.5, 1 + 1e-9]), 1.0
    values = {
        "times": times,
        "weight": 0.3 + 0.6 * randn(outputs, inputs, seed=6),
        "threshold": 0.5 + rand(outputs, seed=7),
        "tau_mem": mem,
        "tau_syn": syn,
    }
    if delayed:
        values["delay"] = rand(outputs, inputs, seed=8)
    return values


@pytest.mark.parametrize(
    ("delayed", "observe", "limit"), [(False, False, None), (False, True, 0.5), (True, False, 0.5), (True, True, None)]
)
def test_neurons_of_their_own_are_those_neurons_alone(delayed, observe, limit, backend):
    values = mixed_case(delayed)
    outputs, samples = len(values["weight"]), len(values["times"])
    grads = randn(samples, outputs, seed=9)
    observed = rand(samples, outputs, seed=10) * 4 if observe else None
    found = gradients(values, backend, grads, observed, limit)
    silent = found["spikes"].isinf()
    assert observe or outputs < silent.sum() < samples * outputs / 2
    total = torch.zeros_like(values["times"])
    for j in range(outputs):
        one = {name: x if name == "times" else x[j : j + 1] for name, x in values.items()}
        one |= {name: one[name][0] for name in ("tau_mem", "tau_syn")}
        part = None if observed is None else observed[:, j : j + 1]
        alone = gradients(one, backend, grads[:, j : j + 1], part, limit)
        total += alone.pop("times")
        torch.testing.assert_close(found["spikes"][:, j : j + 1], alone.pop("spikes"), rtol=1e-11, atol=1e-12)
        for name, value in alone.items():
            of = found[name][j : j + 1].reshape(value.shape)
            torch.testing.assert_close(of, value, rtol=1e-7, atol=1e-9, msg=lambda text, at=(name, j): f"{at} {text}")
    torch.testing.assert_close(found["times"], total, rtol=1e-7, atol=1e-9)


@pytest.mark.host
@pytest.mark.parametrize(
    ("ratio", "delayed", "observe"),
    [
        (ratio, delayed, bool((k + delayed) % 2))
        for k, ratio in enumerate([None, 0.3, 1.0, 1 + 1e-9, 2.0, 30.0])
        for delayed in (False, True)
    ],
)
def test_backends_agree(ratio, delayed, observe):
    """Neurons with constants of their own (None) and shared ones."""
    values = mixed_case(delayed, inputs=70, outputs=130)
    if ratio is not None:
        values |= {"tau_mem": torch.tensor(0.8 * ratio).double(), "tau_syn": torch.tensor(0.8).double()}
    grads, observed = randn(6, 130, seed=9), rand(6, 130, seed=10) * 4 if observe else None
    one, other = (gradients(values, backend, grads, observed) for backend in ("reference", "cpu"))
    fires = one["spikes"].isfinite()
    assert fires.any()
    assert observe or not fires.all()
    compare(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "delayed", "dtype"),
    [
        (ratio, delayed, (torch.float32, torch.float64)[(k + delayed) % 2])
        for k, ratio in enumerate([0.1, 0.5, 1.0, 1 + 1e-9, 1.37, 2.0, 100.0])
        for delayed in (False, True)
    ],
)
def test_spikes_of_many_neurons(dtype, ratio, delayed, backend):
    """One neuron that differs changes nothing for the others, whichever way their spikes are then found."""
    for scale, inputs in ((0.01, 1), (1.0, 5), (3.0, 70), (100.0, 30)):
        times = (rand(15, inputs) * scale).to(dtype)
        times[:, ::2] = (4 * times[:, ::2]).round() / 4
        times[rand(15, inputs, seed=1) < 0.1] = INF
        weight = ((randn(20, inputs, seed=2) + 0.4) * 3 / inputs**0.5).to(dtype)
        threshold = (rand(20, seed=3) + 0.3).to(dtype)
        delay = rand(20, inputs, seed=4).to(dtype) if delayed else None
        mem = torch.full((20,), ratio, dtype=dtype)
        mem[-1] *= 1.5
        found = first_spike_time(times, weight, LIF(mem, 1.0, threshold), delay=delay, backend=backend)
        shared = first_spike_time(times, weight, LIF(mem[0], 1.0, threshold), delay=delay, backend=backend)
        tolerance = 1e-9 if dtype == torch.float64 else 1e-3
        torch.testing.assert_close(found[:, :-1], shared[:, :-1], rtol=tolerance, atol=tolerance)


@pytest.mark.host
@pytest.mark.parametrize("shape", [(), (40,)])
def test_same_bits_for_any_number_of_threads(shape):
    values = mixed_case(False, inputs=200, samples=50)
    if not shape:
        values |= {name: values[name][9] for name in ("tau_mem", "tau_syn")}
    runs, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(gradients(values, "cpu", torch.ones(50, 40, dtype=torch.float64)))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(run[name], value) for name, value in runs[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer", "neurons"])
def test_float32(kind, backend):
    values = mixed_case(False)
    values["weight"] = values["weight"].abs() + 0.2  # all of them fire well above a tangent
    values["times"] = values["times"][3:]
    if kind == "layer":
        values |= {"tau_mem": values["tau_mem"][7], "tau_syn": values["tau_syn"][7]}
    grads = randn(3, 40, seed=9)
    single = gradients({name: x.float() for name, x in values.items()}, backend, grads.float())
    double = gradients(values, backend, grads)
    assert double["spikes"].isfinite().all()
    compare({name: x.double() for name, x in single.items()}, double, rtol=1e-4, atol=1e-4)


@pytest.mark.host
@pytest.mark.parametrize("shape", [(), (1,), (4,)])
def test_shared_tensors_are_bit_for_bit_the_numbers(shape, ratio, backend):
    times, weight = firing_case()
    results = []
    for tensor in (False, True):
        x, w = times.clone().requires_grad_(), weight.clone().requires_grad_()
        syn = torch.full(shape, 0.7, dtype=torch.float64) if tensor else 0.7
        mem = syn * ratio if tensor and ratio < INF else 0.7 * ratio
        out = first_spike_time(x, w, LIF(mem, syn), backend=backend)
        out.square().sum().backward()
        results.append((out, x.grad, w.grad))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_silent_neurons_and_late_inputs_have_exactly_none(finite, backend):
    times = torch.tensor([[0.0, 0.1, 3.0, INF], [INF] * 4], dtype=torch.float64)
    weight = torch.tensor([[4.0, 4.0, 4.0, 4.0], [-1.0, 0.0, -2.0, 4.0], [0.1, 0.1, 0.1, 9.0]], dtype=torch.float64)

    for shape in ((), (3,)):
        found = []
        for late in (4.0, -70.0):
            weight[0, 2:] = late
            mem, syn = (torch.full(shape, x, dtype=torch.float64) for x in (finite, 1.0))
            if shape:
                mem *= torch.tensor([1.0, 1.1, 1.2])
            lif = LIF(mem.requires_grad_(), syn.requires_grad_())
            out = first_spike_time(times, weight, lif, backend=backend)
            assert out.isfinite().tolist() == [[True, False, False], [False, False, False]]
            out.backward(torch.where(out.isfinite(), 1.0, math.nan).double())
            found.append((mem.grad, syn.grad))
            if shape:
                assert (mem.grad != 0).tolist() == (syn.grad != 0).tolist() == [True, False, False]
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("asked", ["times", "weight", "threshold", "delay", "tau_mem", "tau_syn"])
@pytest.mark.parametrize("shape", [(), (4,)], ids=["layer", "neurons"])
def test_each_gradient_alone(shape, asked, backend):
    times, weight = firing_case()
    mem, syn = spread(1.37, shape)
    values = {"times": times, "weight": weight, "threshold": torch.ones(4).double(), "delay": rand(4, 5, seed=2)}
    values |= {"tau_mem": mem, "tau_syn": syn}

    def derive(names):
        inputs = {name: x.clone().requires_grad_(name in names) for name, x in values.items()}
        neuron = LIF(inputs["tau_mem"], inputs["tau_syn"], inputs["threshold"])
        out = first_spike_time(inputs["times"], inputs["weight"], neuron, delay=inputs["delay"], backend=backend)
        out.square().sum().backward()
        return {name: x.grad for name, x in inputs.items()}

    alone = derive({asked})
    assert [name for name, x in alone.items() if x is not None] == [asked]
    torch.testing.assert_close(alone[asked], derive(set(values))[asked], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("sizes", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
@pytest.mark.parametrize("single", [False, True])
def test_empty(single, sizes, backend):
    samples, inputs, outputs = sizes
    mem = (torch.linspace(1, 2, outputs) if single else torch.tensor(1.5)).requires_grad_()
    weight = torch.ones(outputs, inputs, requires_grad=True)
    out = first_spike_time(torch.rand(samples, inputs), weight, LIF(mem), backend=backend)
    assert out.shape == (samples, outputs)
    assert out.isinf().all()
    out.sum().backward()
    assert not mem.grad.any()
    assert not weight.grad.any()


@pytest.mark.usefixtures("checked_at_once")
@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, INF])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_values_that_no_neuron_can_have(shape, value, name, backend):
    times, weight = firing_case()
    tau = torch.ones(shape, dtype=torch.float64)
    tau.view(-1)[-1] = value
    with pytest.raises(ValueError, match=f"{name} must be > 0 and finite, got .* in a tensor"):
        first_spike_time(times, weight, LIF(**{name: tau}), backend=backend)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
def test_shapes_that_do_not_fit(name):
    times, weight = firing_case()
    with pytest.raises(ValueError, match=rf"{name} must be one number or \(4,\), got \(3,\)"):
        first_spike_time(times, weight, LIF(**{name: torch.ones(3)}))


@pytest.mark.parametrize("own", [False, True], ids=["network", "neurons"])
@pytest.mark.parametrize("mapped", ["taus", "taus, weight", "times"])
def test_vmap_equals_a_loop(mapped, own, backend):
    """Bit for bit, forward and backward: networks with their own time constants, and neurons with their own."""
    n, (times, weight) = 3, firing_case()
    shape = (4,) if own else ()
    mem, syn = (x + 0.5 * rand(n, *shape, seed=k) for k, x in enumerate(spread(1.5, shape)))
    values = {"times": times, "weight": weight, "mem": mem, "syn": syn}
    if mapped == "times":
        values |= {"times": times + rand(n, 1, 1), "mem": mem[0], "syn": syn[0]}
    if mapped == "taus, weight":
        values["weight"] = weight + rand(n, 1, 1)
    dims = {name: 0 if name in mapped or ("taus" in mapped and name in ("mem", "syn")) else None for name in values}

    def spikes(v):
        return first_spike_time(v["times"], v["weight"], LIF(v["mem"], v["syn"]), backend=backend)

    def derive(v):
        return grad(lambda v: spikes(v).square().sum())(v)

    found, derived = (vmap(f, in_dims=(dims,))(values) for f in (spikes, derive))
    for k in range(n):
        one = {name: x if dims[name] is None else x[k] for name, x in values.items()}
        assert torch.equal(found[k], spikes(one))
        for name, x in derive(one).items():
            assert torch.equal(derived[name][k], x), name


@pytest.mark.parametrize("learning", [[], [0], [2], [0, 2], [1, 3], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("own", ["networks", "neurons", "both"])
@pytest.mark.parametrize("delayed", [False, True])
def test_some_networks_have_no_gradient(delayed, own, learning, backend):
    """Members of an ensemble that differ in their time constants: each that learns does so as if it were alone."""
    n, (times, weight) = 4, firing_case()
    mem, syn = spread(1.5, () if own == "networks" else (4,))
    if own == "neurons":
        mem, syn = mem.expand(n, -1), syn.expand(n, -1)
    else:
        mem, syn = (x + 0.5 * rand(n, *x.shape, seed=k) for k, x in enumerate((mem, syn)))
    values = {"times": times + rand(n, 1, 1), "weight": weight + rand(n, 1, 1, seed=2), "tau_mem": mem, "tau_syn": syn}
    values["threshold"] = 0.8 + 0.4 * rand(n, 4, seed=3)
    if delayed:
        values["delay"] = 0.2 * rand(n, 4, 5, seed=4)

    def spikes(v):
        lif = LIF(v["tau_mem"], v["tau_syn"], v["threshold"])
        return first_spike_time(v["times"], v["weight"], lif, delay=v.get("delay"), backend=backend)

    found = grad(lambda v: vmap(spikes)(v)[learning].square().sum())(values)
    for k in range(n):
        alone = grad(lambda v: spikes(v).square().sum())({name: x[k] for name, x in values.items()})
        for name, x in alone.items():
            assert x.any(), name
            expected = x if k in learning else torch.zeros_like(x)
            torch.testing.assert_close(found[name][k], expected, rtol=1e-12, atol=1e-13)


def test_ensemble_of_layers_that_learn_their_time_constants(backend):
    make = {"trainable": ("tau_mem", "tau_syn", "threshold"), "backend": backend, "dtype": torch.float64}
    for per_neuron in (False, True):
        layers = [LIFLinear(5, 4, LIF(2.0), per_neuron=per_neuron, generator=seeded(k), **make) for k in range(3)]
        for k, layer in enumerate(layers):
            with torch.no_grad():
                layer.log_tau_mem += 0.1 * k
                layer.log_tau_mem.view(-1)[-1] += 0.2
        times = rand(6, 5)
        parameters, buffers = stack_module_state(layers)

        def objective(parameters, buffers, times=times, base=layers[0]):
            out = functional_call(base, (parameters, buffers), (times,))
            return torch.where(out.isfinite(), out, 0.0).square().sum()

        found = vmap(grad(objective))(parameters, buffers)
        for k, layer in enumerate(layers):
            objective(dict(layer.named_parameters()), {}).backward()
            for name, parameter in layer.named_parameters():
                torch.testing.assert_close(found[name][k], parameter.grad, rtol=1e-12, atol=1e-13)
