"""What all tests share: the backends that must work, poisoned and guarded memory, how hypothesis searches."""

import atexit
import functools
import gc
import gzip
import importlib.util
import math
import os
import shutil
import signal
import struct
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
import torch

from fifty_digits import RATIOS
from firstspike.cli import main
from firstspike.config import load_config
from firstspike.plots import save
from firstspike.spiketime import shared
from firstspike.spiketime.cpu import arrays
from firstspike.spiketime.cpu.runtime import compiling
from firstspike.spiketime.cpu.runtime.parallel import Call
from guards import UNGUARDED, guarded
from on_device import all_on, usable
from trained import start

# Every backend that must pass. One that is missing fails; none is skipped.
BACKENDS_UNDER_TEST = ["reference", "cpu"]

DEVICE = pytest.StashKey()

EXAMPLES = {"firstspike": 20, "thorough": 60}
for _name, _number in EXAMPLES.items():
    hypothesis.settings.register_profile(
        _name, deadline=None, derandomize=True, database=None, max_examples=_number, print_blob=False
    )
hypothesis.settings.load_profile("firstspike")


_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
NEST, TRITON, PLAYWRIGHT = (importlib.util.find_spec(name) is not None for name in ("nest", "triton", "playwright"))
BROWSER = bool(CHROMIUM) and PLAYWRIGHT


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="cpu",
        help="where tests of operator, layers, losses, trainings and their resuming work: cpu, cuda, or away, a device "
        "without a GPU; -m on_device selects them",
    )


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # the order below instead of files with most tests first
    if (name := config.getoption("--device")) != "cpu":
        config.stash[DEVICE] = usable(name)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:  # threads that wait for a core spin on another's
        threads = max(1, (os.cpu_count() or 1) // workers)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that tests start


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported and collected stays: to go through it time and again takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
        gc.enable()


def pytest_generate_tests(metafunc):
    own = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not own:
        of = {"cpu": BACKENDS_UNDER_TEST, "cuda": ["reference", "triton"]}
        here = "on_device" not in metafunc.fixturenames or metafunc.definition.get_closest_marker("host")
        device = "cpu" if here else metafunc.config.getoption("--device")
        metafunc.parametrize("backend", of.get(device.split(":")[0], ["reference"]), indirect=True, scope="session")


def pytest_report_header():
    browser = f"with {CHROMIUM}" if BROWSER else "DESELECTED, there is no Chromium or no Playwright"
    others = [
        f"{name} tests: {f'with {name}' if there else f'DESELECTED, {name} is not installed'}"
        for name, there in (("NEST", NEST), ("Triton", TRITON))
    ]
    return [f"browser tests: {browser}", *others]


# Files that begin: those that take longest, so that no worker is left with one at the end, and before them two that
# compile kernels for different types of numbers, as two workers at once would compile the same ones. Then what works in
# float32, while the first of them still compiles for float64
FIRST = [
    "test_invariances", "test_describe", "test_forward_mode", "test_tutorials", "test_triton", "test_distributed",
    "test_sweep_command", "test_programs", "test_readme", "test_custom_ops", "test_deferred", "test_own_data",
    "test_train_kernels", "test_cpu_guards", "test_triton_dtypes", "test_docs_site", "test_sklearn", "test_cli",
]  # fmt: skip

IN_FLOAT32 = {"training", "runs", "plots", "reports"}


def _turn(item):
    """Where an item stands among the others, from 0 on."""
    if item.path.stem in FIRST:
        return FIRST.index(item.path.stem)
    return len(FIRST) + (not IN_FLOAT32.intersection(item.path.parts))


# Tests that need an extra which is not in dev, or take too long to run each time
ASKED_FOR = ["exhaustive", "heyoka", "neuron", "brian2", "postgresql", "nir_readers", "timeseries", "wandb"]


def pytest_collection_modifyitems(config, items):
    """Tests with these markers are left out, and counted as such, unless ``-m NAME`` insists on them.

    Those in a browser, with NEST or Triton only where there is none; they count as slow.
    """
    items.sort(key=_turn)
    there = {"browser": BROWSER, "nest": NEST, "triton": TRITON}
    needs = {*ASKED_FOR, *(name for name, found in there.items() if not found)}
    for item in items:
        if "on_device" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("host"):
            item.add_marker("on_device")
        if there.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker("slow")  # the fast ones need the extra test alone
    left_out = {name for name in needs if name not in config.getoption("markexpr")}
    without = {item for item in items if left_out & {mark.name for mark in item.iter_markers()}}
    if without:
        config.hook.pytest_deselected(items=[item for item in items if item in without])
        items[:] = [item for item in items if item not in without]


WIDTHS, DRAW = arrays.NARROW, save.draw_after_training
ABOUT_NUMBERS = {"test_extremes"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """What takes most of the time is done where it is tested: compiling kernels, and figures after a training.

    All layers take the kernels of large layers, which give the same bits, but in slow tests of tests/spiketime, and
    layers of up to 16 neurons in those of tests/invariances and about numbers.
    """
    widths = WIDTHS[:1] if "invariances" in item.path.parts or item.path.stem in ABOUT_NUMBERS else WIDTHS
    small = item.get_closest_marker("slow") and {"spiketime", "invariances"}.intersection(item.path.parts)
    arrays.NARROW = widths if small else ()
    save.draw_after_training = DRAW if item.get_closest_marker("draws") else lambda run: None


@pytest.fixture(scope="session")
def chromium_path():
    assert CHROMIUM, f"none of {', '.join(_BROWSERS)} is installed; on Debian: apt install chromium"
    return CHROMIUM


@pytest.fixture(scope="module")
def chromium(chromium_path):
    """A browser, for the tests of one file: its event loop would be in the way of others."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root with its sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def backends_under_test():
    return list(BACKENDS_UNDER_TEST)


@pytest.fixture(scope="session")
def backend(request):
    return request.param


@pytest.fixture
def checked_at_once(monkeypatch):
    """Errors come where they arise, also on a GPU."""
    monkeypatch.setenv("FIRSTSPIKE_CHECK_AT_ONCE", "1")


@pytest.fixture
def on_device(request):
    """The device that was asked for; everything that the test makes is made there."""
    name = request.config.getoption("--device")
    if name == "cpu" or request.node.get_closest_marker("host"):
        yield torch.device("cpu")
    else:
        with all_on(name):
            yield torch.device(name)


@pytest.fixture(scope="session", params=RATIOS, ids=lambda ratio: f"ratio={ratio:.10g}")
def ratio(request):
    return request.param


@pytest.fixture(scope="module")
def poisoned_memory():
    """What torch hands out uninitialised is full of NaN, so that a result that was never written shows."""

    def poisoned(allocate):
        @functools.wraps(allocate)
        def wrapper(*args, **kwargs):
            memory = allocate(*args, **kwargs)
            if memory.is_floating_point():
                with torch.no_grad():
                    memory.fill_(math.nan)
            return memory

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like", "empty_strided"):
            patch.setattr(torch, name, poisoned(getattr(torch, name)))
        for name in ("new_empty", "new_empty_strided"):
            patch.setattr(torch.Tensor, name, poisoned(getattr(torch.Tensor, name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def what_compiling_leaves_is_not_collected():
    """Each kernel leaves very many objects: a garbage collection that goes through all of them takes seconds."""
    shared.listeners.append(gc.freeze)
    yield
    shared.listeners.remove(gc.freeze)
    gc.freeze()  # pytest ends with five collections


def _is_quick(kernel, real, *kind):
    """Whether fast tests may compile a kernel: those of most trainings, and of a neuron with a bit of everything."""
    family = kernel.split(".")[3]
    if family == "rows":
        return kind[0] == arrays.TILE
    if family == "lanes":
        return real == "float64" and (kind[0] == "closed" or kind[1:3] == (False, True))
    if family == "sparse" and real == "float32":
        return kind[:2] == ("closed", False)
    return family == "series" or (real == "float64" and kind[:2] == ("closed", True))


@pytest.fixture(autouse=True)
def _few_kernels(request, monkeypatch):
    """Fast tests fail if they need a kernel that no other fast test needs, as each takes seconds to compile."""
    if request.config.getoption("markexpr") != "not slow" or compiling.inside is None:
        return

    class OnDisk(compiling._OnDisk):
        def __init__(self, function, kind, following):
            super().__init__(function, kind, following)
            ours = self._kernel.startswith("firstspike.")
            assert not ours or _is_quick(self._kernel, *kind), f"mark this test slow: {self._kernel} {kind}"

    monkeypatch.setattr(compiling, "_OnDisk", OnDisk)


@pytest.fixture(scope="session", autouse=True)
def _guarded_kernels():
    """No kernel writes outside of its arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "__call__", guarded)
        yield


@pytest.fixture
def unguarded(monkeypatch):
    """Kernels work with the memory that they have outside of tests."""
    monkeypatch.setattr(Call, "__call__", UNGUARDED)


@pytest.fixture(autouse=True)
def _own_draws():
    """What a test draws does not depend on the tests before it, which are others for each number of workers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """The command leaves Ctrl-C to the system when it ends, and the process with it; here the process goes on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command_here(monkeypatch, capsys):
    """The command in this process, as a process of its own would end; that would first import torch for seconds."""

    def call(*arguments, cwd="."):
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["firstspike", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return call


def _write_idx(path, array, zipped=False):
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)


def _write_images(folder, train=200, test=60, zipped=False):
    """Files as MNIST has them: images of 28x28 random pixels, bright inside and black at the border."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        pixels = np.zeros((count, 28, 28))
        pixels[:, 4:-4, 4:-4] = random.integers(0, 256, (count, 20, 20))
        end = ".gz" if zipped else ""
        _write_idx(folder / f"{part}-images-idx3-ubyte{end}", pixels, zipped)
        _write_idx(folder / f"{part}-labels-idx1-ubyte{end}", np.arange(count) % 10, zipped)
    return folder


@pytest.fixture(scope="session")
def write_idx():
    return _write_idx


@pytest.fixture(scope="session")
def write_images():
    return _write_images


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    return _write_images(tmp_path_factory.mktemp("images") / "plain")


@pytest.fixture(scope="session")
def bars_folder(tmp_path_factory):
    """A finished run; tests only read it, or add evaluations."""
    folder = tmp_path_factory.mktemp("trained") / "bars"
    start(folder, load_config("bars", ["training.epochs=12", "training.checkpoint_every=4"]), progress_bar=False)
    return folder
