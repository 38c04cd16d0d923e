"""Training steps on a device whose values cannot be read: whatever would wait for a GPU fails there.

Torch's device ``meta`` has shapes and no values. ``.item()``, ``bool()``, ``nonzero`` and copies to the CPU raise
errors there, as they would wait for a GPU, and the code takes the path of all devices other than the CPU.
"""

import math
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import firstspike as fs
from firstspike import deferred
from firstspike.layers.noise import jitter_from
from firstspike.seeding import generator
from firstspike.spiketime import backends, function
from firstspike.training.engines import SideBySide, engine_for
from firstspike.training.evaluation import outputs_of
from on_device import usable

aten = torch.ops.aten
ANY = fs.SilentNeurons(limits=1)  # a limit has to be compared with what happened, on the host
READS = {aten._local_scalar_dense, aten.item, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select}
READS |= {aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount}


class WaitsError(AssertionError):
    pass


class NoWaiting(TorchDispatchMode):
    """Fails where a value of another device is read, or a tensor is copied from or to it in a way that waits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        away = [x for x in tensors if x.device.type != "cpu"]
        packet = func.overloadpacket
        if away and packet in READS:
            raise WaitsError(f"{packet} reads values of {away[0].device}")
        if away and packet in (aten.index, aten.index_put_, aten.index_put):
            for x in args[1]:
                if x is not None and (x.dtype == torch.bool or x.device.type == "cpu"):
                    raise WaitsError(f"an index of {x.dtype} on {x.device} is read, or copied")
        if packet is aten._to_copy and kwargs.get("device") is not None:
            target = torch.device(kwargs["device"]).type
            if target != args[0].device.type and not (args[0].device.type == "cpu" and kwargs.get("non_blocking")):
                raise WaitsError(f"a copy from {args[0].device} to {target} waits")
        if packet is aten.copy_ and args[0].device.type != args[1].device.type:
            one = args[1].device.type == "cpu" and (args[1].ndim == 0 or (len(args) > 2 and args[2]))
            if not one:
                raise WaitsError(f"a copy from {args[1].device} to {args[0].device} waits")
        return func(*args, **kwargs)


class NoNumbers(TorchFunctionMode):
    """Fails where a tensor on another device is made of Python's numbers: that copy waits, and no dispatch shows it."""

    MAKERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
    INDEXED = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        of = next((x for x in args if isinstance(x, torch.Tensor)), None)
        device = torch.device(kwargs.get("device") or (of.device if of is not None else "cpu"))
        if device.type != "cpu":
            if func in self.MAKERS and not (func is torch.as_tensor and of is not None):
                raise WaitsError(f"{func.__name__} copies numbers to {device}")
            if func in self.INDEXED and any(
                isinstance(x, list)
                for x in torch.utils._pytree.tree_leaves(args[1], is_leaf=lambda x: isinstance(x, list))
            ):
                raise WaitsError(f"a list as an index is copied to {device}")
        return func(*args, **kwargs)


@contextmanager
def watched():
    with NoNumbers(), NoWaiting():
        yield


@pytest.fixture
def no_waiting(monkeypatch):
    """The operator does its own work under the mode, which it would otherwise take for one that records a program."""
    monkeypatch.setattr(function, "_modes", lambda: 0)
    monkeypatch.setattr(deferred, "_marks", {})
    return watched()


def test_the_mode_sees_what_waits(no_waiting):
    x = torch.ones(3, device="meta")
    reads = [
        lambda: x.sum().item(),
        lambda: bool((x > 0).all()),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: x.cpu(),
        lambda: torch.ones(3).to("meta"),
        lambda: torch.tensor([1.0, 2.0], device="meta"),
        lambda: x.new_tensor([1.0, 2.0]),
        lambda: x[[0, 2]],
        lambda: torch.equal(x, x),
    ]
    with no_waiting:
        for read in reads:
            with pytest.raises((WaitsError, RuntimeError, NotImplementedError)):
                read()
        deferred.sent(torch.ones(3), x.device)
        torch.full_like(x, math.inf)


def neurons(kind):
    """Parameters of a layer, by what its neurons have."""
    return {
        "numbers": {"neuron": fs.LIF(2.0, 1.0)},
        "no leak": {"neuron": fs.LIF(math.inf, 1.0), "trainable": ["tau_syn", "threshold"]},
        "shared": {"trainable": ["tau_mem", "tau_syn"]},
        "own": {"trainable": ["tau_mem", "tau_syn", "threshold"], "per_neuron": True},
        "far units": {"neuron": fs.LIF(2e6, 1e6)},
        "delays": {"delay": fs.DelayRule("clip", jitter=0.1)},
        "own delays": {"delay": fs.DelayRule(), "trainable": ["tau_mem"], "per_neuron": True},
    }[kind]


KINDS = ["numbers", "no leak", "shared", "own", "far units", "delays", "own delays"]


def network(kind, **options):
    layers = [
        fs.BiasSpikes([0.3]),
        fs.LIFLinear(10, 12, max_weight_grad=0.5, **neurons(kind), **options),
        fs.Delay(12, fs.DelayRule(jitter=0.1)),
        fs.LIFLinear(12, 3, **neurons(kind), **options),
    ]
    return fs.Network(*layers).to("meta")


class Stub:
    """In place of a kernel: nothing is launched."""

    def __getitem__(self, grid):
        return lambda *arguments, **options: None


@pytest.fixture
def triton(monkeypatch):
    """The backend for GPUs, for tensors on the device meta: kernels cannot run there, all that is around them does."""
    for module, kernels in (("spikes", ("forward",)), ("gradients", ("terms", "jump", "gradient"))):
        for kernel in kernels:
            monkeypatch.setattr(import_module(f"firstspike.spiketime.triton.{module}"), f"{kernel}_kernel", Stub())
    monkeypatch.setattr(backends, "_automatic", lambda *_: backends.BACKENDS["triton"]())


def step_twice(members, optimizer, no_waiting, silent=None):
    """Two steps with everything that is drawn or weighed in one; the sums of the second."""
    optimizers = [optimizer(net.parameters()) for net in members]
    loss, terms = fs.losses.TimeCrossEntropy(weight=[1.0, 2.0, 3.0]), [fs.losses.EarlyOutput(0.1)]
    train = fs.Trainer(members, loss, optimizers, regularizers=terms, clip_grad_norm=1.0, silent=ANY)
    sources = [generator(k, "noise") for k in range(len(members))]
    rule = fs.Augment(jitter=0.1, dropout=0.1, flip=True, shift=1)
    images = fs.data.SpikeData(torch.rand(8, 9), torch.zeros(8, dtype=torch.int64), ("a", "b", "c"), image=(1, 3, 3))
    times = torch.rand(len(members), 6, 9, device="meta")
    labels = torch.zeros(len(members), 6, dtype=torch.int64, device="meta")
    engine = engine_for(train.members, train.objective, train.clip_grad_norm)
    with no_waiting, ExitStack() as stack:
        for net, source in zip(members, sources, strict=True):
            stack.enter_context(jitter_from(net, source))
        for _ in range(2):
            sums = engine.step(rule(times, images, sources), labels)
    assert sums.is_meta
    assert all(p.grad is not None and p.grad.is_meta for net in members for p in net.parameters())
    assert deferred._marks[torch.device("meta")].is_meta
    return engine


@pytest.mark.triton
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_does_not_wait(kind, triton, no_waiting):
    step_twice([network(kind)], partial(torch.optim.SGD, lr=0.1, momentum=0.9), no_waiting)


@pytest.mark.triton
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_nor_do_optimisers(optimizer, triton, no_waiting):
    step_twice([network("numbers")], partial(optimizer, lr=0.1), no_waiting)


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["numbers", "shared", "own"])
def test_nor_do_networks_side_by_side(kind, triton, no_waiting):
    members = [
        fs.Network(fs.LIFLinear(9, 12, **neurons(kind)), fs.LIFLinear(12, 3, **neurons(kind))).to("meta")
        for _ in range(3)
    ]
    assert isinstance(step_twice(members, torch.optim.Adam, no_waiting), SideBySide)


@pytest.mark.triton
def test_nor_do_spike_trains(triton, no_waiting):
    """Unless they are to say whether a neuron spikes too often."""
    layer = fs.LIFSpikeTrains(9, 12, max_spikes=4, overflow="drop").to("meta")
    times = torch.rand(6, 9, 2, device="meta", requires_grad=True)
    with no_waiting:
        trains = layer(times)
        torch.where(trains.isfinite(), trains, 0.0).sum().backward()
    assert trains.shape == (6, 12, 4)
    assert times.grad.is_meta
    assert all(p.grad.is_meta for p in layer.parameters())


@pytest.mark.triton
def test_evaluation_waits_at_its_end_only(triton, no_waiting):
    net, times = network("delays"), torch.rand(3000, 9, device="meta")
    with no_waiting:
        found, silent = outputs_of(net, times)
    assert found.shape == (3000, 3)
    assert silent.is_meta
    assert len(silent) == 2


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The CPU counts as a device whose values are not read; they are there to compare."""
    monkeypatch.setattr(deferred, "_marks", {})
    monkeypatch.setattr(deferred, "_HOSTS", frozenset())


def arguments(**others):
    given = {"times": torch.tensor([[0.0, 0.4]]), "weight": torch.ones(3, 2), "neuron": fs.LIF(2.0, 1.0, 0.2)}
    return given | others


WRONG = {
    "times": ({"times": torch.tensor([[0.0, math.nan]])}, "^on cpu: times must be real numbers or inf"),
    "observed": ({"observed": torch.full((1, 3), -math.inf)}, "observed times must be real numbers or inf"),
    "threshold": ({"neuron": fs.LIF(threshold=torch.zeros(3))}, "threshold must be > 0 and finite"),
    "weight": ({"weight": torch.full((3, 2), math.nan)}, "weight must be finite"),
    "large weight": ({"weight": torch.full((3, 2), 1e35)}, "not beyond the limit in thresholds"),
    "delay": ({"delay": torch.full((3, 2), -0.1)}, "delay must be >= 0 and finite"),
    "tau_mem": ({"neuron": fs.LIF(torch.tensor([1.0, math.inf, 1.0]), 1.0, 0.2)}, "tau_mem must be > 0 and finite in"),
    "tau_syn": ({"neuron": fs.LIF(math.inf, torch.tensor(0.0), 0.2)}, "tau_syn must be > 0 and finite in a tensor"),
    "unit": ({"times": torch.tensor([[0.0, 1e35]]), "neuron": fs.LIF(1e-5, 1e-5, 0.2)}, "must have a number of the"),
    "unit of tensors": (
        {"times": torch.tensor([[0.0, 1e35]]), "neuron": fs.LIF(torch.tensor(1e-5), 1e-5, 0.2)},
        "must have a number of the dtype in units of the time constants",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_checks_that_are_read_later(kind, as_on_a_gpu):
    others, message = WRONG[kind]
    fs.first_spike_time(**arguments(), backend="reference")
    fs.raise_deferred_errors()
    fs.first_spike_time(**arguments(**others), backend="reference")
    fs.first_spike_time(**arguments(), backend="reference")
    with pytest.raises(ValueError, match=message):
        fs.raise_deferred_errors()
    fs.raise_deferred_errors()  # it is said once


def test_checks_of_losses_in_transforms_are_read_later(as_on_a_gpu):
    each = torch.func.vmap(torch.func.grad(fs.losses.TimeMSE(0.5, 1.5)))
    each(torch.rand(4, 3), torch.tensor([0, 1, 2, 0]))
    fs.raise_deferred_errors()
    each(torch.tensor([[0.1, math.nan]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="times must be real numbers or inf"):
        fs.raise_deferred_errors()


def test_checks_at_once_on_request(as_on_a_gpu, monkeypatch):
    monkeypatch.setenv("FIRSTSPIKE_CHECK_AT_ONCE", "1")
    for others, _ in WRONG.values():
        with pytest.raises(ValueError, match="must be"):
            fs.first_spike_time(**arguments(**others), backend="reference")
    assert not deferred._marks


def test_a_trainer_reads_them_after_every_epoch(as_on_a_gpu):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.spiking = fs.LIFLinear(9, 3, backend="reference")

        def forward(self, times):
            return self.spiking(torch.where(times > times.amin(), times, math.nan))

    net, data = Broken(), fs.data.bars(samples=20)
    train = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.SGD(net.parameters(), lr=0.0), silent=ANY)
    for call in (
        lambda: train.fit(data, epochs=1, batch_size=5, progress_bar=False),
        lambda: train.evaluate(data),
        lambda: train.record(data.times),
    ):
        with pytest.raises(ValueError, match=r"on cpu: times must be .*set FIRSTSPIKE_CHECK_AT_ONCE=1"):
            call()


@pytest.mark.parametrize("unit", [1.0, 1e6])
@pytest.mark.parametrize("kind", ["numbers", "tau_mem", "tau_syn", "no leak", "both", "own"])
def test_time_constants_that_are_not_read(kind, unit, monkeypatch):
    """The same spike times and gradients as on the CPU, where values choose the way."""
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times, weight, delay = unit * draw(2, 4, 5), 0.2 + draw(2, 3, 5), unit * draw(2, 3, 5)
    shape = (2, 3) if kind == "own" else (2, 1)
    tau_mem, tau_syn = unit * (1 + draw(shape)), unit * (0.5 + draw(shape))
    mem = math.inf if kind == "no leak" else 1.5 * unit
    taus = {"numbers": (), "tau_mem": (tau_mem,), "tau_syn": (tau_syn,), "no leak": (tau_syn,)}.get(
        kind, (tau_mem, tau_syn)
    )

    def loss(times, weight, delay, *taus):
        own = {"numbers": (mem, unit), "tau_mem": (*taus, unit), "tau_syn": (mem, *taus), "no leak": (mem, *taus)}
        neuron = fs.LIF(*own.get(kind, taus), 0.4)
        spikes = fs.first_spike_time(times, weight, neuron, delay=delay, max_weight_grad=3 * unit, backend="reference")
        return torch.where(spikes.isfinite(), spikes / unit, 0.0).square().sum(), spikes

    given = (times, weight, delay, *taus)
    found = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(len(given))), has_aux=True))
    gradients, spikes = found(*given)
    monkeypatch.setattr(deferred, "_HOSTS", frozenset())
    monkeypatch.setattr(deferred, "_marks", {})
    others, again = found(*given)
    fs.raise_deferred_errors()
    assert spikes.isfinite().any()
    torch.testing.assert_close(again, spikes, rtol=1e-12, atol=0)
    for one, other in zip(gradients, others, strict=True):
        assert one.any()
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-11 * float(one.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [
        ["training/test_trainer.py::test_any_module_is_trained_and_continued", "training/test_silent.py"],
        pytest.param(["layers/test_ensemble_learning.py", "runs/test_resume.py"], marks=pytest.mark.exhaustive),
    ],
)
def test_trainings_on_a_device_out_of_the_cpus_reach(files):
    """With real values, see ``away``: what is forgotten on the CPU, or read there by accident, raises an error.

    In a process of its own: a device, once there, changes what torch does in all that follows.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", "away", "-m", "on_device"]
    done = subprocess.run([*command, *files], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("name", ["nonsense", "meta:1:2", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_there(name):
    with pytest.raises(pytest.UsageError, match=f"^--device {name} cannot be used here: "):
        usable(name)
