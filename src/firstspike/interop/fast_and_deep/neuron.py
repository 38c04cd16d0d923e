"""Their neuron parameters, in our normalisation.

Their closed forms see leak, conductance and threshold only as ``(threshold - leak) g_leak``; ours see
``threshold tau_syn / tau_mem``. So the threshold here is ``(threshold - leak) g_leak tau_mem / tau_syn``, and weights
stay as they are. With their rule ``g_leak = tau_syn / tau_mem`` that is ``threshold - leak``.
"""

import math

from firstspike.interop.fast_and_deep.table import Table


def neuron(params: Table) -> dict[str, float]:
    """A ``neuron`` section.

    Raises:
        ValueError: a number that is missing or not above 0.
    """
    tau_syn = params.number("tau_syn", 1.0)
    tau_mem = params.number("tau_mem", tau_syn)
    if min(tau_syn, tau_mem) <= 0:
        raise ValueError(f"{params.place}: tau_syn and tau_mem must be > 0, got {tau_syn} and {tau_mem}")
    ratio = params.number("model_tau_ratio", None)
    if ratio is not None and not math.isclose(ratio * tau_syn, tau_mem):
        params.remarks.lacking.append(
            f"{params.place}.tau_mem = {tau_mem}: their spike times follow model_tau_ratio = {ratio}, so tau_mem is "
            f"{ratio * tau_syn} here"
        )
    tau_mem = tau_mem if ratio is None else ratio * tau_syn
    height = params.number("threshold") - params.number("leak", 0.0)
    scale = threshold_unit(params, tau_mem, tau_syn)
    if height * scale <= 0:
        raise ValueError(f"{params.place}: the threshold must be above the leak potential, with g_leak > 0")
    threshold = height if math.isclose(scale, 1, rel_tol=1e-12) else height * scale
    return {"tau_mem": float(tau_mem), "tau_syn": float(tau_syn), "threshold": float(threshold)}


def bound(params: Table) -> float | None:
    """``max_dw_norm``; None where there is none."""
    value = params.take("max_dw_norm", None)
    return None if value is None or value is False else float(params.number("max_dw_norm"))


def threshold_unit(params: Table, tau_mem: float, tau_syn: float) -> float:
    """What one unit of their threshold is in ours; the time constants are those of ``neuron``."""
    return float(params.number("g_leak", tau_syn / tau_mem) * tau_mem / tau_syn)
