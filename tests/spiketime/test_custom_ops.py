"""The operator in recorded programs: ``torch.compile``, ``torch.export``, ``make_fx``; checks of its ops by torch."""

import io
import math
import os
import shutil

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

from firstspike import LIF, first_spike_time
from firstspike.neurons import AdaptiveLIF
from firstspike.spiketime import TrainState, spike_window
from firstspike.spiketime.contract import DIFFERENTIABLE, QUANTITIES

# torch 2.8 hides the message of an error in a function that it compiles
HIDDEN = "|Observed exception"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own parts

SAMPLES, INPUTS, OUTPUTS = 4, 5, 3
INF = math.inf


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trains_case(everything):
    """The same of spike trains and the state at the end, from rest or from a state."""
    values = {"times": 1.5 * draw(SAMPLES, INPUTS, 2), "weight": 2.0 + draw(OUTPUTS, INPUTS, seed=1)}
    values["times"][0, 0, 1] = INF
    if everything:
        values |= {"threshold": 0.8 + draw(OUTPUTS, seed=2), "delay": draw(OUTPUTS, INPUTS, seed=3)}
        values |= {"tau_mem": 1 + draw(OUTPUTS, seed=4), "voltage": 0.3 * draw(SAMPLES, OUTPUTS, seed=5)}
        values |= {"current": draw(SAMPLES, OUTPUTS, seed=6), "refractory": 0.2 * draw(SAMPLES, OUTPUTS, seed=7)}
        values["refractory"][:2] = 0

    def spikes(values, backend):
        values = dict(values)
        neuron = LIF(values.pop("tau_mem", 2.0), 1.0, values.pop("threshold", 1.0))
        state = None
        if everything:
            state = TrainState(*(values.pop(name) for name in ("voltage", "current", "refractory")), 0.0)
        trains, state, _ = spike_window(
            neuron=neuron.with_values(refractory=0.1, reset=-0.2), backend=backend, max_spikes=4, overflow="drop",
            state=state, until=2.0, **values,
        )  # fmt: skip
        return torch.cat([trains.flatten(1), *state[:3]], 1)

    return spikes, values


def linear_case(everything):
    """Linear neurons: first spikes by receptor; or windows with adaptation and a bias, from a state."""
    values = {"times": 1.5 * draw(SAMPLES, INPUTS), "weight": 2.0 + draw(OUTPUTS, INPUTS, seed=1)}
    values |= {"first": 0.8 + draw(OUTPUTS, seed=2), "second": 1 + draw(1, seed=3), "rise": 0.3 + draw(OUTPUTS, seed=4)}
    if everything:
        values["times"] = torch.stack([values["times"], values["times"] + 0.4], -1)
        values |= {"jump": 0.1 + 0.3 * draw(OUTPUTS, seed=5), "bias": 0.5 * draw(OUTPUTS, seed=6)}
        values |= {"tau": 2 + draw(1, seed=7), "voltage": 0.3 * draw(SAMPLES, OUTPUTS, seed=8)}
        values |= {"current": 0.3 * draw(SAMPLES, OUTPUTS, 5, seed=9), "left": 0.2 * draw(SAMPLES, OUTPUTS, seed=10)}
        values |= {"delay": draw(OUTPUTS, INPUTS, seed=11), "reset": -draw(OUTPUTS, seed=12)}
        values["left"][:2] = 0

    def spikes(values, backend):
        values = dict(values)
        taus = {"tau_syn": (values.pop("first"), values.pop("second")), "tau_rise": (values.pop("rise"), 0.0)}
        receptor = [k % 2 for k in range(INPUTS)]
        if not everything:
            return first_spike_time(neuron=LIF(2.0, **taus), receptor=receptor, backend=backend, **values)
        tau, jump = values.pop("tau"), values.pop("jump")
        neuron = AdaptiveLIF(
            2.0, **taus, bias=values.pop("bias"), reset=values.pop("reset"), refractory=0.1,
            adaptation=[(tau, jump)], threshold_adaptation=[(1.5, jump)],
        )  # fmt: skip
        state = TrainState(*(values.pop(name) for name in ("voltage", "current", "left")), 0.0)
        trains, state, _ = spike_window(
            neuron=neuron, backend=backend, max_spikes=6, overflow="drop", state=state, until=2.5, receptor="sign",
            **values,
        )  # fmt: skip
        return torch.cat([trains.flatten(1), *(x.flatten(1) for x in state[:3])], 1)

    return spikes, values


CASES = ["plain", "leakless", "everything", "observed", "trains", "trains with everything"]
CASES += ["linear", "linear with everything"]
BOTH = ["reference", "cpu"]  # each case with one: a program only holds its name


@pytest.fixture(params=CASES)
def case(request):
    """A function of some of its arguments, and these."""
    for kind, made in (("trains", trains_case), ("linear", linear_case)):
        if request.param.startswith(kind):
            return made("everything" in request.param)
    values = {"times": 1.5 * draw(SAMPLES, INPUTS), "weight": 2.0 + draw(OUTPUTS, INPUTS, seed=1)}
    values["times"][0, 0] = INF
    ratio, options = 2.0, {}
    if request.param == "leakless":
        ratio = INF
    if request.param == "everything":
        values |= {"threshold": 0.8 + draw(OUTPUTS, seed=2), "delay": draw(OUTPUTS, INPUTS, seed=3)}
        values |= {"tau_mem": 1 + draw(OUTPUTS, seed=4), "tau_syn": 1 + draw(1, seed=5)}
        options["max_weight_grad"] = 0.5
    if request.param == "observed":
        options["observed"] = 2 * draw(SAMPLES, OUTPUTS, seed=6)

    def spikes(values, backend):
        values = dict(values)
        neuron = LIF(values.pop("tau_mem", ratio), values.pop("tau_syn", 1.0), values.pop("threshold", 1.0))
        return first_spike_time(neuron=neuron, backend=backend, **values, **options)

    return spikes, values


def derive(function, values):
    """Spike times, and gradients by everything."""
    leaves = {name: x.clone().requires_grad_() for name, x in values.items()}
    out = function(leaves)
    torch.where(out.isfinite(), out, 0.0).square().sum().backward()
    return {"spikes": out.detach(), **{name: x.grad for name, x in leaves.items()}}


def same(found, expected):
    assert torch.equal(found["spikes"], expected["spikes"])
    assert found["spikes"].isfinite().any()
    for name, x in expected.items():
        assert x.any(), name
        torch.testing.assert_close(found[name], x, rtol=1e-12, atol=1e-13, msg=lambda text, name=name: name + text)


@pytest.fixture
def compiled():
    """``torch.compile`` without anything left from before."""
    torch._dynamo.reset()
    yield lambda function, **options: torch.compile(function, fullgraph=True, **{"backend": "aot_eager", **options})
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(x, BOTH[k % 2], marks=[] if "everything" in x and "linear" not in x else pytest.mark.slow)
        for k, x in enumerate(CASES)
    ],
    indirect=True,
)
def test_compiled_equals_eager(case, compiled, backend):
    spikes, values = case
    eager = derive(lambda v: spikes(v, backend), values)
    same(derive(compiled(lambda v: spikes(v, backend)), values), eager)


@pytest.mark.slow
def test_compiled_for_any_number_of_samples(compiled, backend):
    """The second number of samples makes it a variable of the program, and nothing is compiled a third time."""
    from torch._dynamo.testing import CompileCounterWithBackend  # loads all that compiles

    counter, weight = CompileCounterWithBackend("aot_eager"), 2.0 + draw(OUTPUTS, INPUTS)
    run = compiled(lambda t: first_spike_time(t, weight, LIF(2.0), backend=backend), backend=counter)
    for samples in (4, 7, 9, 5):
        times = draw(samples, INPUTS, seed=samples)
        assert torch.equal(run(times), first_spike_time(times, weight, LIF(2.0), backend=backend))
    assert counter.frame_count == 2


@pytest.mark.slow
def test_compiled_with_numbers_that_change(compiled, backend):
    def spikes(times, weight, tau_mem, threshold):
        return first_spike_time(times, weight, LIF(tau_mem, 1.0, threshold), backend=backend)

    run, times, weight = compiled(spikes), draw(SAMPLES, INPUTS), 2.0 + draw(OUTPUTS, INPUTS)
    for numbers in ((1.3, 0.5), (1.7, 0.6), (INF, 0.7), (2.5, 0.8)):
        assert torch.equal(run(times, weight, *numbers), spikes(times, weight, *numbers))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(
    "case", [pytest.param(x, marks=[] if "everything" in x else pytest.mark.exhaustive) for x in CASES], indirect=True
)
def test_inductor(case, compiled):
    spikes, values = case
    eager = derive(lambda v: spikes(v, "cpu"), values)
    same(derive(compiled(lambda v: spikes(v, "cpu"), backend="inductor"), values), eager)


@pytest.mark.slow
def test_wrong_values_are_seen_when_the_program_runs(compiled, backend):
    run = compiled(lambda t, w: first_spike_time(t, w, LIF(), backend=backend))
    times, weight = draw(2, 3), draw(4, 3)
    run(times, weight)
    with pytest.raises(ValueError, match="weight must be finite, got NaN or inf"):
        run(times, weight * math.nan)


@pytest.mark.slow
def test_wrong_shapes_are_seen_when_it_is_compiled(compiled):
    run = compiled(lambda t, w: first_spike_time(t, w, LIF()))
    with pytest.raises(Exception, match="with the same number of inputs" + HIDDEN):
        run(draw(2, 3), draw(4, 5))


@pytest.mark.slow
def test_vmap_in_compiled_code(compiled, backend):
    times, weight = draw(SAMPLES, INPUTS), 2.0 + draw(3, OUTPUTS, INPUTS)

    def ensemble(v):
        return vmap(lambda w: first_spike_time(v["times"], w, LIF(2.0), backend=backend))(v["weight"])

    values = {"times": times, "weight": weight}
    same(derive(compiled(ensemble), values), derive(ensemble, values))


@pytest.mark.slow
def test_forward_mode_in_compiled_code_is_refused(compiled, backend):
    """Torch takes a custom op for constant in forward mode: better no number than that one."""
    times, weight = draw(SAMPLES, INPUTS), 2.0 + draw(OUTPUTS, INPUTS)

    def spikes(w):
        return first_spike_time(times, w, LIF(), backend=backend)

    with pytest.raises(Exception, match="no forward-mode derivatives in compiled code" + HIDDEN):
        compiled(lambda w: torch.func.jvp(spikes, (w,), (w,))[1])(weight)
    run = compiled(spikes)
    run(weight)
    with (
        pytest.raises(Exception, match="no forward-mode derivatives in compiled code" + HIDDEN),
        forward_ad.dual_level(),
    ):
        run(forward_ad.make_dual(weight, weight))


class Spikes(torch.nn.Module):
    def __init__(self, function, backend):
        super().__init__()
        self.function, self.backend = function, backend

    def forward(self, values):
        return self.function(values, self.backend)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "backend", "strict"),
    [  # in one of torch's ways to record programs; the other one then finds the same calls
        pytest.param(name, BOTH[k // 2 % 2], strict, marks=[pytest.mark.exhaustive] * (strict != k % 2))
        for k, name in enumerate(CASES)
        for strict in (False, True)
    ],
    indirect=["case", "backend"],
)
def test_exported_program(case, strict, backend):
    """Written to a file and read again, it gives the same numbers, and gradients."""
    spikes, values = case
    program = torch.export.export(Spikes(spikes, backend), (values,), strict=strict)
    assert "firstspike.spike_forward" in str(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    read = torch.export.load(file).module()
    eager = derive(lambda v: spikes(v, backend), values)
    same(derive(program.module(), values), eager)
    same(derive(read, values), eager)
    other = values | {"times": values["times"] + 0.1}
    assert torch.equal(read(other), spikes(other, backend))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu"])  # which the program does not know of
def test_traced_by_make_fx(case, backend):
    """A program that holds the backward pass as well."""
    spikes, values = case

    def gradients(v):
        def loss(v):
            out = spikes(v, backend)
            return torch.where(out.isfinite(), out, 0.0).square().sum()

        return grad(loss)(v)

    program = make_fx(gradients)(values)
    assert "firstspike.spike_backward" in str(program.graph)
    other = values | {"times": values["times"] + 0.1}
    for name, x in gradients(other).items():
        torch.testing.assert_close(program(other)[name], x, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_fake_tensors_have_the_right_shapes(backend):
    with FakeTensorMode():
        times, weight = torch.rand(2, 3, INPUTS), torch.rand(OUTPUTS, INPUTS, requires_grad=True)
        out = first_spike_time(times, weight, LIF(torch.ones(OUTPUTS)), backend=backend)
        out.sum().backward()
        assert out.shape == (2, 3, OUTPUTS)
        assert weight.grad.shape == weight.shape


@pytest.mark.slow
def test_torchs_own_checks_of_trains(backend):
    times, weight, threshold = draw(1, SAMPLES, INPUTS, 2), 2.0 + draw(1, OUTPUTS, INPUTS), 0.5 + draw(1, OUTPUTS)
    given = {"times": times, "threshold": threshold}
    given |= {"refractory": 0.1 * draw(1, OUTPUTS, seed=1), "reset": -draw(1, OUTPUTS, seed=2)}
    given |= {
        name: 0.3 * draw(1, SAMPLES, OUTPUTS, seed=seed) for name, seed in (("voltage", 3), ("current", 4), ("left", 5))
    }
    for until, bounds in ((None, None), (2.0, None), (2.0, [0.0, 1.0, 2.0])):
        if bounds is not None and backend == "reference":
            continue
        w = weight if bounds is None else torch.cat([weight, 0.1 * draw(1, OUTPUTS, OUTPUTS)], -1)
        numbers = (backend, 2.0, 1.0, None, 4, 0.0, until, bounds, 1.0, 4, "drop", "", True, "", False)
        tensors = tuple((given | {"weight": w}).get(name) for name in QUANTITIES)
        leaves = tuple(
            None if x is None else x.clone().requires_grad_(name in DIFFERENTIABLE)
            for name, x in zip(QUANTITIES, tensors, strict=True)
        )
        opcheck(torch.ops.firstspike.spike_forward.default, (*leaves, *numbers))
        spikes, *ends, overflows = torch.ops.firstspike.spike_forward(*tensors, *numbers)
        needs, grads = [*given.keys() - {"refractory"}, "weight"], ends if until else [None] * 3
        inputs = (needs, spikes, *grads, spikes, *tensors, [overflows], *numbers)
        spikes = torch.where(spikes.isfinite(), spikes, 0.0)
        opcheck(torch.ops.firstspike.spike_backward.default, inputs)


@pytest.fixture
def filled_memory(monkeypatch):
    """New tensors are 0, as the checks compare also what an op leaves unused of its results."""
    monkeypatch.setattr(torch.Tensor, "new_empty", torch.Tensor.new_zeros)


@pytest.mark.slow
@pytest.mark.parametrize("fixed_mem", [None, 1.37])
@pytest.mark.usefixtures("filled_memory")
def test_torchs_own_checks(fixed_mem, backend):
    times, weight, threshold = draw(2, SAMPLES, INPUTS), 2.0 + draw(2, OUTPUTS, INPUTS), 0.5 + draw(2, OUTPUTS)
    delay, tau = draw(2, OUTPUTS, INPUTS), 1 + draw(2, OUTPUTS)
    numbers = (backend, fixed_mem, 1.0, None, 0, None, None, None, 0.0, 0, "drop", "", True, "", False)
    given = {"times": times, "weight": weight, "threshold": threshold}
    for own in ({}, {"delay": delay}, {"delay": delay, "tau_mem": tau, "tau_syn": tau}):
        named = given | own
        leaves = (None if name not in named else named[name].clone().requires_grad_() for name in QUANTITIES)
        opcheck(torch.ops.firstspike.spike_forward.default, (*leaves, *numbers))
        tensors = [named.get(name) for name in QUANTITIES]
        spikes, *saved = torch.ops.firstspike.spike_forward(*tensors, *numbers)
        assert spikes.isfinite().all()
        inputs = ([*named], spikes, None, None, None, spikes, *tensors, saved, *numbers)
        opcheck(torch.ops.firstspike.spike_backward.default, inputs)
