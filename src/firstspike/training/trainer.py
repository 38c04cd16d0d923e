"""Training: networks, a loss, optimisers; epochs over data; evaluation. Without files or configs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from firstspike.data import SpikeData
from firstspike.data.arrays import as_tensor
from firstspike.deferred import check_float64, raise_deferred_errors
from firstspike.layers import Network, Record
from firstspike.ranges import Count, InnerFraction, Positive, Seed, check_ranges, reads_plainly
from firstspike.substrates import Exact, Substrate
from firstspike.training.augment import Augment, check_augment
from firstspike.training.averaging import WeightAverage
from firstspike.training.batches import Batches, Loader, in_memory
from firstspike.training.callbacks import Callback, Callbacks, ProgressBar, Stop
from firstspike.training.distributed import joined
from firstspike.training.evaluation import Evaluation, evaluate, record_in_parts
from firstspike.training.fit import Fit, FitOptions, FitResult, to_network
from firstspike.training.loop import run
from firstspike.training.member import Member
from firstspike.training.objective import Loss, Metric, Objective
from firstspike.training.silent import SilentNeurons

if TYPE_CHECKING:
    from firstspike.runs import Run

AugmentRule = Callable[[Tensor, SpikeData, Sequence[torch.Generator]], Tensor]


@reads_plainly
class Trainer:
    """Trains and evaluates networks of spike times.

        net = fs.Network(fs.LIFLinear(13, 40), fs.LIFLinear(40, 3))
        trainer = fs.Trainer(net, fs.losses.TimeCrossEntropy(), torch.optim.Adam(net.parameters(), lr=5e-3))
        run = trainer.fit(train, validation, epochs=100, batch_size=50, folder="runs/wine")
        run.evaluate(test).accuracy

    Times and parameters stay on the device and in the type that the network has. Everything random in an epoch follows
    from the seed and the number of the epoch, so that a resumed training continues bit for bit.

    Args:
        network: any module from spike times to spike times or values. Silent neurons, substrates and records of
            every layer need a ``Network``, in which modules of values may follow a readout. Several networks, a list,
            are trained in parallel on different seeds.
        loss: ``loss(times, labels)`` -> mean over the samples. A loss without ``predict(times)`` decides by the
            earliest spike, or by the largest value: of a module that ends in a readout, in a layer of torch's, or has
            ``gives = "values"``, and of others if it is torch's ``CrossEntropyLoss``.
        optimizer: of the network's parameters; with several networks a list.
        schedule: steps once an epoch, see ``schedule_by``; with several networks a list. ``ReduceLROnPlateau`` follows
            the validation loss, with ``mode="max"`` accuracy or ``r2``; without validation data the training loss.
        regularizers: terms ``regularizer(times, labels, network, record)`` that are added to the loss.
        silent: behaviour if too many neurons are silent. By default their weights are raised. With
            ``SilentNeurons(limits=1)`` nothing happens.
        substrate: the source of spike times; by default the exact equations. With several networks it may be a list.
        augment: how training samples vary, ``augment(times, data, generators)``. See ``Augment``.
        clip_grad_norm: largest norm of a network's gradient. Larger ones are scaled down to it.
        accumulate: batches that share an optimiser step, with the mean gradient over their samples, as of one large
            batch. The last step of an epoch takes what is left. Several networks are then trained one after another.
        schedule_by: ``"batch"`` lets the schedule step with each optimiser step, which its numbers then count.
        weight_average: decay per optimiser step, such as 0.999, of a moving average of the weights. Evaluations,
            checkpoints and results then use the average. The optimiser continues from the trained weights, which a
            network keeps after ``fit``. See ``averaged``.
        compile: run each batch as a program of ``torch.compile``. Its first batch takes seconds to compile, after that
            steps of small networks take about a quarter less time. Results agree up to rounding, which grows from epoch
            to epoch, most in recurrent networks; much less in float64. ``nn.Dropout`` draws other numbers. A process
            compiles eight programs, for other networks or sizes of batches, then warns and compiles no more. Networks
            that are trained in parallel and trainings in several processes ignore it.
        metrics: further numbers of each evaluation, ``metric(output, labels)`` by name: columns ``validation_NAME``,
            ``Evaluation.metrics``.

    Raises:
        ValueError: lists of different lengths, settings that do not fit the network, or an optimiser that has none of
            its parameters.
    """

    def __init__(
        self,
        network: nn.Module | Sequence[nn.Module],
        loss: Loss,
        optimizer: optim.Optimizer | Sequence[optim.Optimizer],
        *,
        schedule: LRScheduler | Sequence[LRScheduler | None] | None = None,
        regularizers: Sequence[Callable[..., Tensor]] = (),
        silent: SilentNeurons | None = None,
        substrate: Substrate | Sequence[Substrate] | None = None,
        augment: AugmentRule | None = None,
        clip_grad_norm: Positive | None = None,
        accumulate: Count = 1,
        schedule_by: Literal["epoch", "batch"] = "epoch",
        weight_average: InnerFraction | None = None,
        compile: bool = False,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        check_ranges(Trainer.__init__, {"accumulate": accumulate, "schedule_by": schedule_by})
        networks = [network] if isinstance(network, nn.Module) else list(network)
        if not networks:
            raise ValueError("Trainer needs at least one network")
        if callable(regularizers):
            raise ValueError(f"regularizers must be in a list: write regularizers=[{type(regularizers).__name__}(...)]")
        self.objective = Objective(loss, tuple(regularizers), dict(metrics or {}))
        self.objective.check(networks[0])
        silent = SilentNeurons() if silent is None else silent
        if not isinstance(silent, SilentNeurons):
            raise TypeError(
                f"silent: expected fs.SilentNeurons(...), got {silent!r}; fs.SilentNeurons(limits=1) is off"
            )
        limits = silent.limits_of(networks[0])
        if min(limits, default=1.0) < 1 and not all(isinstance(each, Network) for each in networks):
            raise ValueError("SilentNeurons needs an fs.Network, got another kind of module")
        if silent.limits is None:  # those that follow from the network belong to the record of a training
            silent = replace(silent, limits=limits)
        self.members = [
            Member(*parts)
            for parts in zip(
                networks,
                _one_each("optimizer", optimizer, len(networks)),
                _one_each("schedule", schedule, len(networks)),
                [silent, *(deepcopy(silent) for _ in networks[1:])],
                _one_each("substrate", substrate or Exact(), len(networks), shared=True),
                [None if weight_average is None else WeightAverage(x, weight_average) for x in networks],
                strict=True,
            )
        ]
        self.augment = augment
        self.clip_grad_norm = clip_grad_norm
        self.accumulate, self.schedule_by = accumulate, schedule_by
        if schedule_by == "batch" and any(isinstance(x.schedule, ReduceLROnPlateau) for x in self.members):
            raise ValueError("ReduceLROnPlateau follows the numbers of an epoch: leave out schedule_by='batch'")
        self.weight_average = weight_average
        self.compile = compile
        check_float64(self.device)

    def __repr__(self) -> str:
        several = f"{len(self.members)} networks" if len(self.members) > 1 else self.network._get_name()
        return f"Trainer({several}, {self.objective.loss}, {type(self.members[0].optimizer).__name__})"

    @property
    def network(self) -> nn.Module:
        """The (first) network."""
        return self.members[0].network

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @overload
    def fit(
        self,
        train: SpikeData | Loader,
        validation: SpikeData | Loader | None = ...,
        *,
        folder: None = ...,
        **options: Unpack[FitOptions],
    ) -> FitResult: ...

    @overload
    def fit(
        self,
        train: SpikeData | Loader,
        validation: SpikeData | Loader | None = ...,
        *,
        folder: Path | str,
        **options: Unpack[FitOptions],
    ) -> "Run": ...

    @reads_plainly
    def fit(
        self,
        train: SpikeData | Loader,
        validation: SpikeData | Loader | None = None,
        *,
        epochs: Count,
        batch_size: Count = 50,
        seed: Seed = 0,
        test: SpikeData | Loader | None = None,
        folder: Path | str | None = None,
        resume: bool = False,
        checkpoint_every: Count | None = None,
        callbacks: Sequence[Callback] = (),
        progress_bar: bool = True,
        stop: Stop = lambda: False,
    ) -> "FitResult | Run":
        """Train up to a total number of epochs, then evaluate.

        Ctrl-C, SIGTERM, and signals of closed terminals (SIGHUP) and batch systems (SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU)
        that nothing else handles stop the training after the current batch. With a run folder its state is saved first.

        Args:
            train: training data; or a ``DataLoader``, or any iterable of batches ``(times, labels)`` that starts again
                every epoch, for data that do not fit into memory. A training on a ``DataLoader`` over data with an
                index resumes bit for bit if data and samplers draw from the global random numbers of torch, NumPy and
                Python, or from a sampler's ``generator``. For others, a warning notes that this depends on them.
            validation: evaluated after every epoch. The best network is the one with the highest accuracy on it. A
                loader is read once, into memory, as that of ``test`` is.
            epochs: total number of epochs, those of earlier calls included. If they are all done, there is a warning.
            batch_size: samples per gradient step. A loader has its own.
            seed: seed of the order of the samples and of all noise. Several networks have consecutive seeds, from this
                one on.
            test: evaluated once, at the end.
            folder: a run folder to write: metrics, checkpoints, results, figures. See ``fs.Run``.
            resume: continue the training in ``folder`` from its newest checkpoint, if there is one, on its seed.
            checkpoint_every: epochs between checkpoints in the run folder; by default about twenty over the training.
            callbacks: additional receivers of the events of the training.
            progress_bar: whether to show one.
            stop: polled before every batch. Return True to save and stop.

        Returns:
            Metrics and the last evaluations; with a folder the run, which has them by the same names.

        Raises:
            FileExistsError: the folder is not empty, and ``resume`` is not set.
            TypeError: data that are not ``SpikeData``.
            ValueError: a number out of its range, data that do not fit the network, or fewer epochs than are done.
            SubstrateError: the substrate cannot be reached or does not answer. The last whole epoch is saved.
            DivergedError: weights that are not finite any more. The last whole epoch is saved.
            RunLockedError: another process trains the run in ``folder``.
            ProcessLostError: another process of the training has ended.
            Interrupted: one of these signals, or ``stop``.
        """
        check_ranges(Trainer.fit, {"epochs": epochs, "batch_size": batch_size, "seed": seed})
        if validation is not None:
            validation = in_memory(validation, train)
        test = test if test is None else in_memory(test, validation or train)
        if resume and folder is None:
            raise ValueError("resume=True needs the folder of the run")
        callbacks, written = list(callbacks), None
        if folder is not None:  # one more callback
            from firstspike.runs import Run
            from firstspike.runs.writer import RunWriter

            writer = RunWriter(Path(folder), resume=resume, checkpoint_every=checkpoint_every)
            callbacks, written = [*callbacks, writer], partial(Run.written, writer)
        with joined(self.members, self.device) as ranks, ExitStack() as stack:
            if ranks.first and progress_bar:
                callbacks.append(ProgressBar())
            # essential callbacks come first: the others may rely on the folder that the writer makes
            chosen = sorted((c for c in callbacks if ranks.first or c.essential), key=lambda c: not c.essential)
            batches = Batches(train, batch_size, self.network, validation)
            if isinstance(self.augment, Augment):
                check_augment(self.augment, batches.data)
            if batches.loader is not None and len(self.members) * ranks.size > 1:
                raise ValueError("a loader trains one network in one process; others need SpikeData")
            fit = Fit(
                trainer=self,
                callbacks=Callbacks(chosen),
                source=batches,
                validation=to_network(validation, self.network) if validation else None,
                test=to_network(test, self.network) if test else None,
                epochs=epochs,
                seeds=tuple(seed + k for k in range(len(self.members))),
                first=ranks.first,
            )
            for substrate, network in {id(m.substrate): (m.substrate, m.network) for m in self.members}.values():
                stack.enter_context(_opened(substrate, network))
            stack.callback(fit.callbacks.close)
            result = run(fit, ranks, stop, stack)
        return result if written is None else written(result)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, with ``weight_average``, the networks have the averages as their weights, to be used or saved."""
        with ExitStack() as stack:
            for member in self.members:
                if member.average is not None:
                    own = member.average.swapped(member.average.averages)
                    stack.callback(member.average.swapped, own)
            yield

    def evaluate(self, data: SpikeData | Loader) -> Evaluation:
        """Loss, accuracy, decisions and output times of the (first) network on labelled data, or on a loader's batches.

        Raises:
            TypeError: data that are not ``SpikeData``.
            ValueError: data that do not fit the network.
            SubstrateError: the substrate cannot be reached or does not answer.
        """
        member = self.members[0]
        data = to_network(in_memory(data), member.network)
        with self.averaged(), _opened(member.substrate, member.network):
            return evaluate(member.network, self.objective, data, member.substrate)

    @torch.no_grad()
    def record(self, times: Float[Tensor, "samples inputs"] | SpikeData | DataLoader) -> Record:
        """Spike times of every layer of the (first) network, on its substrate; see ``Network.record``. Also of data."""
        if isinstance(times, SpikeData | DataLoader):
            times = in_memory(times).dense
        member, times = self.members[0], as_tensor("times", times)
        parameter = next(member.network.parameters(), times)
        with self.averaged(), _opened(member.substrate, member.network):
            found = record_in_parts(member.network, times.to(parameter.device, parameter.dtype), member.substrate)
        raise_deferred_errors()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the training needs to continue bit for bit: weights, optimisers, schedules, progress."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state: dict[str, Any], allow_other_chip: bool = False) -> None:
        """Restore a saved state.

        Raises:
            ValueError: a state of another number of networks, or one that does not fit them; one of another chip,
                unless ``allow_other_chip`` is set.
        """
        found = state["members"]
        if len(found) != len(self.members):
            raise ValueError(f"expected the state of {len(self.members)} networks, got {len(found)}")
        for member, saved in zip(self.members, found, strict=True):
            member.load_state_dict(saved, allow_other_chip, str(saved.get("where", "state")))


def _opened(substrate: Substrate, network: nn.Module) -> AbstractContextManager[Any]:
    """The substrate, open for a network. Other modules run on the exact equations."""
    return substrate.open(network) if isinstance(network, Network) else nullcontext()


def _one_each(name: str, given: Any, count: int, shared: bool = False) -> list[Any]:
    """One object for each network."""
    if isinstance(given, list | tuple):
        if len(given) != count:
            raise ValueError(f"{name}: expected one for each of {count} networks, got {len(given)}")
        return list(given)
    if count > 1 and given is not None and not shared:
        raise ValueError(f"{name}: expected a list, one for each of {count} networks")
    return [given] * count
