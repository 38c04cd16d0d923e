"""A recurrent network in ms and mV twice: here, with a gradient, and in plain NEST, which it needs with PyNN.

80 excitatory and 20 inhibitory neurons are connected at random, with delays of 1.5 ms. Each gets spikes of its own
Poisson process. ``python examples/nest_twin.py [FIGURE]`` prints the differences and draws both.
"""

import sys
import time

import numpy as np
import torch

import firstspike as fs

EXCITATORY, INHIBITORY, DURATION, STEP = 80, 20, 200.0, 0.1  # ms
N = EXCITATORY + INHIBITORY
C_M, TAU_M, TAU_EX, TAU_IN, V_TH, V_RESET, T_REF, DELAY = 250.0, 10.0, 2.0, 5.0, 15.0, 0.0, 2.0, 1.5  # pF, ms, mV

draw = np.random.default_rng(1)
connected = draw.random((N, N)) < 0.1  # [target, source]
np.fill_diagonal(connected, False)
weight = np.where(np.arange(N) < EXCITATORY, 120.0, -300.0) * draw.uniform(0.5, 1.5, (N, N)) * connected
drive = draw.uniform(250.0, 350.0, N)  # of each neuron's input, in pA as the weights
trains = [np.sort(draw.uniform(1.0, DURATION, draw.poisson(0.5 * DURATION))) for _ in range(N)]  # 500 per s


def firstspike_network() -> tuple[fs.Network, torch.Tensor]:
    """The network, and the times of its inputs: (batch, inputs, spikes), with inf after the last spike."""
    neuron = fs.LIF(TAU_M, (TAU_EX, TAU_IN), V_TH, reset=V_RESET, refractory=T_REF)
    layer = fs.SpikingRecurrent(
        N, N, 60, DURATION, neuron, window=DELAY, window_spikes=1, receptor="sign", dtype=torch.float64
    )
    with torch.no_grad():  # pA become mV: a weight is the area of the current over the capacity
        layer.weight.copy_(torch.diag(torch.from_numpy(drive * TAU_EX / C_M)))
        layer.recurrent_weight.copy_(torch.from_numpy(weight * np.where(weight > 0, TAU_EX, TAU_IN) / C_M))
    times = torch.full((1, N, max(map(len, trains))), torch.inf, dtype=torch.float64)
    for train, row in zip(trains, times[0], strict=True):
        row[: len(train)] = torch.from_numpy(train)
    return fs.Network(layer), times


def plain_nest() -> list[np.ndarray]:
    """The spikes of each neuron, in ms, as a user of NEST writes it."""
    import nest

    nest.verbosity = nest.VerbosityLevel.ERROR
    nest.ResetKernel()
    nest.resolution = STEP
    neurons = nest.Create(
        "iaf_psc_exp_ps", N,
        {"C_m": C_M, "tau_m": TAU_M, "tau_syn_ex": TAU_EX, "tau_syn_in": TAU_IN, "E_L": 0.0, "V_m": 0.0, "V_th": V_TH,
         "V_reset": V_RESET, "t_ref": T_REF, "I_e": 0.0},
    )  # fmt: skip
    # a generator needs a delay, too, by which its spikes are sent ahead
    inputs = nest.Create("spike_generator", N, {"precise_times": True})
    for generator, train in zip(inputs, trains, strict=True):
        generator.spike_times = train - STEP
    synapse = {"synapse_model": "static_synapse", "weight": drive, "delay": np.full(N, STEP)}
    nest.Connect(inputs, neurons, "one_to_one", synapse)
    targets, sources = connected.nonzero()
    nest.Connect(
        np.array(neurons)[sources], np.array(neurons)[targets], "one_to_one",
        {"synapse_model": "static_synapse", "weight": weight[connected], "delay": np.full(len(sources), DELAY)},
    )  # fmt: skip
    recorder = nest.Create("spike_recorder")
    nest.Connect(neurons, recorder)
    nest.Simulate(DURATION)
    first = neurons[0].global_id
    return [np.sort(recorder.events["times"][recorder.events["senders"] == first + k]) for k in range(N)]


def differences(name: str, here: list[np.ndarray], there: list[np.ndarray]) -> np.ndarray:
    """Differences of spikes, of neurons that spike equally often in both."""
    pairs = [(one, other) for one, other in zip(here, there, strict=True) if len(one) == len(other)]
    apart = np.concatenate([one - other for one, other in pairs])
    print(
        f"{name}: {sum(map(len, there))} spikes, firstspike {sum(map(len, here))}; {len(apart)} agree, largest "
        f"difference {abs(apart).max():.2g} ms"
    )
    return apart


def figure(here: list[np.ndarray], there: list[np.ndarray], apart: np.ndarray, file: str) -> None:
    """A raster of both, and how much they differ."""
    import matplotlib.pyplot as plt

    drawn, (raster, histogram) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(2.4, 1), layout="constrained")
    for name, rows, colour in (("excitatory", slice(0, EXCITATORY), "C0"), ("inhibitory", slice(EXCITATORY, N), "C3")):
        raster.eventplot(here[rows], lineoffsets=range(N)[rows], linelengths=1.6, colors=colour)
        raster.plot([], [], "|", color=colour, label=f"firstspike, {name}")
    rows = np.repeat(np.arange(N), [len(spikes) for spikes in there])
    raster.plot(np.concatenate(there), rows, "o", mfc="none", mec="0.4", mew=0.5, ms=4, label="NEST")
    raster.set(xlabel="time [ms]", ylabel="neuron", xlim=(0, DURATION), ylim=(-1, N))
    raster.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)
    histogram.hist(apart * 1e12, bins=41)
    histogram.set(xlabel="firstspike - NEST [1e-12 ms]", ylabel="spikes")
    drawn.savefig(file, dpi=120)


def main() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The spikes of each neuron here, in NEST, and in NEST through the substrate."""
    network, times = firstspike_network()
    for _ in range(2):  # the first pass also compiles
        output = network(times)
        begin = time.perf_counter()
        output[output.isfinite()].sum().backward()
        seconds = time.perf_counter() - begin

    def by_neuron(output: torch.Tensor) -> list[np.ndarray]:
        return [train[np.isfinite(train)] for train in output[0].detach().numpy()]

    here, there = by_neuron(output), plain_nest()
    with fs.substrates.Nest(step=STEP, duration=DURATION, unit="times").open(network) as nest:
        substrate = by_neuron(nest.run(network, times).output)
    apart = differences("plain NEST", here, there)
    differences("substrate nest", here, substrate)
    print(f"backward pass: {seconds:.2f} s")
    if len(sys.argv) > 1:
        figure(here, there, apart, sys.argv[1])
    return here, there, substrate


if __name__ == "__main__":
    main()
