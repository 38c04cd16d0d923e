"""A synthetic event camera: the events of a bar that moves or turns."""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float64
from torch import Tensor

from firstspike.data.base import SpikeData
from firstspike.data.events import event_lists
from firstspike.ranges import NotNegative, Positive, Seed, Size, checks_ranges

_NAMES = {"bars": ("right", "up", "left", "down"), "rotations": ("clockwise", "counterclockwise")}
_FRAMES = 200
_LEVELS = (0.25, 0.75)  # of the brightness, at which a pixel sends an event


@checks_ranges
def camera(
    motion: Literal["bars", "rotations"] = "bars",
    size: Annotated[int, Ge(4), Le(1000)] = 16,
    samples: Size = 300,
    seed: Seed = 42,
    duration: Positive = 10.0,
    noise: NotNegative = 0.5,
    dtype: torch.dtype = torch.float32,
) -> SpikeData:
    """Events of a bright bar in front of a synthetic event camera. The class is its direction.

    A bar appears, moves, and vanishes again. A pixel sends an event of polarity 1 ("on") when its brightness rises
    through a quarter or three quarters of that of the bar, and one of polarity 0 ("off") when it falls. Where the bar
    is, how large and how fast, is drawn at random. Numbers of events say next to nothing about the class.

    Args:
        motion: ``"bars"`` move to the right, up, to the left or down, each up to 15 degrees off, anywhere.
            ``"rotations"`` are bars that turn around a place near the centre, clockwise or counterclockwise.
        size: pixels along each side of the sensor.
        samples: number of samples, balanced over the classes.
        seed: of all that is random.
        duration: length of a recording, in units of `tau_syn`, of which the bar moves for 0.6.
        noise: mean number of events of each pixel and polarity that the bar does not cause, at any time.
        dtype: of the times.

    Returns:
        `EventLists` of `2 * size**2` inputs, numbered `(polarity * size + row) * size + column`, and labels
        `(samples,)`; `image` is `(2, size, size)`.
    """
    generator = torch.Generator().manual_seed(seed)
    names = _NAMES[motion]
    labels = torch.randperm(samples, generator=generator) % len(names)
    time = torch.linspace(0, duration, _FRAMES, dtype=torch.float64)
    events = []
    for label in labels.tolist():
        draw = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
        bright = _brightness(motion, label, size, time / duration, draw)
        stray = int(torch.poisson(torch.tensor(2.0 * size**2 * noise), generator=generator))
        when = duration * torch.rand(stray, generator=generator, dtype=torch.float64)
        found = [(when, torch.randint(2 * size**2, (stray,), generator=generator))]
        for level in _LEVELS:
            above = bright > level
            row, frame = (above[:, 1:] != above[:, :-1]).nonzero().unbind(1)
            before, after = bright[row, frame], bright[row, frame + 1]
            when = time[frame] + (level - before) / (after - before) * (time[1] - time[0])
            found.append((when, row + (after > before) * size**2))
        when, pixel = (torch.cat(x) for x in zip(*found, strict=True))
        events.append((when, pixel))
    return SpikeData(event_lists(events, 2 * size**2, dtype), labels, names, (2, size, size))


def _brightness(
    motion: str, label: int, size: int, time: Tensor, draw: list[float]
) -> Float64[Tensor, "pixels frames"]:
    """Brightness of all pixels while time goes from 0 to 1, by seven random numbers."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = (p.reshape(-1, 1) for p in torch.meshgrid(-place, place, indexing="ij"))  # upwards, to the right
    turns = motion == "rotations"
    x, y = (p - size / (2 + 2 * turns) * (r - 0.5) for p, r in ((x, draw[0]), (y, draw[1])))
    width, length = size * (0.1 + 0.1 * draw[2]), size * (0.3 + 0.2 * draw[3]) * (1 + turns)
    moved = (time - 0.1 - 0.2 * draw[4]) / 0.6 - 0.5
    if turns:
        angle, shift = math.pi * ((0.7 + 0.6 * draw[5]) * (2 * label - 1) * moved + 2 * draw[6]), 0 * moved
    else:
        angle, shift = math.pi / 2 * (label + (draw[5] - 0.5) / 3 + 0 * moved), size * (0.4 + 0.3 * draw[6]) * moved
    across, along = x * angle.cos() + y * angle.sin() - shift, y * angle.cos() - x * angle.sin()
    outside = torch.maximum(across.abs() - width / 2, along.abs() - length / 2)
    return (0.5 - outside).clamp(0, 1) * (moved.abs() < 0.5)
