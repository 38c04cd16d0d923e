"""Connections as a list: which input reaches which output, how strongly and how much later."""

from dataclasses import dataclass, replace
from typing import Any, Self

import nir
import numpy as np
import torch
from jaxtyping import Float, Int

Matrix = Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Synapses:
    """Connections from ``inputs`` inputs, ``column``, to outputs, ``row``: sorted by these and by delay, each once."""

    inputs: int
    row: Int[np.ndarray, " synapses"]
    column: Int[np.ndarray, " synapses"]
    weight: Float[np.ndarray, " synapses"]
    delay: Float[np.ndarray, " synapses"]

    @classmethod
    def one_to_one(cls, size: int, first: int = 0) -> Self:
        """Every input to its own output, from the output ``first`` on."""
        return cls(size, first + np.arange(size), np.arange(size), np.ones(size), np.zeros(size))

    @classmethod
    def summed(cls, inputs: int, row: np.ndarray, column: np.ndarray, weight: np.ndarray, delay: np.ndarray) -> Self:
        """Connections in any order. The weights of equal ones are added."""
        order = np.lexsort((delay, column, row))
        row, column, delay = row[order], column[order], delay[order]
        start = np.flatnonzero(_first(row, column, delay))
        weight = np.add.reduceat(weight[order], start) if len(start) else weight
        return cls(inputs, row[start], column[start], weight, delay[start])

    def __add__(self, other: Self) -> Self:
        """The sum of two sets of connections from the same inputs."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("row", "column", "weight", "delay"))
        return self.summed(self.inputs, *map(np.concatenate, pairs))

    def through(self, weight: Matrix) -> Self:
        """The connections to the outputs of a matrix that follows."""
        if not self.delay.any():  # not one entry for each path: of two dense matrices there are very many
            dense = np.zeros((weight.shape[1], self.inputs))
            dense[self.row, self.column] = self.weight
            total = weight @ dense
            row, column = np.nonzero(total)
            return type(self)(self.inputs, row, column, total[row, column], np.zeros(len(row)))
        middle, row = np.nonzero(weight.T)
        start = np.searchsorted(middle, np.arange(weight.shape[1] + 1))
        count = np.diff(start)[self.row]
        each = np.repeat(np.arange(len(self.row)), count)  # every connection once for each weight that follows it
        out = row[start[self.row[each]] + np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)]
        return self.summed(
            self.inputs, out, self.column[each], self.weight[each] * weight[out, self.row[each]], self.delay[each]
        )

    def common_delay(self, index: Int[np.ndarray, " synapses"], size: int) -> Float[np.ndarray, " size"] | None:
        """The delay that all connections with the same index share; None if they do not."""
        found = np.zeros(size)
        found[index] = self.delay
        return found if np.array_equal(found[index], self.delay) else None

    def apart(self) -> tuple[Self, int]:
        """Connections of which each of a pair has its own copy of the input, and the number of copies of an input."""
        every = np.arange(len(self.row))
        rank = every - np.maximum.accumulate(np.where(_first(self.row, self.column), every, 0))
        copies = int(rank.max()) + 1
        return replace(self, inputs=self.inputs * copies, column=self.column * copies + rank), copies


def after(name: str, node: Any, before: Synapses, time_unit: float) -> Synapses:
    """A signal after a node that does not spike itself. Delays are in the network's unit of time."""
    match node:
        case nir.Linear() | nir.Affine():
            weight = finite(name, node.weight)
            if weight.ndim != 2:
                raise ValueError(f"{name}: expected a matrix of weights, got the shape {weight.shape}")
            if isinstance(node, nir.Affine) and np.any(node.bias):
                raise ValueError(f"{name}: an Affine with a bias is a constant current, which has no counterpart here")
            return before.through(weight)
        case nir.Scale():
            return replace(before, weight=before.weight * finite(name, node.scale)[before.row])
        case nir.Delay():
            delay = finite(name, node.delay)
            if (delay < 0).any():
                raise ValueError(f"{name}: delays must be >= 0, got {delay.min()}")
            return replace(before, delay=before.delay + (delay / time_unit)[before.row])
    raise ValueError(f"{name}: a {type(node).__name__} has no counterpart here")


def numbers(name: str, values: Any) -> np.ndarray:
    """Values of a node as real numbers."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {found.dtype}")
    return found.astype(np.float64)


def finite(name: str, values: Any, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Values of a node as numbers that are finite in the dtype."""
    found = numbers(name, values)
    if not (np.abs(found) <= torch.finfo(dtype).max).all():
        raise ValueError(f"{name} has values that are not finite in {dtype}")
    return found


def _first(*keys: np.ndarray) -> np.ndarray:
    """Whether each entry of sorted keys differs from the one before it."""
    table = np.stack(keys)
    return np.append(np.ones(min(1, table.shape[1]), dtype=bool), (table[:, 1:] != table[:, :-1]).any(axis=0))
