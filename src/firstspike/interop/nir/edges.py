"""Edges of a NIR graph: those that lead on, and those that close loops of neurons with themselves."""

from graphlib import CycleError, TopologicalSorter

import nir

Edges = dict[str, list[str]]
"""For each node, those from which edges lead to it."""


def edges_of(graph: nir.NIRGraph) -> tuple[Edges, Edges]:
    """The edges that lead on, without loops, and those that lead back to neurons whose spikes they carry.

    Raises:
        ValueError: other loops.
    """
    ahead: Edges = {name: [] for name in graph.nodes}
    for source, name in graph.edges:
        ahead[source].append(name)
    leading: Edges = {name: [] for name in graph.nodes}
    back: Edges = {name: [] for name in graph.nodes}
    for source, name in graph.edges:
        closes = isinstance(graph.nodes[name], nir.CubaLIF) and source in _reached(graph, name, ahead)
        (back if closes else leading)[name].append(source)
    try:
        TopologicalSorter(leading).prepare()
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise ValueError(f"the graph has a loop ({names}) that is not one from neurons to themselves") from None
    return leading, back


def _reached(graph: nir.NIRGraph, neurons: str, ahead: Edges) -> set[str]:
    """What the spikes of neurons reach before other neurons."""
    found, open_ends = set[str](), list(ahead[neurons])
    while open_ends:
        name = open_ends.pop()
        if name == neurons:
            found.add(name)
        elif name not in found and not isinstance(graph.nodes[name], nir.CubaLIF | nir.CubaLI):
            found.add(name)
            open_ends += ahead[name]
    return found
