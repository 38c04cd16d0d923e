"""Connections as a list: which input reaches which output, how strongly and how much later."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Float, Int

Matrix = Float[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class Synapses:
    """Connections from ``inputs`` inputs; two of the same pair differ in their delays.

    Args:
        inputs: number of inputs.
        row: output of each connection.
        column: its input.
        weight: its weight.
        delay: its delay.
    """

    inputs: int
    row: Int[np.ndarray, " synapses"]
    column: Int[np.ndarray, " synapses"]
    weight: Float[np.ndarray, " synapses"]
    delay: Float[np.ndarray, " synapses"]

    @classmethod
    def one_to_one(cls, size: int) -> Self:
        """Every input to its own output."""
        every = np.arange(size)
        return cls(size, every, every, np.ones(size), np.zeros(size))

    @classmethod
    def of(cls, weight: Matrix) -> Self:
        """The non-zero weights of a matrix, without delays."""
        row, column = np.nonzero(weight)
        return cls(weight.shape[1], row, column, weight[row, column], np.zeros(len(row)))

    def later(self, delay: Float[np.ndarray, " rows"]) -> Self:
        """The same with a delay behind each output."""
        return replace(self, delay=self.delay + delay[self.row])

    def __add__(self, other: "Synapses") -> Self:
        """Both of them, from the same inputs."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("row", "column", "weight", "delay"))
        return type(self)(self.inputs, *map(np.concatenate, pairs))._summed()

    def through(self, weight: Matrix) -> Self:
        """The same with a matrix behind the outputs."""
        if not self.delay.any():
            dense = np.zeros((weight.shape[1], self.inputs))
            np.add.at(dense, (self.row, self.column), self.weight)
            return type(self).of(weight @ dense)
        by_column, row = np.nonzero(weight.T)
        start = np.searchsorted(by_column, np.arange(weight.shape[1] + 1))
        count = np.diff(start)[self.row]
        each = np.repeat(np.arange(len(self.row)), count)
        within = np.arange(len(each)) - np.repeat(np.cumsum(count) - count, count)
        out = row[start[self.row[each]] + within]
        return replace(
            self,
            row=out,
            column=self.column[each],
            weight=self.weight[each] * weight[out, self.row[each]],
            delay=self.delay[each],
        )._summed()

    def _summed(self) -> Self:
        """Connections of the same pair and delay in one."""
        order = np.lexsort((self.delay, self.column, self.row))
        key = np.stack([self.row[order], self.column[order], self.delay[order]])
        first = np.ones(len(order), dtype=bool)
        first[1:] = (key[:, 1:] != key[:, :-1]).any(axis=0)
        where = np.flatnonzero(first)
        weight = np.add.reduceat(self.weight[order], where) if len(where) else self.weight
        chosen = order[where]
        return replace(self, row=self.row[chosen], column=self.column[chosen], weight=weight, delay=self.delay[chosen])

    def by(self, index: Int[np.ndarray, " synapses"], size: int) -> Float[np.ndarray, " size"] | None:
        """The delay that all connections with the same index share; None where they do not."""
        found = np.zeros(size)
        found[index] = self.delay
        return found if np.array_equal(found[index], self.delay) else None

    def rank(self) -> Int[np.ndarray, " synapses"]:
        """How many connections of the same pair are shorter."""
        order = np.lexsort((self.delay, self.column, self.row))
        pair = np.stack([self.row[order], self.column[order]])
        first = np.ones(len(order), dtype=bool)
        first[1:] = (pair[:, 1:] != pair[:, :-1]).any(axis=0)
        begins = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
        found = np.empty(len(order), dtype=int)
        found[order] = np.arange(len(order)) - begins
        return found
