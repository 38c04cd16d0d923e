"""What the stand-in for a chip does in a run: all spikes of all neurons, from event to event."""

import math

import numpy as np
import torch

import firstspike as fs

CLOCK_US = 0.008
LATENCY_US = 0.08


def simulated(machine, until_us):
    """All spikes of a run, in microseconds."""
    trains = {}
    for population in machine.populations:
        if population.is_source:
            ticks = [np.floor(np.asarray(train) * 1e3 / CLOCK_US) for train in population.times]
            trains[population] = [train * CLOCK_US for train in ticks]
    for population in machine.populations:
        if not population.is_source:
            if population.parameters.get("event_routing_enable_bypass_excitatory"):
                trains[population] = forwarded(machine, population, trains)
            else:
                trains[population] = neighbours(machine, population, trains) or fired(
                    machine, population, trains, until_us
                )
    for population, spikes in trains.items():
        noted = [np.floor((np.asarray(x) + LATENCY_US) / CLOCK_US + 1e-6) * CLOCK_US for x in spikes]
        population.spikes = [x[x < until_us] for x in noted]


def fired(machine, population, trains, until_us):
    chip = machine.calibrated
    into = [x for x in machine.projections if x.after is population]
    if not into:
        return [[] for _ in range(population.size)]
    weight = np.concatenate([x.weight * x.mask for x in into]).T / chip["digits"]
    sources = [train for x in into for train in trains[x.before]]
    longest = max(map(len, sources))
    if not longest:
        return [[] for _ in range(population.size)]
    padded = [[*train, *([math.inf] * (longest - len(train)))] for train in sources]
    times = torch.tensor(np.asarray(padded), dtype=torch.float64)[None]
    most = 1 + int((until_us - float(times.min())) / chip["refractory_us"])
    tau_syn = chip["tau_syn_us"]
    two = isinstance(tau_syn, list)
    rest = chip["refractory_us"]
    neuron = fs.LIF(chip["tau_mem_us"], tuple(tau_syn) if two else tau_syn, chip["threshold"], refractory=rest)
    options = {"max_spikes": most, "until": until_us} | ({"receptor": "sign"} if two else {})
    found = fs.spike_trains(times, torch.from_numpy(weight), neuron, **options)[0].numpy()
    return [row[np.isfinite(row)] for row in found]


def resting(population):
    """How long its neurons rest, in microseconds."""
    return 2.0 + np.broadcast_to(population.parameters["refractory_period_refractory_time"], population.size) / 8.0


def forwarded(machine, population, trains):
    """Neurons that forward each spike at once, then rest."""
    assert population.parameters["multicompartment_connect_right"]
    found = [[] for _ in range(population.size)]
    for x in machine.projections:
        if x.after is population:
            assert x.receptor == "excitatory"
            for before, after in zip(*np.nonzero(x.mask), strict=True):
                assert x.weight[before, after] == 800
                found[after] += list(trains[x.before][before])
    kept = []
    for spikes, rest in zip(found, resting(population), strict=True):
        own = []
        for spike in sorted(spikes):
            if not own or spike >= own[-1] + rest:
                own.append(spike)
        kept.append(own)
    return kept


def neighbours(machine, population, trains):
    """Neurons right of forwarding ones, which fire when those have rested; None if they are not such."""
    before = {}
    for other in machine.populations:
        if not other.is_source and other.parameters.get("event_routing_enable_bypass_excitatory"):
            before |= {c: (other, k) for k, c in enumerate(other.circuits)}
    pairs = [before.get(circuit - 1) for circuit in population.circuits]
    if None in pairs:
        assert not any(pairs)
        return None
    assert all(circuit % 2 for circuit in population.circuits), "pairs are an even circuit and the odd one behind it"
    return [np.asarray(trains[other][k]) + resting(other)[k] for other, k in pairs]
