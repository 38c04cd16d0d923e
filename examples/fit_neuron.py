"""Find the parameters of a neuron in NEST by its spikes: time constants, threshold, and adaptation of the threshold.

NEST simulates a neuron with parameters that this script then forgets, for one second. At each of its spikes the
membrane has to be at the threshold. How far a neuron with other parameters is from it there, after it was reset at the
spikes before, is a smooth function of the parameters, whose derivatives are exact: a least-squares problem.

    pip install 'firstspike[nest]'
    python examples/fit_neuron.py --seeds 10
"""

import argparse

import nest
import torch

import firstspike as fs

STEP, CAPACITY, REFRACTORY = 0.01, 250.0, 2.0  # ms, pF, ms
NOISE = ("no noise", 0.0, 0.0), ("spikes with a jitter of 0.2 ms", 0.2, 0.0), ("a random current of 100 pA", 0.0, 100.0)
NAMES = {"lif": ("tau_m", "tau_syn", "V_th"), "mat": ("tau_m", "tau_syn", "omega", "tau_1", "alpha_1")}
RANGES = {
    "tau_m": (10, 30),
    "tau_syn": (2, 6),
    "V_th": (10, 20),
    "omega": (8, 15),
    "tau_1": (20, 80),
    "alpha_1": (3, 10),
}


def drawn(kind, generator):
    """Parameters in ms and mV above rest."""
    low, high = torch.tensor([RANGES[name] for name in NAMES[kind]]).double().T
    return low + (high - low) * torch.rand(len(low), generator=generator, dtype=torch.float64)


def recorded(kind, true, times, weights, until, noise, seed):
    """Spikes of the neuron in NEST; ``noise`` is a random current in pA."""
    nest.set_verbosity("M_ERROR")
    nest.ResetKernel()
    nest.resolution, nest.rng_seed = STEP, seed + 1
    values = dict(zip(NAMES[kind], true.tolist(), strict=True))
    tau_syn = values.pop("tau_syn")
    values |= {"tau_syn_ex": tau_syn, "tau_syn_in": tau_syn, "E_L": 0.0, "V_m": 0.0, "C_m": CAPACITY}
    if kind == "lif":
        neuron = nest.Create("iaf_psc_exp_ps", params=values | {"V_reset": 0.0, "t_ref": REFRACTORY})
    else:  # it counts one step more
        neuron = nest.Create("mat2_psc_exp", params=values | {"alpha_2": 0.0, "t_ref": REFRACTORY - STEP})
    on_grid = {"precise_times": True} if kind == "lif" else {"allow_offgrid_times": False}
    sources = [{"spike_times": train.tolist()} | on_grid for train in times]
    nest.Connect(
        nest.Create("spike_generator", len(times), params=sources), neuron,
        syn_spec={"weight": [weights.tolist()], "delay": STEP},
    )  # fmt: skip
    if noise:
        nest.Connect(nest.Create("noise_generator", params={"std": noise, "dt": 0.1}), neuron)
    recorder = nest.Create("spike_recorder")
    nest.Connect(neuron, recorder)
    nest.Simulate(until)
    return torch.as_tensor(recorder.get("events")["times"])


def fitted(kind, times, weights, spikes, jitter):
    """A neuron by its spikes. Synapses of NEST jump by their weight, those here by ``weight / tau_syn``."""
    names = {"tau_m": "tau_mem", "tau_syn": "tau_syn", "V_th": "threshold", "omega": "threshold"}
    names |= {"tau_1": "threshold_tau_0", "alpha_1": "threshold_jump_0"}
    neuron = fs.LIF(refractory=REFRACTORY)
    if kind == "mat":
        neuron = fs.neurons.AdaptiveLIF(reset=None, refractory=REFRACTORY, threshold_adaptation=[(1.0, 1.0)])
    bounds = {names[name]: (0.5 * RANGES[name][0], 2.0 * RANGES[name][1]) for name in NAMES[kind]}
    recording = fs.Recording(spikes, times=times, weight=lambda one: one.tau_syn[:, None] * weights / CAPACITY)
    found = fs.fit_neuron(neuron, bounds, recording, noise="times" if jitter else "membrane", keep=4)
    return torch.tensor([found.values[names[name]] for name in NAMES[kind]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--until", type=float, default=500.0, help="length of the recording in ms")
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--only", default="", help="only the rows that begin so, such as 'lif, no noise'")
    given = parser.parse_args()
    for kind, names in NAMES.items():
        for what, jitter, noise in NOISE:
            if not f"{kind}, {what}".startswith(given.only):
                continue
            errors, count = [], 0
            for seed in range(given.seeds):
                generator = torch.Generator().manual_seed(seed)
                true = drawn(kind, generator)
                ends = given.until - 10
                times = torch.rand(given.inputs, int(15e-3 * given.until), generator=generator, dtype=torch.float64)
                times = (times * ends / STEP).round().clamp(min=1).sort(dim=-1).values * STEP
                weights = 50 + 400 * torch.rand(given.inputs, generator=generator, dtype=torch.float64)
                spikes = recorded(kind, true, times.round(decimals=3), weights, given.until, noise, seed)
                seen = spikes + jitter * torch.randn(len(spikes), generator=generator, dtype=torch.float64)
                if kind == "mat":
                    seen = seen - STEP / 2  # it spikes at the end of a step
                found = fitted(kind, times + STEP, weights, seen.sort().values, jitter)
                errors.append((found / true - 1).abs())
                count += len(spikes)
            middle, most = torch.stack(errors).median(dim=0).values, torch.stack(errors).amax(dim=0)
            shown = ", ".join(f"{x} {100 * m:.2g} ({100 * y:.2g})" for x, m, y in zip(names, middle, most, strict=True))
            print(
                f"{kind}, {what}, {count / given.seeds:.0f} spikes: error in %, median (largest): {shown}", flush=True
            )


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    main()
