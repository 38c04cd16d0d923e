"""The ``substrate`` section: what yields the spike times. Fields are the arguments of the class in ``SUBSTRATES``."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from firstspike.training.config.base import Finite, NotNegative, Positive, Section, Seed, Size


class Exact(Section):
    """The operator itself."""

    kind: Literal["exact"] = "exact"


class Integrator(Section):
    """A simulation in time steps up to a duration, both in the unit of the times."""

    kind: Literal["integrator"]
    step: Positive = 0.01
    duration: Positive = 20.0

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.step > self.duration:
            raise ValueError(f"step must not be longer than duration, got {self.step} and {self.duration}")
        if self.duration > 10**6 * self.step:
            raise ValueError(f"duration must be at most a million steps, got {self.duration} in steps of {self.step}")
        return self


Probability = Annotated[float, Field(ge=0, lt=1)]


TYPICAL_NOISE = {"threshold_spread": 0.03, "threshold_batch_noise": 0.015, "spike_jitter": 0.01, "delay_jitter": 0.01}


class Noisy(Section):
    """Exact spike times with imperfect thresholds, weights, delays and spikes; see `Noisy` in the API.

    ``threshold_...``: in the unit of the threshold; offset and spread are a fixed pattern over the neurons, noise is
    drawn anew in each batch or sample. ``..._jitter``: in the unit of the times. All of these are standard deviations,
    but the offset. ``weight_scale: 30`` rounds weights to 1/30. ``seed`` is by default the training's.

    If no imperfection is given (``kind: noisy`` alone, or ``--substrate noisy``), the noise is typical of a device:
    ``threshold_spread: 0.03``, ``threshold_batch_noise: 0.015``, ``spike_jitter: 0.01``, ``delay_jitter: 0.01``. If one
    is given, the others have the defaults of the table; ``threshold_spread: 0`` alone is an ideal device.
    """

    kind: Literal["noisy"]
    threshold_offset: Finite = 0.0
    threshold_spread: NotNegative = 0.0
    threshold_batch_noise: NotNegative = 0.0
    threshold_sample_noise: NotNegative = 0.0
    input_jitter: NotNegative = 0.0
    spike_jitter: NotNegative = 0.0
    delay_jitter: NotNegative = 0.0
    spike_loss: Probability = 0.0
    weight_scale: Positive | None = None
    weight_max: Positive | None = None
    seed: Seed | None = None

    @model_validator(mode="before")
    @classmethod
    def _never_without_noise_unasked(cls, raw: Any) -> Any:
        return {**TYPICAL_NOISE, **raw} if isinstance(raw, dict) and not raw.keys() - {"kind", "seed"} else raw


class MockBss2(Section):
    """An emulated BrainScaleS-2; see `MockBss2` in the API.

    ``chip`` is its number and makes its fixed pattern. ``..._us`` are microseconds, ``threshold_...`` in the unit of
    the threshold, other ``..._spread`` relative, all other times in units of ``tau_syn``. ``stall`` is the probability
    of a run that has to be repeated, at most ``retries`` times. ``seed`` is by default the training's.
    """

    kind: Literal["mock_bss2"]
    chip: Seed = 1
    tau_us: Positive = 6.0
    weight_scale: Positive = 30.0
    weight_spread: NotNegative = 0.0
    threshold_offset: Finite = 0.13
    threshold_spread: NotNegative = 0.08
    threshold_batch_noise: NotNegative = 0.04
    threshold_sample_noise: NotNegative = 0.0
    tau_spread: NotNegative = 0.0
    spike_jitter: NotNegative = 0.0
    delay_jitter: NotNegative = 0.01
    refractory: Positive = 2.67
    window: Positive = 30.0
    latency_us: NotNegative = 0.08
    spike_loss: Probability = 0.0
    stall: Annotated[float, Field(ge=0, le=1)] = 0.0
    retries: Annotated[int, Field(gt=0, le=1000)] = 5
    seed: Seed | None = None


class Simulator(Section):
    """A simulator through PyNN; the extra of its name installs it.

    ``step`` of the simulation, at least 0.0001, and ``duration``, after which spikes are missed, are in units of
    ``tau_syn``.
    """

    step: Annotated[float, Field(ge=0.0001, le=1)] = 0.01
    duration: Annotated[float, Field(gt=1, le=10**5)] = 100.0


class Nest(Simulator):
    """NEST with precise spike times; see `Nest` in the API.

    ``step`` of the simulation, at least 0.0001, and ``duration``, after which spikes are missed, are in units of
    ``tau_syn``.
    """

    kind: Literal["nest"]


class Neuron(Simulator):
    """NEURON with a fixed step; see `Neuron` in the API.

    ``step`` of the simulation, at least 0.0001, and ``duration``, after which spikes are missed, are in units of
    ``tau_syn``.
    """

    kind: Literal["neuron"]


class Brian2(Simulator):
    """Brian2, the slowest of the simulators; see `Brian2` in the API.

    ``step`` of the simulation, at least 0.0001, and ``duration``, after which spikes are missed, are in units of
    ``tau_syn``.
    """

    kind: Literal["brian2"]


class BrainScaleS2(Section):
    """BrainScaleS-2, the chip, through `pynn_brainscales`; see `BrainScaleS2` in the API.

    ``calibration`` is a file, in whose name `{chip}` is the chip's, or `nightly`. ``settings`` is a YAML file with
    sections by chip and one called `default`, whose values go before those here. ``window`` is in units of
    ``tau_syn``, ``..._us`` are microseconds. A run is tried at most ``retries`` times.
    """

    kind: Literal["brainscales2"]
    calibration: str = "calibrations/{chip}.pbin"
    settings: str | None = None
    tau_us: Positive = 6.0
    weight_scale: Positive = 30.0
    window: Positive = 30.0
    latency_us: NotNegative = 0.08
    largest_batch: Size = 200
    retries: Annotated[int, Field(gt=0, le=1000)] = 5


Substrate = Annotated[
    Exact | Integrator | Noisy | MockBss2 | BrainScaleS2 | Nest | Neuron | Brian2,
    Field(discriminator="kind"),
]
