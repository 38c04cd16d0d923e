"""Networks as graphs of NIR, the Neuromorphic Intermediate Representation, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from firstspike.interop.nir.conventions import Convention, needs_nir
from firstspike.layers import Network

if TYPE_CHECKING:
    import nir

__all__ = ["Convention", "export_run", "from_nir", "to_nir"]


def to_nir(network: Network, *, target: str = "nir", time_unit: float = 1.0, dt: float | None = None) -> "nir.NIRGraph":
    """A network as a graph of NIR: ``nir.write("model.nir", fs.to_nir(network))``.

    Layers become pairs of ``Linear`` and ``CubaLIF``, delays ``Delay`` nodes. Synaptic delays have no node of their
    own: every synapse gets a copy of its input that is delayed by itself. Copies of inputs (``Multiplex``) are summed
    into the weights, and filters of ``LIFConv2d`` written out. Bias spikes are further channels at the end of the
    input; when they have to spike is in the metadata, ``bias_times``. A neuron that has spiked is set so far down
    (``v_reset``) that it stays silent, for readers that have a reset.

    Args:
        network: its parameters as they are now.
        target: who reads it. ``"nir"`` is what the text of NIR says; jaxsnn and hxtorch read the same. ``"norse"`` and
            ``"snntorch"`` count currents in steps of time.
        time_unit: length of the network's unit of time in the graph's: jaxsnn and hxtorch read milliseconds, Norse and
            snnTorch seconds. A ``tau_syn`` of 1 that shall take 6 us on a chip is 0.006 ms.
        dt: step of the reader in the graph's unit of time; Norse needs it, snnTorch has 1e-4.

    Raises:
        ValueError: what NIR cannot say: neurons without leak, ``EarliestPool2d``, anything but delays behind the last
            neurons; synaptic delays of very many synapses; an unknown target.
        ImportError: the extra ``nir`` is not installed.
    """
    needs_nir()
    from firstspike.interop.nir.write import graph_of

    return graph_of(network, Convention(target, time_unit, dt))


def from_nir(
    graph: "nir.NIRGraph | Path | str",
    *,
    target: str | None = None,
    time_unit: float | None = None,
    dt: float | None = None,
    bias_times: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """A network from a graph of NIR or a file of one; it is read as data, nothing in it is executed.

    It may have the nodes ``Input``, ``Linear``, ``Affine`` without bias, ``Scale``, ``Delay``, ``CubaLIF`` and
    ``Output``, and must be a row of layers. Every neuron spikes at most once here, whatever its ``v_reset``.

    Args:
        graph: the graph, or a file.
        target: how currents are meant, see ``to_nir``; by default what the metadata say, else ``"nir"``.
        time_unit: length of the network's unit of time in the graph's; by default what the metadata say, else 1.
        dt: the step that the graph was written for; by default what the metadata say.
        bias_times: when the last channels of the input spike, in the network's unit of time: they become
            ``BiasSpikes``. By default what the metadata say; ``()`` leaves them inputs.
        dtype: of the parameters; torch's default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is none of NIR, a graph that is no row of layers, nodes or values without counterpart.
        ImportError: the extra ``nir`` is not installed.
    """
    needs_nir()
    from firstspike.interop.nir.files import noted, read_graph
    from firstspike.interop.nir.read import network_of

    if isinstance(graph, str | Path):
        graph = read_graph(Path(graph))
    notes = noted(graph)
    convention = Convention(
        notes.target if target is None else target,
        notes.time_unit if time_unit is None else time_unit,
        notes.dt if dt is None else dt,
    )
    return network_of(graph, convention, notes.bias_times if bias_times is None else bias_times, dtype)


def export_run(
    run: Path | str,
    file: Path,
    checkpoint: str | None = None,
    *,
    target: str = "nir",
    time_unit: float = 1.0,
    dt: float | None = None,
) -> list[str]:
    """Write the network of a run into a file, whole or not at all.

    Args:
        run: the run's folder.
        file: where to.
        checkpoint: see ``load_run``.
        target: see ``to_nir``, as all that follows.
        time_unit: length of the network's unit of time in the file's.
        dt: step of the reader.

    Returns:
        What was written, in lines for people.

    Raises:
        FileNotFoundError: no run there.
        ValueError: no such checkpoint; else as ``to_nir``.
        ImportError: the extra ``nir`` is not installed.
    """
    needs_nir()
    import nir

    from firstspike.training.files import whole_file
    from firstspike.training.loaded import load_run

    loaded = load_run(run, checkpoint)
    graph = to_nir(loaded.network, target=target, time_unit=time_unit, dt=dt)
    with whole_file(file) as temporary:
        nir.write(temporary, graph)
    found = [f"{file}: {len(graph.nodes)} nodes of {loaded.checkpoint.name}"]
    bias = graph.metadata.get("bias_times")
    if bias is not None:
        found.append(f"the last {len(bias)} inputs are bias spikes, at {', '.join(f'{time:g}' for time in bias)}")
    return found
