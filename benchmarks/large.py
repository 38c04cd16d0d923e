"""Large networks, simulated by firstspike, NEST and Brian2: ``python benchmarks/large.py brunel``, or ``10000 100``.

Names are those of ``KNOWN`` in ``known_networks.py``. Two numbers are a balanced random network: neurons, and the
synapses of each. One run builds the network and simulates it in each program, in a process of its own with one thread:

* firstspike in float32, forward and backward;
* NEST's ``iaf_psc_exp_ps``, whose spikes are as precise, with each of the network's steps; the fastest counts;
* Brian2 in steps of 0.1 ms, if ``--brian2`` names a Python that has it.

Times are CPU seconds, building apart, and nanoseconds for each synaptic event: the arrival of a spike at a synapse,
inputs included. Then spikes in float64 are compared with those of NEST until those of some neuron differ by more than
1e-6 ms: of ``iaf_psc_exp_ps``, which tests at the ends of intervals whether a membrane has crossed, and of
``iaf_psc_exp_ps_lossless`` where that runs. The one that stays the same for longer is in the table.

``--save`` keeps the numbers of known networks in ``large.json`` and writes the table in ``docs/large_networks.md``.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from known_networks import KNOWN, Case, balanced
from timing import machine, resident

from firstspike.spiketime import shared

HERE = Path(__file__).parent
NUMBERS, PAGE = HERE / "large.json", HERE.parent / "docs" / "large_networks.md"
APART = 1e-6  # ms
Numbers = dict[str, Any]


def events_of(case: Case, trains: torch.Tensor) -> int:
    """How many spikes arrive at a synapse."""
    layer = case.layer
    sets = (layer.sparse["weight"], case.times), (layer.recurrent, trains)
    return sum(int(x.rows.diff() @ spikes[0].isfinite().sum(-1)) for x, spikes in sets)


def simulated(make: Any, repeats: int, forward_only: bool = False) -> Numbers:
    """What firstspike takes, the fastest of some runs after the one that compiles."""
    start = time.process_time()
    case = make()
    built, best = time.process_time() - start, [float("inf")] * 2
    times = case.times.to(case.layer.weight)
    for _ in range(repeats + 1):
        start = time.process_time()
        with torch.set_grad_enabled(not forward_only):
            trains = case.layer(times)
        middle = time.process_time()
        if not forward_only:
            trains[trains.isfinite()].sum().backward()
        took = middle - start, time.process_time() - middle
        best = [min(pair) for pair in zip(best, took, strict=True)]
        case.layer.zero_grad()
    spikes, neurons = int(trains.isfinite().sum()), case.layer.out_features
    return {
        "neurons": neurons, "synapses": len(case.layer.recurrent), "ms": case.layer.duration, "spikes": spikes,
        "events": events_of(case, trains), "built": built, "forward": best[0], "backward": best[1],
        "peak": resident("VmHWM") * 2**20 / 1e9,
    }  # fmt: skip


def write(case: Case, path: Path) -> None:
    """The network for other programs."""
    layer, neuron = case.layer, case.layer.neuron
    found: dict[str, Any] = {
        "neurons": layer.out_features, "inputs": layer.in_features, "duration": layer.duration,
        "tau_syn": np.atleast_1d(neuron.tau_syn),
    }  # fmt: skip
    for name in ("tau_mem", "threshold", "reset", "refractory", "bias"):
        found[name] = torch.as_tensor(getattr(neuron, name)).detach().double().numpy()
    for synapses, name in ((layer.sparse["weight"], "in_"), (layer.recurrent, "")):
        found |= {name + x: getattr(synapses, x).numpy().astype(np.int32) for x in ("source", "target")}
        found[name + "weight"] = synapses.weight.double().numpy()
    found["delay"] = layer.recurrent.delay.double().numpy()
    times = case.times[0].double().sort(dim=-1).values.numpy()
    found["input"], _ = np.nonzero(np.isfinite(times))
    found["input_time"] = times[np.isfinite(times)]
    np.savez(path, **found)


def elsewhere(python: str, *arguments: str, folder: Path) -> tuple[Numbers, dict[str, np.ndarray]]:
    """What another program says of the network in a folder, and its spikes."""
    program, *more = arguments
    command = [python, str(HERE / "simulators.py"), program, str(folder / "network.npz"), str(folder / "spikes.npz")]
    done = subprocess.run([*command, *more], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1]}")
    with np.load(folder / "spikes.npz") as file:
        return json.loads(done.stdout.splitlines()[-1]), dict(file)


def compared(case: Case, other: np.ndarray, senders: np.ndarray) -> Numbers:
    """How long the spikes of both are the same."""
    with torch.no_grad():
        trains = case.layer(case.times)[0]
    neurons, duration = case.layer.out_features, case.layer.duration
    senders, other = senders[other <= duration], other[other <= duration]
    twins = np.full((neurons, 1 + int(np.bincount(senders).max(initial=0))), np.inf)
    order = np.lexsort((other, senders))
    first = np.searchsorted(senders[order], senders[order])
    twins[senders[order], np.arange(len(order)) - first] = other[order]
    most = max(twins.shape[1], trains.shape[1])
    ours, theirs = (
        np.pad(x, ((0, 0), (0, most - x.shape[1])), constant_values=np.inf) for x in (trains.numpy(), twins)
    )
    late = np.minimum(ours, theirs)
    apart = np.isfinite(late) & ~np.isclose(ours, theirs, rtol=0, atol=APART)
    until = late[apart].min(initial=duration)
    worst = abs(ours[late < until] - theirs[late < until]).max(initial=0.0)
    counts = int(np.isfinite(ours).sum()), len(other)
    return {"same": int((late < until).sum()), "until": float(until), "worst": float(worst), "counts": counts}


def measured(make: Any, options: argparse.Namespace) -> Numbers:
    found = {"firstspike": simulated(lambda: make(options.duration), options.repeats)}
    print(json.dumps(found), flush=True)
    if options.alone:
        return found
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = make(options.duration, dtype=torch.float64)
        write(case, folder / "network.npz")
        for step in case.steps:
            runs = found.setdefault("NEST", [])
            runs.append(elsewhere(sys.executable, "nest", "--step", str(step), folder=folder)[0] | {"step": step})
            print(json.dumps(runs[-1]), flush=True)
        if options.brian2:
            found["Brian2"] = elsewhere(options.brian2, "brian2", folder=folder)[0]
            print(json.dumps(found["Brian2"]), flush=True)
        case = make(min(case.layer.duration, options.compared), dtype=torch.float64)
        write(case, folder / "network.npz")
        for model in ("iaf_psc_exp_ps_lossless", "iaf_psc_exp_ps"):
            try:
                _, spikes = elsewhere(sys.executable, "nest", "--model", model, folder=folder)
            except RuntimeError as error:  # several time constants of synapses, or numerical instability
                print(error, flush=True)
                continue
            alike = compared(case, spikes["times"], spikes["senders"]) | {"model": model}
            found.setdefault("same", []).append(alike)
            print(json.dumps(alike), flush=True)
    return found


def three(x: float) -> str:
    """Three digits."""
    return f"{float(f'{x:.3g}'):g}"


def table(numbers: Numbers) -> str:
    """Networks measured on one processor as Markdown."""
    heads = ["network", "synapses", "spikes", "forward", "backward", "NEST", "Brian2", "built", "memory", "same spikes"]
    rows = [heads, ["---"] * len(heads)]
    for name, found in numbers.items():
        own, nest = found["firstspike"], min(found.get("NEST", []), key=lambda x: x["took"], default=None)
        others = [
            x and f"{three(x['took'])} s ({three(x['took'] / own['forward'])})" for x in (nest, found.get("Brian2"))
        ]
        both = (own, nest) if nest else (own,)
        same = max(found.get("same", []), key=lambda x: x["until"], default=None)
        rows.append([
            f"`{name}`", f"{own['synapses']:,}".replace(",", " "), f"{own['spikes']:,}".replace(",", " "),
            *(f"{three(own[x])} s ({three(1e9 * own[x] / own['events'])} ns)" for x in ("forward", "backward")),
            *(x or "" for x in others), *(" / ".join(f"{x[y]:.2g}" for x in both) for y in ("built", "peak")),
            f"{same['same']}, {same['until']:.0f} ms" if same else "",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def save(name: str, found: Numbers) -> None:
    """Keep numbers, and write those of this processor into the page."""
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    processor = machine("cpu", torch.device("cpu")).partition(";")[0]
    own = numbers.setdefault(processor, {})
    own[name] = found | {"date": datetime.date.today().isoformat()}
    numbers[processor] = {key: own[key] for key in KNOWN if key in own}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(r"\| network \|[^\0]*?(?=\n\n)", lambda _: table(numbers[processor]), page, count=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="+", help=f"{', '.join(KNOWN)}; or two numbers")
    parser.add_argument("--duration", type=float, help="ms")
    parser.add_argument("--compared", type=float, default=200.0, help="ms of which spikes are compared, at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--receptors", action="store_true", help="of two numbers: two time constants of synapses")
    parser.add_argument("--delays", action="store_true", help="of two numbers: up to 10 ms, one for each synapse")
    parser.add_argument("--alone", action="store_true", help="without other programs")
    parser.add_argument("--brian2", metavar="PYTHON", help="the Python of an environment with Brian2")
    parser.add_argument("--save", action="store_true", help="in large.json and the page")
    options = parser.parse_args()
    shared.use_threads(1)
    torch.set_num_threads(1)
    name, *number = options.network
    if not number:
        base = KNOWN[name]
    else:
        sizes = int(name), int(number[0])

        def base(duration: float = 150.0, dtype: torch.dtype = torch.float32) -> Case:
            return balanced(*sizes, duration, dtype=dtype, two=options.receptors, each=options.delays)

        options.alone |= options.receptors or options.delays

    def make(duration: float | None, **more: Any) -> Case:
        return base(**more) if duration is None else base(duration, **more)

    found = measured(make, options)
    print(table({" ".join(options.network): found}))
    if options.save:
        save(name, found)


if __name__ == "__main__":
    main()
