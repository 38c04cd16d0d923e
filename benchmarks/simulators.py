"""A network that ``benchmarks/large.py`` has written to a file, simulated on one thread by NEST or Brian2.

Needs only NumPy and the simulator: ``python benchmarks/simulators.py nest network.npz spikes.npz``. Prints JSON: CPU
seconds to build and to simulate, and the peak of the process in GB.
"""

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np

Found = tuple[np.ndarray, np.ndarray, float, float]
"""Spike times and senders; CPU seconds to build and to simulate."""


def in_nest(given: dict[str, np.ndarray], step: float, model: str) -> Found:
    """Inputs leave their generators a step before they arrive."""
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.SetKernelStatus({"resolution": step, "local_num_threads": 1, "print_time": False})
    start = time.process_time()
    excites, inhibits = (float(given["tau_syn"][k]) for k in (0, -1))
    parameters = {
        "tau_m": given["tau_mem"], "tau_syn_ex": excites, "tau_syn_in": inhibits, "C_m": 1.0, "E_L": 0.0, "V_m": 0.0,
        "V_th": given["threshold"], "V_reset": given["reset"], "t_ref": given["refractory"],
    }  # fmt: skip
    cells = nest.Create(model, int(given["neurons"]), {key: float(x) for key, x in parameters.items()})
    if (bias := given["bias"]).any():
        cells.I_e = np.broadcast_to(bias / given["tau_mem"], len(cells)).tolist()
    sources = nest.Create("spike_generator", int(given["inputs"]), {"precise_times": True})
    trains = np.split(given["input_time"] - step, np.cumsum(np.bincount(given["input"], minlength=len(sources)))[:-1])
    for source, train in zip(sources, trains, strict=True):
        source.set(spike_times=train)
    cell, generator = np.array(cells.tolist()), np.array(sources.tolist())
    for ids, name in ((generator, "in_"), (cell, "")):
        weight = given[name + "weight"]
        delay = given["delay"] if not name else np.full(len(weight), step)
        nest.Connect(
            ids[given[name + "source"]], cell[given[name + "target"]], "one_to_one",
            {"weight": weight / np.where(weight < 0, inhibits, excites), "delay": delay},
        )  # fmt: skip
    recorder = nest.Create("spike_recorder")
    nest.Connect(cells, recorder)
    nest.Prepare()
    built = time.process_time() - start
    start = time.process_time()
    nest.Run(np.ceil(float(given["duration"]) / step) * step)
    took = time.process_time() - start
    nest.Cleanup()
    events = recorder.events
    return np.asarray(events["times"]), np.asarray(events["senders"]) - cell[0], built, took


def in_brian(given: dict[str, np.ndarray], step: float, model: str) -> Found:
    """Neurons by exact steps (Cython), inputs and delays rounded to them; inputs that coincide then are dropped."""
    import brian2 as b

    b.BrianLogger.log_level_error()
    b.defaultclock.dt = step * b.ms
    start = time.process_time()
    excites, inhibits = (float(given["tau_syn"][k]) for k in (0, -1))
    mem = float(given["tau_mem"])
    names = {"tau": mem * b.ms, "tau_e": excites * b.ms, "tau_i": inhibits * b.ms}
    names |= {x: float(given[x]) for x in ("threshold", "reset")}
    equations = """dv/dt = (bias - v + excite + inhibit)/tau : 1 (unless refractory)
    dexcite/dt = -excite/tau_e : 1
    dinhibit/dt = -inhibit/tau_i : 1
    bias : 1 (constant)"""
    rest = float(given["refractory"]) * b.ms
    cells = b.NeuronGroup(
        int(given["neurons"]), equations, threshold="v > threshold", reset="v = reset", refractory=rest,
        method="exact", namespace=names,
    )  # fmt: skip
    cells.bias = given["bias"]
    at = np.round(given["input_time"] / step).astype(np.int64)
    at, who = np.unique(np.stack([at, given["input"]]), axis=1)
    sources = b.SpikeGeneratorGroup(int(given["inputs"]), who, at * step * b.ms)
    parts = []
    for before, name in ((sources, "in_"), (cells, "")):
        for sign, variable, tau in ((1, "excite", excites), (-1, "inhibit", inhibits)):
            chosen = sign * given[name + "weight"] > 0
            if not chosen.any():
                continue
            delay, model = given["delay"][chosen] if not name else np.zeros(1), "w : 1"
            same = {"delay": float(delay[0]) * b.ms} if (delay == delay[0]).all() else {}
            made = b.Synapses(before, cells, model, on_pre=f"{variable}_post += w", **same)
            made.connect(i=given[name + "source"][chosen], j=given[name + "target"][chosen])
            made.w = given[name + "weight"][chosen] * mem / tau
            if not same:
                made.delay = delay * b.ms
            parts.append(made)
    monitor = b.SpikeMonitor(cells)
    network = b.Network(cells, sources, monitor, *parts)
    network.run(0 * b.ms)  # compiles
    built = time.process_time() - start
    start = time.process_time()
    network.run(float(given["duration"]) * b.ms)
    took = time.process_time() - start
    return np.asarray(monitor.t / b.ms), np.asarray(monitor.i), built, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator", choices=["nest", "brian2"])
    parser.add_argument("network")
    parser.add_argument("spikes")
    parser.add_argument("--step", type=float, default=0.1, help="ms")
    parser.add_argument("--model", default="iaf_psc_exp_ps", help="of NEST")
    options = parser.parse_args()
    with np.load(options.network) as file:
        given = dict(file)
    simulate = in_nest if options.simulator == "nest" else in_brian
    times, senders, built, took = simulate(given, options.step, options.model)
    np.savez(options.spikes, times=times, senders=senders)
    peak = int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0]) / 1e6
    print(json.dumps({"built": built, "took": took, "peak": peak, "spikes": len(times)}))


if __name__ == "__main__":
    main()
