"""Spike trains and signals as segments of neo, which Elephant analyses and many file formats hold, and back."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from firstspike.layers.named import Neurons, populations_of, slice_of, to_numpy
from firstspike.spiketime import Current
from firstspike.text import needed

if TYPE_CHECKING:
    import neo

Signal = Current | tuple[Tensor, Tensor]


class Segments(NamedTuple):
    """What ``from_neo`` has read. Populations are slices of the neurons, or numbers of those that are not in a row.

    Signals in amperes are a ``Current``, others times ``(points,)`` and values ``(segments, channels, points)``.
    """

    trains: Float[Tensor, "segments neurons spikes"]
    start: float
    stop: float
    populations: dict[str, Neurons]
    signals: dict[str, Signal]


def to_neo(
    trains: Float[Tensor, "samples neurons spikes"], layer: nn.Module | None = None, *, unit: str | None = None,
    start: float = 0.0, stop: float | None = None, populations: Mapping[str, Neurons] | None = None,
    signals: Mapping[str, Signal] | None = None, current_unit: str = "nA",
) -> "neo.Block":  # fmt: skip
    """Spike trains as a neo ``Block``: each sample is a ``Segment``, with a ``SpikeTrain`` for each neuron::

        block = fs.to_neo(layer(times), layer, signals={"v": (at, layer.voltages(times, at))})
        rate = elephant.statistics.mean_firing_rate(block.segments[0].spiketrains[3])

    As PyNN does, it annotates each train with ``source_population`` and ``source_index``, its number there.

    Args:
        trains: spike times, ``inf`` for none. For first spikes, pass ``times.unsqueeze(-1)``.
        layer: the neurons. It gives the ``unit`` of its ``neuron``, its ``duration`` or ``until`` as ``stop``, and by
            its ``recurrent_signs`` the populations ``"E"`` and ``"I"``, unless you give others.
        unit: unit of all times, such as ``"ms"``.
        start: beginning of all segments.
        stop: end of all segments.
        populations: their neurons, such as ``{"E": slice(0, 80), "I": slice(80, 100)}``.
        signals: by name, a ``Current``, or times ``(points,)`` and potentials in mV: ``(points,)``,
            ``(channels, points)`` or ``(samples, channels, points)``. They become an ``AnalogSignal``, or an
            ``IrregularlySampledSignal`` if they are not evenly spaced.
        current_unit: unit of currents. Values of a ``Cell``, divided by ``cell.currents(1.0)``, are in nA of PyNN or pA
            of NEST.

    Raises:
        ValueError: other shapes or units, spikes outside the segments, a neuron in two populations, no unit or end.
        ImportError: the extra ``neo`` is not installed.
    """
    neo = needed("neo", "neo", "neo")
    if trains.ndim != 3:
        raise ValueError(f"trains: expected times (samples, neurons, spikes), got {tuple(trains.shape)}")
    if (unit := unit or getattr(getattr(layer, "neuron", None), "unit", None)) is None:
        raise ValueError("unit: expected the unit of all times, such as unit='ms', as the neurons have none")
    needed("quantities", "neo", "quantities").Quantity(1.0, unit).rescale("s")  # refuses other units
    stop = getattr(layer, "duration", getattr(layer, "until", None)) if stop is None else stop
    if stop is None or not -math.inf < start < stop < math.inf:
        raise ValueError(f"stop: expected the end of the segments, finite and after start={start:g}, got {stop}")
    values, (samples, neurons, _) = np.sort(to_numpy(trains)), trains.shape
    if (outside := values[~((values >= start) & (values <= stop)) & (values != math.inf)]).size:
        raise ValueError(f"trains: expected spikes from start={start:g} to stop={stop:g}, got one at {outside[0]:g}")
    shared = {"units": unit, "t_start": start, "t_stop": stop}
    about: list[dict[str, Any]] = [shared | {"name": f"neuron {k}", "source_index": k} for k in range(neurons)]
    for name, own in (populations_of(layer) if populations is None else populations).items():
        for k, neuron in enumerate(np.arange(neurons)[own]):
            if (other := about[neuron].get("source_population")) is not None:
                raise ValueError(f"populations: neuron {neuron} is in {other!r} and in {name!r}")
            about[neuron] |= {"name": f"{name} {k}", "source_population": name, "source_index": k}
    written = [_written(name, x, samples, unit, current_unit) for name, x in (signals or {}).items()]
    block = neo.Block(name="firstspike")
    for index, sample in enumerate(values):
        segment = neo.Segment(name=f"sample {index}", index=index)
        own = [neo.SpikeTrain(x[np.isfinite(x)], **y) for x, y in zip(sample, about, strict=True)]
        segment.spiketrains.extend(own)  # append takes quadratic time
        segment.add(*(signal[index] for signal in written))
        block.segments.append(segment)
    return block


def from_neo(
    source: "neo.Block | neo.Segment", *, unit: str = "ms", current_unit: str = "nA", dtype: torch.dtype = torch.float64
) -> Segments:
    """Spike trains and signals of neo, from ``to_neo``, PyNN or a file::

        recorded = fs.from_neo(neo.io.NixIO("recording.nix", "ro").read_block().segments[0])
        current = fs.Current(recorded.signals["i"].times, cell.currents(recorded.signals["i"].values))

    Args:
        source: a ``Segment``, or a ``Block`` whose segments have the same neurons and signals.
        unit: unit of the times in the result. Potentials are in mV.
        current_unit: unit of the currents in the result.
        dtype: of times and values.

    Returns:
        A ``Segments``. Of currents that are equal in all segments or channels there is one for all.

    Raises:
        ValueError: another source or unit; segments with different neurons, signals or times of signals.
        ImportError: the extra ``neo`` is not installed.
    """
    neo = needed("neo", "neo", "neo")
    segments = list(source.segments) if isinstance(source, neo.Block) else [source]
    if not segments or not all(isinstance(x, neo.Segment) for x in segments):
        raise ValueError(f"source: expected a neo Segment, or a Block that has any, got {type(source).__name__}")
    read = [_named([*x.analogsignals, *x.irregularlysampledsignals]) for x in segments]
    if len({(len(x.spiketrains), *own) for x, own in zip(segments, read, strict=True)}) > 1:
        raise ValueError("source: segments have different neurons or signals, read them one at a time")
    spikes = [_tensor(np.sort(x.rescale(unit).magnitude), dtype) for segment in segments for x in segment.spiketrains]
    padded = pad_sequence(spikes or [torch.empty(0, dtype=dtype)], True, math.inf)[: len(spikes)]
    members: dict[str, list[int]] = {}
    for k, train in enumerate(segments[0].spiketrains):
        if "source_population" in train.annotations:
            members.setdefault(str(train.annotations["source_population"]), []).append(k)
    signals = {name: _read(name, [x[name] for x in read], unit, current_unit, dtype) for name in read[0]}
    edges = [float(x.rescale(unit)) for y in segments for x in (y.t_start, y.t_stop) if x is not None] or [0.0]
    trains = padded.view(len(segments), len(spikes) // len(segments), padded.shape[-1])
    return Segments(trains, min(edges), max(edges), {x: slice_of(own) for x, own in members.items()}, signals)


def _named(signals: list[Any]) -> dict[str, Any]:
    """Signals by their names, which are numbered where there are several."""
    names = [x.name or "signal" for x in signals]
    return {f"{x} {k}" if names.count(x) > 1 else x: signals[k] for k, x in enumerate(names)}


def _written(name: str, signal: Signal, samples: int, unit: str, current_unit: str) -> list[Any]:
    """A signal of each sample, as neo has it."""
    neo, quantity = needed("neo", "neo", "neo"), needed("quantities", "neo", "quantities").Quantity
    times, values = (signal.times, signal.values) if isinstance(signal, Current) else signal
    at, heights = to_numpy(times), to_numpy(values)
    if at.ndim != 1 or not at.size or heights.shape[-1:] != at.shape or heights.shape[:-2] not in ((), (samples,)):
        got = f"{tuple(times.shape)} and {tuple(values.shape)}"
        raise ValueError(
            f"signal {name!r}: expected times (points,) and values ({samples}, channels, points), got {got}"
        )
    heights = np.broadcast_to(heights, (samples, *(1, *heights.shape)[-2:]))
    about: dict[str, Any] = {"units": current_unit if isinstance(signal, Current) else "mV", "name": name}
    step = float(at[-1] - at[0]) / max(1, len(at) - 1)
    off = abs(at - (at[0] + step * np.arange(len(at)))).max()
    if step > 0 and off <= 4 * torch.finfo(times.dtype).eps * abs(at).max():  # evenly spaced but for rounding
        about |= {"sampling_period": quantity(step, unit), "t_start": quantity(at[0], unit)}
        return [neo.AnalogSignal(x.T, **about) for x in heights]
    return [neo.IrregularlySampledSignal(at, x.T, time_units=unit, **about) for x in heights]


def _read(name: str, each: list[Any], unit: str, current_unit: str, dtype: torch.dtype) -> Signal:
    """A signal of all segments."""
    at = [x.times.rescale(unit).magnitude for x in each]
    if not all(np.array_equal(x, at[0]) for x in at):
        raise ValueError(f"source: segments have different times of {name!r}, read them one at a time")
    quantity = needed("quantities", "neo", "quantities").Quantity
    kinds = {quantity(1.0, x).dimensionality.simplified: x for x in ("mV", current_unit)}
    kind = kinds.get(each[0].dimensionality.simplified, each[0].units)
    times, values = _tensor(at[0], dtype), _tensor(np.stack([x.rescale(kind).magnitude.T for x in each]), dtype)
    if kind != current_unit:
        return times, values
    for _ in range(2):  # segments, then channels
        values = values[0] if bool((values == values[:1]).all()) else values
    return Current(times, values)


def _tensor(values: Any, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values.astype(float)).to(dtype)
