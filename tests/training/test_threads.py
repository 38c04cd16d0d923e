import signal
import sys
from contextlib import suppress

import pytest
import torch

from firstspike.data import SpikeData
from firstspike.layers import LIFLinear, Network
from firstspike.losses import TimeCrossEntropy
from firstspike.neurons import LIF
from firstspike.spiketime.shared import threads_for, work_of
from firstspike.training import Callback, Interrupted, Trainer
from firstspike.training.loop import stop_on_signals
from firstspike.training.threads import Pace, threads_worth_starting

MUCH = 1 << 30  # work for a kernel


def small_training(samples, hidden):
    torch.manual_seed(1)
    network = Network(LIFLinear(5, hidden, LIF(2.0)), LIFLinear(hidden, 3, LIF(2.0)))
    trainer = Trainer(network, TimeCrossEntropy(), torch.optim.Adam(network.parameters(), lr=1e-3))
    return trainer, SpikeData(2 * torch.rand(samples, 5), torch.arange(samples) % 3, ("a", "b", "c"))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("inputs", "batch", "torch_threads", "kernel_threads"), [(5, 150, 1, 1), (5, 1500, 1, 2), (20000, 1500, 2, 2)]
)
def test_torch_has_one_thread_for_small_layers_and_the_setting_comes_back(
    inputs, batch, torch_threads, kernel_threads, two_threads
):
    network = Network(LIFLinear(inputs, 120, LIF(2.0)))
    with threads_worth_starting(network, batch) as pace:
        assert torch.get_num_threads() == torch_threads
        with pace.step():
            assert threads_for(work_of(batch, inputs, 120)) == kernel_threads
    assert torch.get_num_threads() == threads_for(MUCH) == 2


@pytest.fixture
def handle():
    """Sets what a signal does in a test. Before, it may be ignored: under nohup, and in the background of a script."""
    before = {}

    def use(number, handler):
        before.setdefault(number, signal.signal(number, handler))

    yield use
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
class TestSignals:
    @pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU"])
    def test_stop_a_training(self, name, handle):
        number = getattr(signal, f"SIG{name}")
        handle(number, signal.SIG_DFL)
        with stop_on_signals() as asked:
            assert not asked()
            signal.raise_signal(number)
            assert asked()
        assert signal.getsignal(number) is signal.SIG_DFL

    @pytest.mark.parametrize("own", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "handled"])
    def test_those_that_mean_something_else_do_not(self, own, handle):
        handle(signal.SIGHUP, own)
        with stop_on_signals() as asked:
            signal.raise_signal(signal.SIGHUP)
            assert not asked()
        assert signal.getsignal(signal.SIGHUP) is own

    def test_a_training_under_nohup_goes_on_when_the_terminal_closes(self, handle):
        trainer, data = small_training(15, 5)
        closes = Callback()
        closes.on_epoch_end = lambda fit, row: signal.raise_signal(signal.SIGHUP)
        for handler, epochs in ((signal.SIG_DFL, 1), (signal.SIG_IGN, 3)):
            handle(signal.SIGHUP, handler)
            with suppress(Interrupted):
                trainer.fit(data, epochs=3, batch_size=5, progress_bar=False, callbacks=[closes])
            assert trainer.members[0].progress.epoch == epochs

    def test_children_that_end_by_it_are_no_error(self, handle):
        """Workers of a torch loader get the signal, too, and torch raises an error where the training is just then."""
        said = []
        handle(signal.SIGCHLD, lambda number, frame: said.append(number))
        handle(signal.SIGTERM, signal.SIG_DFL)
        with stop_on_signals():
            signal.raise_signal(signal.SIGCHLD)
            assert len(said) == 1
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGCHLD)
        assert len(said) == 1
        signal.raise_signal(signal.SIGCHLD)
        assert len(said) == 2


class Machine:
    """A clock that steps move on: by a second on one thread, by half on two if no other program is busy."""

    def __init__(self, most):
        self.now, self.busy = 0.0, False
        self.pace = Pace(most, lambda: self.now)

    def train(self, steps, hiccup=None):
        """Do steps; returns how often each number of threads was used."""
        used = {}
        for k in range(steps):
            with self.pace.step():
                threads = threads_for(MUCH)
                self.now += (20.0 * (threads - 1) if self.busy else 0.0) + 1 / threads + (50.0 if k == hiccup else 0.0)
            used[threads] = used.get(threads, 0) + 1
        return used


@pytest.fixture(autouse=True)
def _no_kernel_keeps_a_number():
    yield
    with threads_worth_starting(Network(), 1):
        pass


def test_steps_of_an_idle_machine_use_all_threads_but_for_a_few_trials():
    assert Machine(2).train(3000)[1] <= 12
    assert Machine(1).train(100) == {1: 100}


def test_where_other_programs_are_busy_one_thread_is_left():
    machine = Machine(2)
    machine.busy = True
    used = machine.train(3000)
    assert used[2] <= 10
    machine.busy = False
    machine.train(8000)
    assert machine.train(1000)[2] > 980


def test_steps_that_become_slow_are_noticed_at_once_but_a_single_one_is_not():
    machine = Machine(2)
    machine.train(100)
    assert machine.train(100, hiccup=50) == {2: 100}
    machine.busy = True
    assert machine.train(30)[2] < 10


def test_of_many_threads_as_many_are_used_as_are_fast():
    machine = Machine(16)
    machine.train(200)
    assert machine.train(100)[16] > 90
    machine.busy = True
    machine.train(100)
    assert machine.train(100)[1] > 90


def test_a_step_that_fails_is_not_measured():
    machine = Machine(2)
    with pytest.raises(RuntimeError, match="stop"), machine.pace.step():
        raise RuntimeError("stop")
    assert machine.train(2) == {2: 1, 1: 1}  # the first one is no part of a trial


def test_weights_have_the_same_bits_for_any_number_of_threads(two_threads):
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        trainer, data = small_training(15000, 120)
        trainer.fit(data, epochs=1, batch_size=1500, progress_bar=False)
        found.append(trainer.network.state_dict())
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items())
