"""Neurons from equations against Eventax, which integrates them with an ODE solver in JAX: LIF and QIF, one thread.

Both get the same 60 inputs, weights and 60 neurons. Eventax works in single precision, with its own default solver and,
for QIF, with one whose error is controlled. Compile times are told apart.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike.neurons import LIF, QIF
from firstspike.spiketime import spike_trains

BATCH, INPUTS, OUTPUTS, END = 4, 60, 60, 12.0
MOST = 30
Found = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def problem(kind: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Input times and weights."""
    times = np.random.default_rng(0).uniform(0, 6, (BATCH, INPUTS))
    drawn = np.random.default_rng(1).normal(0, 1, (OUTPUTS, INPUTS))
    return times, 0.09 + 0.2 * drawn if kind == "LIF" else 1.0 + drawn


def ours(kind: str, neuron: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Calls for the spikes, and for the gradient of their sum by the weights."""
    times, weight = (torch.tensor(x) for x in problem(kind))
    weight.requires_grad_()
    options: Any = {"max_spikes": MOST, "until": END, "overflow": "drop"}

    def spikes() -> Tensor:
        return spike_trains(times[..., None], weight, neuron, **options)

    def gradient() -> Tensor:
        found = spikes()
        (by,) = torch.autograd.grad(torch.where(found.isfinite(), found, 0.0).sum(), weight)
        return by

    def alone() -> Tensor:
        with torch.no_grad():
            return spikes()

    return alone, gradient


def theirs(kind: str, controlled: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The same of Eventax; ``controlled``: by Tsit5 with a relative tolerance of 1e-5, not its default solver."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import diffrax
    import equinox
    import jax
    import jax.numpy as jnp
    import optimistix
    from eventax.evnn import EvNN
    from eventax.neuron_models import lif, qif

    times, weight = problem(kind)
    mask, weights = np.zeros((OUTPUTS + INPUTS, OUTPUTS)), np.zeros((OUTPUTS + INPUTS, OUTPUTS))
    mask[OUTPUTS:] = 1
    weights[OUTPUTS:] = weight.T * (2.0 / 0.7 if kind == "LIF" else 1.0)
    values = {"tmem": 2.0, "tsyn": 0.7, "thresh": 1.0} if kind == "LIF" else {"tmem": 1.0, "tsyn": 0.5}
    solver: dict[str, Any] = {}
    if controlled:
        solver = {
            "solver": diffrax.Tsit5(), "stepsize_controller": diffrax.PIDController(rtol=1e-5, atol=1e-7),
            "root_finder": optimistix.Newton(1e-6, 1e-6, optimistix.rms_norm), "solver_stepsize": 0.01,
        }  # fmt: skip
    network = EvNN(
        lif.LIF if kind == "LIF" else qif.QIF, OUTPUTS, END, INPUTS, key=jax.random.PRNGKey(0), wmask=jnp.array(mask),
        init_weights=jnp.array(weights, jnp.float32), init_bias=0.0, max_event_steps=1200, dtype=jnp.float32,
        **values, **solver,
    )  # fmt: skip
    given = jnp.array(times, jnp.float32)[:, :, None]

    def spikes(network: Any, given: Any) -> Any:
        return jax.vmap(lambda x: network.spikes_until_t(x, END, 600))(given)

    def total(network: Any, given: Any) -> Any:
        found = spikes(network, given)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0))

    forward, backward = equinox.filter_jit(spikes), equinox.filter_jit(equinox.filter_grad(total))
    return (
        lambda: np.asarray(forward(network, given)),
        lambda: np.asarray(backward(network, given).neuron_model.weights)[OUTPUTS:].T,
    )


def measured(call: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """The result, seconds of the first call, and of the fastest of the others."""
    start = time.perf_counter()
    found = call()
    first, fastest = time.perf_counter() - start, float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return found, first, fastest


def rows(repeats: int = 3) -> list[list[str]]:
    """For each neuron: spikes of both, how far times and gradients differ, milliseconds of both and their ratio."""
    found = []
    qif = QIF(tau_mem=1.0, tau_syn=0.5)
    for kind, neuron, controlled in (("LIF", LIF(2.0, 0.7), False), ("QIF", qif, False), ("QIF", qif, True)):
        mine = [measured(call, 20) for call in ours(kind, neuron)]
        other = [measured(call, repeats) for call in theirs(kind, controlled)]
        spikes, compared = mine[0][0].numpy(), np.sort(other[0][0], -1)[..., :MOST]
        counts, others = (np.isfinite(x).sum(-1) for x in (spikes, compared))
        same = counts == others
        fits = np.isfinite(spikes) & np.isfinite(compared) & same[..., None]
        apart = float(np.abs(np.where(fits, spikes, 0) - np.where(fits, compared, 0)).max())
        gradient, theirs_by = mine[1][0].numpy(), other[1][0]
        differs = float(np.median(np.abs(gradient - theirs_by)) / np.median(np.abs(gradient)))
        for k, name in enumerate(("forward", "forward and backward")):
            found.append(
                [f"{kind}, Tsit5" if controlled else kind, name, f"{counts.mean():.1f}",
                 f"{100 * same.mean():.1f} %", f"{apart:.1e}", f"{differs:.1e}",
                 f"{1e3 * other[k][2]:.0f}", f"{1e3 * mine[k][2]:.2f}", f"{other[k][1]:.0f} s / {mine[k][1]:.0f} s",
                 f"{other[k][2] / mine[k][2]:.0f}"]
            )  # fmt: skip
    return found


COLUMNS = (
    "neuron", "passes", "spikes", "as many spikes", "times apart", "gradients apart", "Eventax ms", "ours ms",
    "first call", "theirs / ours",
)  # fmt: skip
