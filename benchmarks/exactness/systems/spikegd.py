"""spikegd of Klos and Memmesheimer 2025: LIF and QIF neurons with tau_mem = 2 tau_syn.

It is not on a package index: set ``SPIKEGD`` to a checkout of github.com/chklos/spikegd. One neuron is one
simulation, which JAX vectorises. Its current is that of ``tau_mem V' = -V + I``, so weights of LIF neurons are
multiplied by 2.
"""

import math
import os
import subprocess
import sys
from functools import cache
from typing import Any

SOURCE = os.environ.get("SPIKEGD", "")
if not SOURCE:
    raise ImportError("SPIKEGD is not set to a checkout of it")
sys.path.append(SOURCE)

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from spikegd.lif import LIFNeuron  # noqa: E402
from spikegd.qif import QIFNeuron  # noqa: E402
from systems.base import Array, Found, System, usual  # noqa: E402

TRAIN = 62
"""Spikes of a neuron for which there is room in a train."""


@cache
def simulation(kind: str, inputs: int, events: int) -> Any:
    neuron = LIFNeuron(tau=2.0, V_th=1.0) if kind == "lif" else QIFNeuron(tau=2.0)

    def events_of(times: Any, weights: Any, end: Any) -> Any:
        given = times, jnp.arange(inputs)
        found = neuron.event(jnp.zeros((2, 1)), jnp.zeros((1, 1)), weights[None], given, {"T": end, "K": events})
        return found[0], ~found[1] & (found[2] >= 0)

    layer = jax.vmap(jax.vmap(events_of, (None, 0, None)), (0, None, None))

    def total(times: Any, weights: Any, factors: Any, end: Any) -> Any:
        found, own = layer(times, weights, end)
        first = jnp.min(jnp.where(own, found, jnp.inf), axis=-1)
        return jnp.sum(jnp.where(jnp.isfinite(first), first, 0.0) * factors), first

    def sum_of(times: Any, weights: Any, factors: Any, end: Any) -> Any:
        return jnp.sum(jnp.where(factors != 0, layer(times, weights, end)[0], 0.0) * factors)

    return (
        jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True)),
        jax.jit(layer),
        jax.jit(jax.grad(sum_of, argnums=(0, 1))),
    )


class Spikegd(System):
    name = "spikegd"
    packages = ("jax",)

    def version(self) -> str:
        found = subprocess.run(["git", "-C", SOURCE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        return f"commit {found.stdout.strip() or 'unknown'}, {super().version()}"

    def cannot(self, layer: Any) -> str:
        if layer.neuron in ("lif", "qif") and layer.ratio != 2:
            return "other ratios than 2"
        return "" if layer.neuron == "qif" else usual(layer) or ("refractory time" if layer.refractory else "")

    def made(self, layer: Any, events: int) -> Any:
        end = layer.until if layer.until < math.inf else float(layer.times[layer.times < math.inf].max()) + 60
        scale = 2.0 if layer.neuron == "lif" else 1.0
        times = np.where(layer.times < math.inf, layer.times, 2 * end)  # what never arrives comes after the end
        calls = simulation(layer.neuron, layer.shape[2], layer.shape[2] + events)
        return calls, (jnp.array(times), jnp.array(scale * layer.weights)), end, scale

    def first(self, layer: Any, factors: Array | None) -> Found:
        (gradient, _, _), given, end, scale = self.made(layer, 26)
        (_, spikes), (by_time, by_weight) = gradient(*given, jnp.array(factors), end)
        return Found(np.array(spikes), scale * np.array(by_weight), np.array(by_time))

    def trains(self, layer: Any) -> Found:
        (_, call, gradient), given, end, scale = self.made(layer, TRAIN)
        found, own = map(np.array, call(*given, end))
        trains = [[t[x].tolist() for t, x in zip(*row, strict=True)] for row in zip(found, own, strict=True)]
        factors = np.zeros(found.shape)
        for b, row in enumerate(layer.upstream):
            for o, upstream in enumerate(row):
                if len(upstream) == own[b, o].sum():
                    factors[b, o, own[b, o]] = upstream
        by_time, by_weight = gradient(*given, jnp.array(factors), end)
        return Found(trains, scale * np.array(by_weight), np.array(by_time))


SYSTEMS = {"spikegd": Spikegd}
