"""Balanced random networks, simulated by firstspike and by NEST: ``python benchmarks/large.py 10000 100``.

Per synaptic event, the arrival of a spike at a synapse, it prints the CPU time of one thread: of firstspike's forward
and backward pass in float32, and of NEST's ``iaf_psc_exp_ps``, whose spike times are as precise. In a first part the
spikes of both are compared, in float64, until those of some neuron differ; there NEST's model is the one that misses
no crossing, ``iaf_psc_exp_ps_lossless``.

Four fifths of the neurons excite. The others inhibit, five times as strongly. Each neuron has the given number of
synapses from the network, with a delay of 1.5 ms, and ten from Poisson sources, of which there are a tenth as many as
neurons.
"""

import argparse
import resource
import time

import numpy as np
import torch

import firstspike as fs
from firstspike.spiketime import shared

NEURON = {"tau_mem": 10.0, "tau_syn": 2.0, "refractory": 2.0}  # ms, thresholds
EACH, RATE, DELAY, STEP = 10, 50.0, 1.5, 0.1  # inputs of a neuron, their rate in Hz, the delay and NEST's step in ms
DRIVE = 0.15  # weight of inputs, with which neurons spike at about 10 Hz


def network(neurons: int, synapses: int, duration: float, dtype: torch.dtype, *, two: bool, each: bool):
    """A layer, and its inputs."""
    draw = torch.Generator().manual_seed(0)
    inputs, excite = neurons // 10, neurons * 4 // 5
    size = 0.3 / synapses**0.5
    indegree = [round(synapses * part) for part in (0.8, 0.2)]
    delay = torch.distributions.Uniform(DELAY, 10.0) if each else DELAY
    options = {"delay": delay, "multapses": True, "generator": draw}
    weight = torch.distributions.Uniform(0.5 * size, 1.5 * size)
    strong = torch.distributions.Uniform(-7.5 * size, -2.5 * size)
    recurrent = fs.connect.fixed_indegree(excite, neurons, indegree[0], weight=weight, **options).at(sources=neurons)
    recurrent += fs.connect.fixed_indegree(neurons - excite, neurons, indegree[1], weight=strong, **options).at(excite)
    drive = torch.distributions.Uniform(0.5 * DRIVE, 1.5 * DRIVE)
    more = {"weight": drive, "multapses": True, "generator": draw}
    outer = fs.connect.fixed_indegree(inputs, neurons, EACH, **more)
    receptors = {}
    neuron = fs.LIF(**NEURON)
    if two:
        neuron = fs.LIF(**NEURON | {"tau_syn": (2.0, 4.0)})
        kinds = [0] * excite + [1] * (neurons - excite)
        receptors = {"receptor": [0] * inputs, "recurrent_receptor": kinds}
    layer = fs.SpikingRecurrent(
        inputs, neurons, round(duration * 0.08) + 8, duration, neuron, window=DELAY, overflow="drop", synapses=outer,
        recurrent=recurrent, dtype=dtype, **receptors,
    )  # fmt: skip
    count = torch.poisson(torch.full((inputs,), RATE * duration * 1e-3), draw).long()
    times = duration * torch.rand(inputs, int(count.max()), generator=draw, dtype=torch.float64)
    times[torch.arange(times.shape[1]) >= count.unsqueeze(-1)] = torch.inf
    return layer, times.to(dtype)[None]


def events_of(layer, times: torch.Tensor, trains: torch.Tensor) -> int:
    """How many spikes arrive at a synapse."""
    sets = (layer.sparse["weight"], times), (layer.recurrent, trains)
    return sum(int(x.rows.diff() @ spikes[0].isfinite().sum(-1)) for x, spikes in sets)


def in_nest(layer, times: torch.Tensor, duration: float, model: str, records: bool = False):
    """Spike times and senders, CPU seconds to build and to simulate."""
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.SetKernelStatus({"resolution": STEP, "local_num_threads": 1, "print_time": False})
    start = time.process_time()
    tau = NEURON["tau_syn"]
    parameters = {
        "tau_m": NEURON["tau_mem"], "tau_syn_ex": tau, "tau_syn_in": tau, "C_m": 1.0, "E_L": 0.0, "V_m": 0.0,
        "V_th": 1.0, "V_reset": 0.0, "t_ref": NEURON["refractory"], "I_e": 0.0,
    }  # fmt: skip
    cells = nest.Create(model, layer.out_features, parameters)
    sources = nest.Create("spike_generator", layer.in_features, {"precise_times": True})
    for source, train in zip(sources, times[0].double().numpy(), strict=True):
        source.set(spike_times=np.sort(train[np.isfinite(train)]))
    for places, found, delay in ((sources, layer.sparse["weight"], STEP), (cells, layer.recurrent, None)):
        gid, cid = np.array(places.tolist()), np.array(cells.tolist())
        delays = np.full(len(found), delay) if delay else found.delay.double().numpy()
        nest.Connect(
            gid[found.source.numpy()], cid[found.target.numpy()], "one_to_one",
            {"weight": found.weight.double().numpy() / tau, "delay": delays},
        )  # fmt: skip
    recorder = nest.Create("spike_recorder")
    if records:
        nest.Connect(cells, recorder)
    built = time.process_time() - start
    nest.Prepare()
    start = time.process_time()
    nest.Run(duration)
    took = time.process_time() - start
    nest.Cleanup()
    events = recorder.events
    return np.asarray(events["times"]), np.asarray(events["senders"]) - min(cells.tolist()), built, took


def compared(neurons: int, synapses: int) -> str:
    """How long the spikes of both are the same."""
    duration = 60.0
    layer, times = network(neurons, synapses, duration, torch.float64, two=False, each=False)
    with torch.no_grad():
        trains = layer(times + STEP)[0]
    other, senders, *_ = in_nest(layer, times, duration, "iaf_psc_exp_ps_lossless", True)
    twins = np.full((neurons, 1 + int(np.bincount(senders).max())), np.inf)
    order = np.lexsort((other, senders))
    first = np.searchsorted(senders[order], senders[order])
    twins[senders[order], np.arange(len(order)) - first] = other[order]
    most = min(twins.shape[1], trains.shape[1])
    ours, theirs = trains[:, :most].numpy(), twins[:, :most]
    late = np.minimum(ours, theirs)
    apart = np.isfinite(late) & ~np.isclose(ours, theirs, rtol=0, atol=1e-6)
    until = late[apart].min(initial=duration)
    worst = abs(ours[late < until] - theirs[late < until]).max(initial=0.0)
    found = f"{int(np.isfinite(ours).sum())} spikes of {neurons} neurons in {duration:g} ms, {len(other)} in NEST"
    return f"{found}; the {int((late < until).sum())} up to {until:.1f} ms differ by {worst:.1e} ms at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("neurons", type=int)
    parser.add_argument("synapses", type=int, help="of each neuron")
    parser.add_argument("--duration", type=float, default=150.0, help="ms")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--receptors", action="store_true", help="two time constants of synapses; NEST is left out")
    parser.add_argument("--delays", action="store_true", help="up to 10 ms, one for each synapse; NEST is left out")
    parser.add_argument("--without-nest", action="store_true")
    options = parser.parse_args()
    shared.use_threads(1)
    alone = options.receptors or options.delays or options.without_nest
    if not alone:
        print(compared(min(options.neurons, 2000), min(options.synapses, 100)))
    start = time.process_time()
    kind = {"two": options.receptors, "each": options.delays}
    layer, times = network(options.neurons, options.synapses, options.duration, torch.float32, **kind)
    print(f"built in {time.process_time() - start:.2f} s")
    best = [float("inf")] * 3
    for _ in range(options.repeats + 1):  # the first compiles
        start = time.process_time()
        trains = layer(times + STEP)
        middle = time.process_time()
        trains[trains.isfinite()].sum().backward()
        took = [middle - start, time.process_time() - middle, best[2]]
        best = [min(pair) for pair in zip(best, took, strict=True)]
        layer.zero_grad()
        if not alone:
            *_, built, run = in_nest(layer, times, options.duration, "iaf_psc_exp_ps")
            best[2] = min(best[2], run)
    events = events_of(layer, times, trains)
    rate = int(trains.isfinite().sum()) / options.neurons / options.duration * 1e3
    forward, backward, nest = (1e9 * x / events for x in best)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    line = f"{rate:.1f} Hz, {events / 1e6:.1f} million events: forward {forward:.1f} ns, backward {backward:.1f} ns"
    print(line + ("" if alone else f", NEST {nest:.1f} ns (built in {built:.1f} s)") + f"; at most {peak:.2g} GB")


if __name__ == "__main__":
    main()
