"""How often `fs.fit_neuron` finds the neuron that was recorded, and how exactly.

    python benchmarks/fits.py
    python benchmarks/fits.py --only adex --nest

Neurons with random parameters are recorded for a second, with a current of a random value each millisecond, and fitted
between bounds that are up to ten times apart. With ``--nest``, the recording is NEST's ``aeif_psc_exp``, and the score
is the coincidence factor within 2 ms on ten seconds of another noise.
"""

import argparse
import math
import time

import torch

import firstspike as fs
from firstspike.fitting import with_named

UNTIL, DT = 1000.0, 1.0  # ms
FIXED = {
    "lif": fs.LIF(tau_syn=3.0, refractory=2.0),
    "adaptive": fs.neurons.AdaptiveLIF(tau_syn=3.0, refractory=2.0, threshold_adaptation=[(10.0, 1.0), (100.0, 1.0)]),
    "qif": fs.neurons.QIF(tau_syn=5.0),
    "adex": fs.neurons.AdEx(refractory=2.0),
}
BOUNDS = {
    "lif": {"tau_mem": (5, 50), "threshold": (5, 30)},
    "adaptive": {
        "tau_mem": (5, 50), "threshold": (5, 30), "threshold_tau_0": (3, 30), "threshold_tau_1": (40, 400),
        "threshold_jump_0": (0.5, 20), "threshold_jump_1": (0.5, 20),
    },
    "qif": {"tau_mem": (3, 30), "bias": (-1, 1), "gain": (0.2, 5)},
    "adex": {
        "tau_mem": (4, 40), "c_m": (100, 500), "v_t": (-60, -45), "tau_w": (50, 300), "a": (0, 10), "b": (10, 200),
    },
}  # fmt: skip
NONE = torch.full((1, 1, 1), math.inf, dtype=torch.float64)
WEIGHT = torch.zeros(1, 1, dtype=torch.float64)


def drawn(kind: str, generator: torch.Generator) -> dict[str, float]:
    """Values in the middle three fifths of their bounds."""
    share = 0.2 + 0.6 * torch.rand(len(BOUNDS[kind]), generator=generator)
    pairs = zip(BOUNDS[kind].items(), share.tolist(), strict=True)
    return {name: low * (high / low) ** x if low > 0 else low + (high - low) * x for (name, (low, high)), x in pairs}


def noise(kind: str, true: dict[str, float], generator: torch.Generator, until: float = UNTIL) -> torch.Tensor:
    """A current with which a neuron spikes."""
    x = torch.randn(int(until / DT), generator=generator)
    if kind == "lif":
        return true["threshold"] * (1.1 + 1.6 * x)
    if kind == "adaptive":
        return true["threshold"] * (2 + 1.2 * x)
    if kind == "qif":
        return 0.5 - true["bias"] + 0.8 * x
    return (true["v_t"] + 70.6) * true["c_m"] / true["tau_mem"] * (1.6 + 1.5 * x)


def run(neuron: fs.Neuron, current: fs.Current, until: float = UNTIL) -> torch.Tensor:
    found = fs.spike_trains(NONE, WEIGHT, neuron, max_spikes=2000, until=until, current=current, overflow="drop")[0, 0]
    return found[found.isfinite()]


def points(spikes: torch.Tensor, count: int = 60) -> torch.Tensor:
    """Times away from spikes."""
    at = torch.linspace(8.0, UNTIL - 1.0, count)
    away = (at[:, None] - spikes).where(at[:, None] > spikes - 2.0, math.inf).abs().amin(dim=1) > 6.0
    return at[away]


def one(kind: str, seed: int, jitter: float) -> tuple[float, float, float]:
    """The largest relative error, the largest one in standard errors, and the time in s."""
    generator = torch.Generator().manual_seed(seed)
    true = drawn(kind, generator)
    values = noise(kind, true, generator)
    neuron = with_named(FIXED[kind], {name: x for name, x in true.items() if name != "gain"})
    current, voltage = fs.Current.sampled(values, DT), None
    spikes = run(neuron, current)
    if kind == "adex":
        at = points(spikes)
        found = fs.layers.states_at(at, NONE, WEIGHT, neuron, observed=spikes[None, None], current=current)
        voltage = at, found[0][0, 0]
    given = fs.Current(current.times, current.values / true.get("gain", 1.0))
    seen = (spikes + jitter * torch.randn(len(spikes), generator=generator)).sort().values
    start = time.process_time()
    how = "times" if jitter else "membrane"
    fit = fs.fit_neuron(FIXED[kind], BOUNDS[kind], fs.Recording(seen, given, voltage=voltage), noise=how)
    took = time.process_time() - start
    off = {name: abs(fit.values[name] - x) for name, x in true.items()}
    relative = max(x / abs(true[name]) for name, x in off.items())
    statistical = max(x / fit.errors[name] for name, x in off.items())
    print(
        f"{kind}, seed {seed}: {len(spikes)} spikes, off by {100 * relative:.2g} %, {statistical:.2g} standard errors, "
        f"{took:.0f} s, left {fit.at_spikes:.2g}", flush=True,
    )  # fmt: skip
    return relative, statistical, took


def in_nest(seed: int) -> None:
    """Fit an AdEx neuron to NEST's, and predict its spikes with another noise."""
    import nest

    generator = torch.Generator().manual_seed(100 + seed)
    true = drawn("adex", generator)

    def recorded(values: torch.Tensor, until: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nest.set_verbosity("M_ERROR")
        nest.ResetKernel()
        nest.resolution = 0.01
        cell = nest.Create("aeif_psc_exp", params={
            "C_m": true["c_m"], "g_L": true["c_m"] / true["tau_mem"], "E_L": -70.6, "V_m": -70.6, "V_reset": -70.6,
            "V_th": true["v_t"], "V_peak": -40.0, "Delta_T": 2.0, "tau_w": true["tau_w"], "a": true["a"],
            "b": true["b"], "t_ref": 2.0, "gsl_error_tol": 1e-9,
        })  # fmt: skip
        steps = (DT * torch.arange(len(values))).clamp(min=0.01)  # one step of delay is the beginning
        amplitudes = {"amplitude_times": steps.tolist(), "amplitude_values": values.tolist()}
        source = nest.Create("step_current_generator", params=amplitudes)
        nest.Connect(source, cell, syn_spec={"delay": 0.01})
        spikes, meter = (
            nest.Create("spike_recorder"),
            nest.Create("multimeter", {"record_from": ["V_m"], "interval": 1.0}),
        )
        nest.Connect(cell, spikes)
        nest.Connect(meter, cell)
        nest.Simulate(until)
        seen = meter.get("events")
        return tuple(torch.as_tensor(x) for x in (spikes.get("events")["times"], seen["times"], seen["V_m"]))

    values = noise("adex", true, generator)
    spikes, at, membrane = recorded(values, UNTIL)
    keep = [int((at - x).abs().argmin()) for x in points(spikes)]
    recording = fs.Recording(spikes, fs.Current.sampled(values, DT, start=0.01), voltage=(at[keep], membrane[keep]))
    start = time.process_time()
    fit = fs.fit_neuron(FIXED["adex"], BOUNDS["adex"], recording)
    took = time.process_time() - start
    off = max(abs(fit.values[name] / x - 1) for name, x in true.items())
    later = noise("adex", true, generator, 10 * UNTIL)
    theirs = recorded(later, 10 * UNTIL)[0]
    ours = run(fit.neuron, fs.Current.sampled(later, DT, start=0.01), 10 * UNTIL)
    score = float(fs.losses.coincidence_factor(ours, theirs, 2.0, 10 * UNTIL))
    print(
        f"NEST, seed {seed}: {len(spikes)} spikes, off by {100 * off:.2g} %, {took:.0f} s; with another noise "
        f"{len(theirs)} spikes, coincidence factor {score:.3f}", flush=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jitter", type=float, default=0.0, help="of recorded spikes, in ms")
    parser.add_argument("--only", choices=list(FIXED), action="append")
    parser.add_argument("--nest", action="store_true")
    given = parser.parse_args()
    for kind in given.only or FIXED:
        if kind == "adex" and given.nest:
            for seed in range(given.seeds):
                in_nest(seed)
            continue
        found = torch.tensor([one(kind, seed, given.jitter) for seed in range(given.seeds)])
        within = int((found[:, 0] < 0.01).sum()), int((found[:, 1] < 2.0).sum())
        print(
            f"{kind}: {within[0]} of {given.seeds} within 1 %, {within[1]} within two standard errors, at most "
            f"{100 * float(found[:, 0].max()):.2g} %, {float(found[:, 2].mean()):.0f} CPU s a fit"
        )


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
