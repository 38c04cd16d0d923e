"""Networks as graphs of NIR, the Neuromorphic Intermediate Representation, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from firstspike.interop.nir.conventions import Convention
from firstspike.layers import Network
from firstspike.text import needed

if TYPE_CHECKING:
    import nir

__all__ = ["from_nir", "to_nir"]


def to_nir(
    network: Network,
    *,
    target: str = "nir",
    time_unit: float = 1.0,
    dt: float | None = None,
    keep_refractory: bool = False,
) -> "nir.NIRGraph":
    """A network as a NIR graph: ``nir.write("model.nir", fs.to_nir(network))``.

    Layers become pairs of ``Linear`` and ``CubaLIF``, readouts ``CubaLI``, delays ``Delay`` nodes. Every synapse with a
    delay gets a delayed copy of its input. Bias spikes are further channels at the end of the input. A neuron that
    spikes once is then reset so far down (``v_reset``) that it stays silent, for readers that have a reset. What NIR
    cannot express is in the metadata: ``bias_times``, ``max_spikes``, ``overflow``, ``duration``, ``readout``, and
    ``sparse`` where zeros of the matrices are no synapses. If readers cannot do the same, they list the differences,
    ``approximate``. Otherwise the graph is faithful.

    Args:
        network: its parameters as they are now.
        target: the reader. ``"nir"`` follows the NIR specification. jaxsnn and hxtorch read the same. ``"norse"`` and
            ``"snntorch"`` count currents in time steps.
        time_unit: length of the network's unit of time in the graph's: jaxsnn and hxtorch read milliseconds, Norse and
            snnTorch seconds. If a ``tau_syn`` of 1 should take 6 us on a chip, that is 0.006 ms.
        dt: time step of the reader in the graph's unit of time. Norse needs it, snnTorch has 1e-4.
        keep_refractory: write refractory times, which NIR has no field for, into the metadata. Only ``from_nir`` reads
            them. Other readers let neurons spike again at once. By default they are an error.

    Raises:
        ValueError: parts that NIR cannot express: neurons without leak or with a refractory time, ``SpikingRecurrent``
            for other targets than ``"nir"``, ``EarliestPool2d``, ``Earliest``, ``FirstSpike``, anything but delays
            after the last neurons; synaptic delays of very many synapses; an unknown target.
        ImportError: the extra ``nir`` is not installed.
    """
    needed("nir", "nir", "NIR")
    from firstspike.interop.nir.write import Writer

    return Writer(network, Convention(target, time_unit, dt), keep_refractory).graph()  # type: ignore[arg-type]


def from_nir(
    graph: "nir.NIRGraph | Path | str",
    *,
    target: str | None = None,
    time_unit: float | None = None,
    dt: float | None = None,
    bias_times: Sequence[float] | None = None,
    max_spikes: int | None = None,
    duration: float | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """A network from a NIR graph or a file of one. Files are read as data, nothing in them is executed.

    It may have the nodes ``Input``, ``Linear``, ``Affine`` without bias, ``Scale``, ``Delay``, ``CubaLIF``, ``CubaLI``
    and ``Output``, and must be a chain of layers. Connections past layers become ``Concatenate``. Neurons may be
    connected to themselves, with delays, which makes a ``SpikingRecurrent`` whose ``window`` is the shortest of them.
    Every neuron spikes at most once, unless ``max_spikes`` is given. A warning says so where its ``v_reset`` lets it
    spike again.

    Args:
        graph: the graph, or a file.
        target: the convention of currents, see ``to_nir``; by default as in the metadata, otherwise ``"nir"``.
        time_unit: length of the network's unit of time in the graph's; by default as in the metadata, otherwise 1.
        dt: the time step that the graph was written for; by default as in the metadata.
        bias_times: when the last channels of the input spike, in the network's unit of time: they become
            ``BiasSpikes``. By default as in the metadata. ``()`` leaves them inputs.
        max_spikes: most spikes of each neuron, in layers ``SpikeTrains`` with the ``v_reset`` of the graph; 0 for
            neurons that spike once. By default as in the metadata, otherwise 0.
        duration: when layers with a loop stop, in the network's unit of time. By default as in the metadata.
        dtype: of the parameters; torch's default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of NIR, a graph that is not a chain of layers, nodes or values without counterpart, such
            as numbers that are infinite in the dtype.
        ImportError: the extra ``nir`` is not installed.
    """
    needed("nir", "nir", "NIR")
    from firstspike.interop.nir.files import read_graph, read_metadata
    from firstspike.interop.nir.read import Reader

    if isinstance(graph, str | Path):
        graph = read_graph(Path(graph))
    noted = read_metadata(graph)
    given = {
        "target": target, "time_unit": time_unit, "dt": dt, "bias_times": bias_times, "max_spikes": max_spikes,
        "duration": duration,
    }  # fmt: skip
    chosen = noted | {name: value for name, value in given.items() if value is not None}
    convention = Convention(*(chosen.pop(name) for name in ("target", "time_unit", "dt")))
    return Reader(graph, convention, dtype, **chosen).network()
