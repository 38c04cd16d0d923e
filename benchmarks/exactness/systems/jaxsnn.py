"""jaxsnn's event-based LIF layers, with gradients through the closed forms: tau_mem = tau_syn or 2 tau_syn.

Its current is that of ``tau_mem V' = -V + I``, so weights are multiplied by tau_mem / tau_syn.
"""

import logging
import math
from functools import cache
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)
logging.disable(logging.INFO)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jaxsnn.event.modules import LIF, LIFParameters, Linear, Source  # noqa: E402
from jaxsnn.event.topology import Topology  # noqa: E402
from jaxsnn.event.types import Spike  # noqa: E402
from systems.base import Array, Found, System, usual  # noqa: E402

TRAIN = 40
"""Spikes of a neuron for which there is room in a layer, on average."""


@cache
def layer_of(inputs: int, neurons: int, ratio: float, events: int, reset: float, end: float) -> Any:
    """A function from times (B, n) and weights (n, O) to the events of the layer."""
    made = Topology(t_max=end)
    parameters = LIFParameters(v_reset=reset, v_th=1.0, tau_syn=1.0, tau_mem=ratio)
    synapses = Linear(mean=0.0, std=1.0, min_delay=0.0)
    made.add({"input": Source(inputs), "lif": LIF(neurons, events, parameters), "synapses": synapses})
    made.connect([("input", "synapses"), ("synapses", "lif")])
    init, apply = made.done()
    values = init(jax.random.PRNGKey(0))

    def events_of(times: Any, weights: Any) -> Any:
        order = jnp.argsort(times, axis=1)
        none = jnp.zeros(times.shape)
        spikes = Spike(
            time=jnp.take_along_axis(times, order, 1), idx=order.astype(int), current=none,
            layer_idx=none.astype(int), internal=jnp.ones(times.shape, dtype=bool),
        )  # fmt: skip
        return apply({"input": spikes}, {**values, "synapses": weights})["lif"]

    def firsts(times: Any, weights: Any) -> Any:
        found = events_of(times, weights)
        times = jnp.where(found.internal & (found.time < end), found.time, jnp.inf)
        return jnp.stack([jnp.where(found.idx == k, times, jnp.inf).min(axis=1) for k in range(neurons)], axis=1)

    def total(times: Any, weights: Any, factors: Any) -> Any:
        found = firsts(times, weights)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0.0) * factors), found

    def sum_of(times: Any, weights: Any, factors: Any) -> Any:
        return jnp.sum(jnp.where(factors != 0, events_of(times, weights).time, 0.0) * factors)

    return (
        jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True)),
        jax.jit(events_of),
        jax.jit(jax.grad(sum_of, argnums=(0, 1))),
    )


class Jaxsnn(System):
    name = "jaxsnn (closed forms)"
    packages = ("jaxsnn", "jax")
    most = {"trains": 6, "hard trains": 3}  # noqa: RUF012  (each shape is compiled for minutes)

    def cannot(self, layer: Any) -> str:
        if layer.neuron == "lif" and layer.ratio not in (1, 2):
            return "other ratios than 1 and 2"
        return usual(layer) or ("refractory time" if layer.refractory else "")

    def made(self, layer: Any, events: int, reset: float) -> Any:
        latest = float(layer.times[layer.times < math.inf].max())
        end = 60.0 if latest < 30 else 2e4  # few values, as each is compiled for
        times = np.where(layer.times < math.inf, layer.times, 2 * end)  # what never arrives comes after the end
        given = jnp.array(times), jnp.array(layer.weights.T * layer.ratio)
        return layer_of(layer.shape[2], layer.shape[1], layer.ratio, events, reset, end), given, end

    def first(self, layer: Any, factors: Array | None) -> Found:
        (gradient, _, _), given, _ = self.made(layer, layer.shape[2] + layer.shape[1] + 2, -1000.0)
        (_, spikes), (by_time, by_weight) = gradient(*given, jnp.array(factors))
        return Found(np.array(spikes), np.array(by_weight).T * layer.ratio, np.array(by_time))

    def trains(self, layer: Any) -> Found:
        samples, neurons, inputs = layer.shape
        (_, events_of, gradient), given, end = self.made(layer, inputs + neurons * TRAIN, layer.reset)
        found = jax.tree_util.tree_map(np.array, events_of(*given))
        factors = np.zeros(found.time.shape)
        trains = []
        for b in range(samples):
            row = []
            for o in range(neurons):
                at = np.nonzero((found.idx[b] == o) & found.internal[b] & (found.time[b] < end))[0]
                at = at[np.argsort(found.time[b][at])]
                row.append(found.time[b][at].tolist())
                if len(layer.upstream[b][o]) == len(at):
                    factors[b, at] = layer.upstream[b][o]
            trains.append(row)
        by_time, by_weight = gradient(*given, jnp.array(factors))
        return Found(trains, np.array(by_weight).T * layer.ratio, np.array(by_time))


SYSTEMS = {"jaxsnn": Jaxsnn}
