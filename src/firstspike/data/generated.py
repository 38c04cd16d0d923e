"""Small tasks that are drawn at random: bars, XOR, delayed XOR and spike patterns; Poisson spike trains."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from firstspike.data.base import SpikeData
from firstspike.data.encoding import check_window, latency
from firstspike.layers.inputs import poisson_trains
from firstspike.layers.trains import Noise
from firstspike.layers.windows import columns_within
from firstspike.ranges import Finite, NotNegative, Positive, Seed, Size, checks_ranges
from firstspike.signature import takes_arguments_of

_DIRECTIONS = ("horizontal", "vertical", "diagonal")
_EQUALITY = ("equal", "different")
_MOST_SPIKES = 10**6  # in all patterns


@checks_ranges
def bars(
    size: Annotated[int, Ge(2), Le(200)] = 3,
    samples: Size = 300,
    noise: NotNegative = 0.0,
    seed: Seed = 42,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    silent_background: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Square images with one dark bar, whose pixels spike early. The class is the bar's direction.

    The data set of Göltz et al., Nat. Mach. Intell. 3, 823 (2021), at any size. A class has `size`
    horizontal or vertical bars, or the two diagonals. Classes are balanced. The bar is drawn at random.

    Args:
        size: side of the image, at least 2.
        samples: number of samples.
        noise: standard deviation of Gaussian noise on the pixel values (bar 1, background 0), which are
            then clipped to [0, 1].
        seed: of the order, the choice of bars and the noise.
        early: spike time of a dark pixel, in units of `tau_syn`.
        late: spike time of the background.
        silent_background: background pixels (after noise: those of value 0) never spike: `inf`.
        dtype: of the times.

    Returns:
        Times `(samples, size**2)`, pixels row by row, and labels `(samples,)`.

    Raises:
        ValueError: a size, number or noise below its minimum, a window that violates `0 <= early < late`.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = _balanced_labels(samples, len(_DIRECTIONS), generator)
    bars_of_class = torch.tensor([size, size, 2])
    first_of_class = torch.tensor([0, size, 2 * size])
    draw = torch.rand(samples, generator=generator, dtype=torch.float64)
    chosen = first_of_class[labels] + (draw * bars_of_class[labels]).long()
    eye = torch.eye(size, dtype=torch.float64)
    horizontal = eye[:, :, None].expand(size, size, size)
    vertical = eye[:, None, :].expand(size, size, size)
    pixels = torch.cat([horizontal, vertical, torch.stack([eye, eye.flip(1)])])[chosen].flatten(1)
    pixels = _shifted(pixels, noise, generator).clamp(max=1)
    times = latency(pixels, early, late, invert=True, silent_background=silent_background)
    blank = (math.inf if silent_background else late,)
    return SpikeData(times.to(dtype), labels, _DIRECTIONS, (1, size, size), blank)


@checks_ranges
def xor(
    samples: Size = 200,
    seed: Seed = 42,
    noise: NotNegative = 0.0,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Two inputs, each early or late: do they spike together?

    Both early and both late differ only by a shift in time, which a network sees only against a bias spike.

    Args:
        samples: number of samples. The four combinations are balanced.
        seed: of their order and of the noise.
        noise: standard deviation of Gaussian noise on the spike times, in units of `tau_syn`. Times never fall below 0.
        early: spike time of logical 0, in units of `tau_syn`.
        late: spike time of logical 1.
        dtype: of the times.
    """
    generator = torch.Generator().manual_seed(seed)
    bits = _bits(samples, generator)
    times = _shifted(latency(bits.double(), early, late), noise, generator)
    return SpikeData(times.to(dtype), (bits[:, 0] != bits[:, 1]).long(), _EQUALITY)


@takes_arguments_of(xor)
@checks_ranges
def delayed_xor(
    samples: Size = 200,
    seed: Seed = 42,
    noise: NotNegative = 0.0,
    early: NotNegative = 0.15,
    late: Finite = 6.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Two cues, one after the other, each on one of two inputs: were both on the same one?

    Both inputs spike at the start. The first cue, halfway, and the second one, at the end, are each a spike of input 0
    or of input 1. First spikes are the same in all samples: from these alone no network can do better than guessing.
    With all spikes it has to remember the first cue until the second one comes.

    Args:
        early: time of the start, in units of `tau_syn`.
        late: time of the second cue.
    """
    check_window(early, late)
    generator = torch.Generator().manual_seed(seed)
    cues = _bits(samples, generator)
    times = torch.full((samples, 2, 3), math.inf, dtype=torch.float64)
    times[..., 0] = early
    for place, time in enumerate(((early + late) / 2, late)):
        times[torch.arange(samples), cues[:, place], 1 + place] = time
    times = _shifted(times, noise, generator)
    return SpikeData(times.sort(dim=-1).values.to(dtype), (cues[:, 0] != cues[:, 1]).long(), _EQUALITY)


@checks_ranges
def pattern(
    samples: Size = 300,
    seed: Seed = 42,
    patterns: Sequence[Sequence[float]] | None = None,
    classes: Annotated[int, Ge(2), Le(10**6)] = 3,
    inputs: Size = 10,
    pattern_seed: Seed = 0,
    jitter: NotNegative = 0.0,
    early: NotNegative = 0.15,
    late: Finite = 2.0,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Jittered copies of one spike pattern per class.

    The patterns are either given or drawn uniformly between `early` and `late`.

    Args:
        samples: number of samples, balanced over the classes.
        seed: of their order and of the jitter. Splits differ in it and share the patterns.
        patterns: spike times `(classes, inputs)`, lists or a tensor, in units of `tau_syn`, `inf` = no spike. If
            given, `classes`, `inputs`, `pattern_seed`, `early` and `late` are not used.
        classes: number of random patterns, at least 2.
        inputs: number of inputs of a random pattern. Each spikes once.
        pattern_seed: seed of the random patterns.
        jitter: standard deviation of Gaussian noise on each spike time, in units of `tau_syn`.
            Times never fall below 0, and an input that does not spike in a pattern never does.
        early: earliest spike time of a random pattern.
        late: latest spike time of a random pattern.
        dtype: of the times.
    """
    if patterns is None:
        if classes * inputs > _MOST_SPIKES:
            raise ValueError(
                f"classes, inputs: expected at most {_MOST_SPIKES} spikes in all patterns, got {classes * inputs}"
            )
        of_patterns = torch.Generator().manual_seed(pattern_seed)
        prototypes = latency(torch.rand((classes, inputs), generator=of_patterns, dtype=torch.float64), early, late)
    else:
        prototypes = torch.as_tensor(patterns, dtype=torch.float64, device="cpu")
        if prototypes.ndim != 2 or not prototypes.shape[1] or not bool((prototypes >= 0).all()):
            raise ValueError(
                f"patterns: expected times >= 0 of shape (classes, inputs), got shape {tuple(prototypes.shape)}, "
                "or a negative or NaN time. Write inf for an input that does not spike."
            )
    generator = torch.Generator().manual_seed(seed)
    labels = _balanced_labels(samples, len(prototypes), generator)
    times = _shifted(prototypes[labels], jitter, generator)
    return SpikeData(times.to(dtype), labels, tuple(f"pattern {k}" for k in range(len(prototypes))))


@checks_ranges
def poisson(
    rate: NotNegative | Sequence[float] | Tensor,
    duration: Positive,
    inputs: Size,
    samples: Size = 1,
    seed: Seed | torch.Generator = 42,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "samples inputs spikes"]:
    """Poisson spike trains from time 0 to the duration, exact, sorted and padded with `inf`.

    Args:
        rate: spikes per unit of time, a number or one for each input; with times in ms, a rate in Hz divided by 1000.
        duration: when they end.
        inputs: number of trains in a sample.
        samples: number of samples.
        seed: seed of all trains, or a generator, which continues.
        dtype: of the times.

    Raises:
        ValueError: a value out of its range, another number of rates than inputs, more spikes than fit.
    """
    rates = torch.as_tensor(rate, dtype=torch.float64, device="cpu")
    if rates.shape not in ((), (inputs,)) or not bool((rates.isfinite() & (rates >= 0)).all()):
        raise ValueError(f"rate must be finite and >= 0, a number or one for each of {inputs} inputs, got {rate}")
    source = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    trains = poisson_trains(rates, duration, (samples, inputs), Noise(source))
    return columns_within(trains, -math.inf, math.inf).to(dtype)


def _balanced_labels(samples: int, classes: int, generator: torch.Generator) -> Int64[Tensor, " samples"]:
    """Labels in random order whose class counts differ by at most one."""
    return torch.randperm(samples, generator=generator) % classes


def _bits(samples: int, generator: torch.Generator) -> Int64[Tensor, "samples 2"]:
    """Two bits of each sample, whose four combinations are balanced."""
    combination = _balanced_labels(samples, 4, generator)
    return torch.stack([combination // 2, combination % 2], dim=1)


def _shifted(values: Float64[Tensor, "*shape"], std: float, generator: torch.Generator) -> Float64[Tensor, "*shape"]:
    """Values with Gaussian noise on each. None falls below 0."""
    return (values + std * torch.randn(values.shape, generator=generator, dtype=torch.float64)).clamp(min=0)
