"""Spike patterns: tell apart a few given patterns of spike times, from jittered copies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from firstspike.data.base import MOST_INPUTS, SpikeData, balanced_labels, check_at_least, seeded_generator
from firstspike.data.encoding import latency
from firstspike.data.splits import independent_splits
from firstspike.ranges import Finite, NotNegative, Seed, Size


def pattern(
    samples: Size = 300,
    seed: Seed = 42,
    patterns: Sequence[Sequence[float]] | None = None,
    classes: Size = 3,
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
        inputs: number of inputs of a random pattern; each spikes once.
        pattern_seed: seed of the random patterns.
        jitter: standard deviation of Gaussian noise on each spike time, in units of `tau_syn`;
            times never fall below 0, and an input that does not spike in a pattern never does.
        early: earliest spike time of a random pattern.
        late: latest spike time of a random pattern.
        dtype: of the times.

    Returns:
        Times `(samples, inputs)` and labels `(samples,)`; classes are named `pattern 0`, `pattern 1`, ...

    Raises:
        ValueError: a number below its minimum, `patterns` that are not a table of times of at least 0,
            a window that violates `0 <= early < late`.
    """
    check_at_least("jitter", jitter, 0)
    if patterns is None:
        prototypes = _random_patterns(classes, inputs, pattern_seed, early, late)
    else:
        prototypes = torch.as_tensor(patterns, dtype=torch.float64, device="cpu")
        if prototypes.ndim != 2 or not prototypes.shape[1] or not bool((prototypes >= 0).all()):
            raise ValueError(
                f"patterns: expected times >= 0 of shape (classes, inputs), got shape {tuple(prototypes.shape)}, "
                "or a negative or NaN time. Write inf where an input does not spike."
            )
    generator = seeded_generator(seed)
    labels = balanced_labels(samples, len(prototypes), generator)
    times = prototypes[labels]
    times = (times + jitter * torch.randn(times.shape, generator=generator, dtype=torch.float64)).clamp(min=0)
    return SpikeData(times.to(dtype), labels, tuple(f"pattern {k}" for k in range(len(prototypes))))


pattern_splits = independent_splits(pattern, train=300, validation=90, test=90)


def _random_patterns(
    classes: int, inputs: int, seed: int, early: float, late: float
) -> Float64[Tensor, "classes inputs"]:
    check_at_least("classes", classes, 2)
    check_at_least("inputs", inputs, 1)
    if classes * inputs > MOST_INPUTS:
        raise ValueError(
            f"classes, inputs: expected at most {MOST_INPUTS} spikes in all patterns, got {classes * inputs}"
        )
    uniform = torch.rand((classes, inputs), generator=seeded_generator(seed), dtype=torch.float64)
    return latency(uniform, early, late)
