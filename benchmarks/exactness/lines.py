"""The lines of the set: a layer with its inputs, and the answers. Reading and writing need NumPy alone.

A line of JSON is a layer of O neurons that B samples of n inputs reach: B x O problems. ``schema.json`` describes it.
"""

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Nested = Any  # lists of lists of numbers or text
SCALARS = ("tau_mem", "tau_syn", "threshold", "reset", "refractory", "until")
HEXADECIMAL = (*SCALARS, "times", "weights", "delays", "upstream")
"""What is given: doubles, written in hexadecimal, with a decimal copy."""


def nested(function: Any, values: Nested) -> Nested:
    return [nested(function, x) for x in values] if isinstance(values, list | tuple) else function(values)


def read_hex(text: Nested) -> Nested:
    return nested(lambda x: x if x is None else float.fromhex(x), text)


@dataclass
class Layer:
    """What is given, and the answers: decimal text of 50 digits for times, of 25 for all else."""

    id: str
    group: str
    """``random``, ``hard``, ``trains``, ``hard trains`` or ``other neurons``."""
    family: str
    kind: str
    """``first`` or ``train``: what is asked for."""
    tau_mem: float
    times: Array
    weights: Array
    neuron: str = "lif"
    tau_syn: float | list[float] = 1.0
    threshold: float = 1.0
    reset: float = 0.0
    refractory: float = 0.0
    until: float = math.inf
    delays: Array | None = None
    receptor: list[int] | None = None
    """Of each input, which of the time constants in ``tau_syn`` its current has."""
    upstream: list[list[list[float]]] | None = None
    """Of trains, the factors of the spikes in the sum that ``by_weight`` and ``by_time`` are gradients of."""
    spikes: list[list[list[str]]] = field(default_factory=list)
    by_weight: list[list[list[str] | None]] = field(default_factory=list)
    by_time: list[list[list[str] | None]] = field(default_factory=list)
    slope: list[list[str | None]] = field(default_factory=list)
    peak: list[list[str | None]] = field(default_factory=list)
    moves: list[list[float | None]] = field(default_factory=list)
    slope_moves: list[list[float | None]] = field(default_factory=list)
    beyond: list[list[bool]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Samples, neurons, inputs."""
        return len(self.times), *self.weights.shape  # type: ignore[return-value]

    @property
    def problems(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def one_tau_syn(self) -> float:
        assert isinstance(self.tau_syn, float)
        return self.tau_syn

    @property
    def ratio(self) -> float:
        """tau_mem / tau_syn: also the factor from weights to those that add to the current of tau_mem V' = -V + I."""
        return self.tau_mem / self.one_tau_syn

    @property
    def fires(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([[bool(x) for x in row] for row in self.spikes])

    @property
    def counts(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Problems that doubles can tell."""
        return ~np.array(self.beyond)

    def gradients(self, which: str) -> Array:
        """``by_weight`` or ``by_time`` as doubles (B, O, n), 0 of silent neurons."""
        n = self.shape[2]
        rows = getattr(self, which)
        return np.array([[[0.0] * n if x is None else [float(y) for y in x] for x in row] for row in rows])

    def factors(self) -> Array:
        """What first spikes are multiplied by in the sum whose gradient is asked for (B, O): between 0.5 and 1.5."""
        seed = [ord(x) for x in self.id]
        return np.random.default_rng(seed).uniform(0.5, 1.5, self.shape[:2]) * np.where(self.fires, 1.0, 0.0)


def to_json(layer: Layer) -> dict[str, Any]:
    found: dict[str, Any] = {}
    copy: dict[str, Any] = {}
    for part in fields(Layer):
        value = getattr(layer, part.name)
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if value is None or (part.name == "until" and value == math.inf):
            continue
        if part.name in HEXADECIMAL:
            found[part.name] = nested(lambda x: float(x).hex(), value)
            copy[part.name] = nested(lambda x: repr(float(x)), value)
        elif part.name == "spikes":
            found["spikes_hex"] = nested(lambda x: float(Decimal(x)).hex(), value)
            found[part.name] = value
        elif part.name in ("moves", "slope_moves"):
            found[part.name] = nested(lambda x: "inf" if x == math.inf else float(f"{x:.3g}"), value)
        else:
            found[part.name] = value
    return {**found, "decimal": copy}


def from_json(found: Mapping[str, Any]) -> Layer:
    values = {x.name: found[x.name] for x in fields(Layer) if x.name in found}
    values |= {name: read_hex(values[name]) for name in HEXADECIMAL if name in values}
    values |= {name: np.array(values[name]) for name in ("times", "weights", "delays") if name in values}
    values |= {name: nested(float, values[name]) for name in ("moves", "slope_moves")}
    return Layer(**values)


def write(path: Path, layers: Iterable[Layer]) -> None:
    """JSON Lines, compressed if the name ends with .gz: the same bytes each time."""
    text = "".join(json.dumps(to_json(x), separators=(",", ":")) + "\n" for x in layers)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read(path: Path) -> list[Layer]:
    return list(lines(path))


def lines(path: Path) -> Iterator[Layer]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for line in file:
            yield from_json(json.loads(line))


def write_arrays(path: Path, layers: Sequence[Layer]) -> None:
    """NPZ: as doubles, the values of all lines one after the other; ``x_at[k]`` is where those of line k begin in x."""
    arrays: dict[str, Any] = {
        name: np.array([getattr(x, name) for x in layers]) for name in ("id", "group", "family", "kind", "neuron")
    }
    numbers = ("tau_mem", "threshold", "reset", "refractory", "until")
    arrays |= {name: np.array([getattr(x, name) for x in layers]) for name in numbers}
    arrays["shape"] = np.array([x.shape for x in layers])
    ragged: dict[str, list[Array]] = {}
    for x in layers:
        spikes = [[float(Decimal(t)) for t in train] for row in x.spikes for train in row]
        parts = {
            "tau_syn": np.atleast_1d(x.tau_syn),
            "times": x.times,
            "weights": x.weights,
            "delays": np.zeros(0) if x.delays is None else x.delays,
            "receptor": np.array(x.receptor or [], dtype=int),
            "spikes_of": np.array([len(train) for train in spikes]),
            "spikes": np.array([t for train in spikes for t in train]),
            "upstream": np.array([u for row in x.upstream or () for train in row for u in train]),
            "by_weight": x.gradients("by_weight"),
            "by_time": x.gradients("by_time"),
            "slope": np.array(nested(lambda y: np.nan if y is None else float(y), x.slope)),
            "peak": np.array(nested(lambda y: np.nan if y is None else float(y), x.peak)),
            "moves": np.array(x.moves),
            "slope_moves": np.array(x.slope_moves),
            "beyond": np.array(x.beyond),
        }
        for name, values in parts.items():
            ragged.setdefault(name, []).append(values.ravel())
    for name, found in ragged.items():
        arrays[name] = np.concatenate(found)
        arrays[f"{name}_at"] = np.cumsum([0, *(x.size for x in found)])
    np.savez_compressed(path, **arrays)
