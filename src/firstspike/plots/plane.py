"""The plane of the Yin-Yang data set: its grid of points, the symbol's outline, and a network's answer on it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from firstspike.data.encoding import latency
from firstspike.layers import Network, Record
from firstspike.training.evaluation import record_in_parts


@dataclass(frozen=True)
class YinYangPlane:
    """How points become spike times, and the resolution of the grid.

    Args:
        early: spike time of value 0.
        late: spike time of value 1.
        r_small: radius of the dots.
        r_big: radius of the symbol, which spans ``[0, 2 r_big]`` in x and y.
        resolution: points along each side of the grid.
    """

    early: float = 0.15
    late: float = 2.0
    r_small: float = 0.1
    r_big: float = 0.5
    resolution: int = 200

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the grid, as ``imshow`` takes it."""
        return 0.0, 2 * self.r_big, 0.0, 2 * self.r_big

    def grid(self) -> Float64[np.ndarray, "2 y x"]:
        """Coordinates x and y of the grid's points, the centres of the image's pixels."""
        side = (np.arange(self.resolution) + 0.5) / self.resolution * 2 * self.r_big
        return np.stack(np.meshgrid(side, side))

    def times(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "points inputs"]:
        """Spike times of the grid's points, ``(resolution**2, 4)``; rows of constant y, from the bottom."""
        x, y = torch.from_numpy(self.grid()).reshape(2, -1)
        return latency(torch.stack([x, y, 1 - x, 1 - y], dim=1), self.early, self.late).to(dtype)

    def record(self, network: Network) -> Record:
        """Spike times of all layers on the grid, each ``(resolution**2, neurons)``."""
        return record_in_parts(network, self.times().to(next(network.parameters(), torch.empty(0))))

    def image(self, values: Tensor) -> Float64[np.ndarray, "y x"]:
        """One value per grid point as an image, y upwards (``origin="lower"``)."""
        return values.detach().cpu().double().reshape(self.resolution, self.resolution).numpy()

    def coordinates(self, times: Float[Tensor, "samples inputs"]) -> Float64[np.ndarray, "samples 2"]:
        """The points ``(x, y)`` that input times encode."""
        return ((times[:, :2].detach().cpu().double() - self.early) / (self.late - self.early)).numpy()

    def outline(self) -> list[Float64[np.ndarray, "points 2"]]:
        """The lines between the classes and around the symbol, each as points ``(x, y)``."""
        big, half = self.r_big, self.r_big / 2

        def arc(centre: float, radius: float, start: float, stop: float) -> Float64[np.ndarray, "points 2"]:
            angle = np.linspace(start, stop, 181) * np.pi
            return np.stack([centre + radius * np.cos(angle), big + radius * np.sin(angle)], axis=1)

        return [
            arc(big, big, 0, 2),
            arc(half, half, 1, 2),  # lower half of the left circle
            arc(3 * half, half, 0, 1),  # upper half of the right one
            arc(half, self.r_small, 0, 2),
            arc(3 * half, self.r_small, 0, 2),
        ]
