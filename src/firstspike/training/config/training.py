"""The ``loss`` and ``training`` sections."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from firstspike.training.config.base import MOST_SEEDS, Count, Fraction, NotNegative, Positive, Section, Seed


class EarlyOutput(Section):
    """Rewards an early spike of the true neuron."""

    kind: Literal["early_output"]
    alpha: NotNegative
    beta: Positive = 1.0


class DelayL2(Section):
    """Keeps delays small."""

    kind: Literal["delay_l2"]
    alpha: NotNegative


class SilentPeak(Section):
    """Raises the membranes of neurons that are silent in more than ``max_silent`` of a batch."""

    kind: Literal["silent_peak"]
    alpha: NotNegative
    max_silent: Fraction = 0.5


Regularizer = Annotated[EarlyOutput | DelayL2 | SilentPeak, Field(discriminator="kind")]


class LossSection(Section):
    """What all losses share."""

    silent_cost: NotNegative = 100.0
    regularizers: tuple[Regularizer, ...] = ()


class CrossEntropy(LossSection):
    """Cross-entropy on first spikes."""

    kind: Literal["cross_entropy"]
    xi: Positive = 0.2


class Mse(LossSection):
    """Fixed target times."""

    kind: Literal["mse"]
    correct: NotNegative
    wrong: NotNegative

    @model_validator(mode="after")
    def _different(self) -> Self:
        if self.correct == self.wrong:
            raise ValueError(f"correct and wrong must differ, got {self.correct} twice")
        return self


class ShiftInvariant(LossSection):
    """Target differences between the true neuron and the others."""

    kind: Literal["shift_invariant"]
    delta: Positive = 0.2


Loss = Annotated[CrossEntropy | Mse | ShiftInvariant, Field(discriminator="kind")]


Decay = Annotated[float, Field(ge=0, lt=1)]


class Adam(Section):
    """Adam."""

    kind: Literal["adam"] = "adam"
    lr: Positive = 0.005
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


class Sgd(Section):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"]
    lr: Positive
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: NotNegative = 0.0

    @model_validator(mode="after")
    def _accelerated(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


Optimizer = Annotated[Adam | Sgd, Field(discriminator="kind")]


class Step(Section):
    """Multiplies learning rates by ``gamma`` every ``step_size`` epochs."""

    kind: Literal["step"]
    step_size: Count
    gamma: Positive


class MultiStep(Section):
    """Multiplies learning rates by ``gamma`` at the given epochs."""

    kind: Literal["multi_step"]
    milestones: list[Count]
    gamma: Positive = 0.1


class Exponential(Section):
    """Multiplies learning rates by ``gamma`` every epoch."""

    kind: Literal["exponential"]
    gamma: Positive


class Cosine(Section):
    """Learning rates along half a cosine down to ``final`` times their start, over all epochs."""

    kind: Literal["cosine"]
    final: Fraction = 0.0


Schedule = Annotated[Step | MultiStep | Exponential | Cosine, Field(discriminator="kind")]


class Silent(Section):
    """What happens when too many neurons are silent: ``bump`` is added to their weights.

    ``targeted``: only to the silent neurons, else to the whole layer. ``exponential``: doubles while it repeats.
    ``instead``: such a batch makes no gradient step, as in the papers; else it makes one as well.
    """

    bump: Positive = 0.0005
    targeted: bool = True
    exponential: bool = True
    instead: bool = True


class Augment(Section):
    """How training samples vary from epoch to epoch, beside ``time_noise``.

    ``flip``: left and right change places in half of the images. ``shift``: images move by up to so many pixels in each
    direction. ``drop``: fraction of inputs that are silenced.
    """

    flip: bool = False
    shift: Annotated[int, Field(ge=0, le=1000)] = 0
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Training(Section):
    """How the network learns.

    ``max_weight_grad``: bound on the weight gradient of one sample and neuron, see ``first_spike_time``.
    ``time_noise``: standard deviation of Gaussian noise on the training inputs, in the unit of the times.
    ``checkpoint_every``: epochs between checkpoints; by default about twenty over the run.
    ``seeds``: so many networks, with the seeds from ``seed`` on, are trained side by side.
    """

    epochs: Count
    batch_size: Count
    optimizer: Optimizer = Adam()
    schedule: Schedule | None = None
    max_weight_grad: Positive | None = None
    silent: Silent = Silent()
    time_noise: NotNegative = 0.0
    augment: Augment = Augment()
    checkpoint_every: Count | None = None
    seed: Seed = 0
    seeds: Annotated[int, Field(gt=0, le=MOST_SEEDS)] = 1
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"

    @property
    def save_every(self) -> int:
        """Epochs between checkpoints."""
        return self.checkpoint_every or -(-self.epochs // 20)
