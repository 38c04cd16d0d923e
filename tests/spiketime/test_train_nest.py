"""Spike trains of NEST, whose neurons of this kind have spikes between its time steps, against ``spike_trains``."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from firstspike import LIF, spike_trains

TAU_MS = 10.0  # of the synapses; NEST's numbers are in ms, mV, pF and pA
STEP_MS = 0.1
GRAZING = 1e-5  # relative change of the threshold that no other spike may come or go with

NEST_RUN = textwrap.dedent(
    """
    import sys
    import nest
    import numpy as np

    given = np.load(sys.argv[1])
    nest.set_verbosity("M_ERROR")
    nest.ResetKernel()
    nest.resolution = float(given["step"])
    weight, delay = given["weight"], float(given["delay"])
    cells = nest.Create("iaf_psc_exp_ps", len(weight), {
        "tau_m": float(given["tau_mem"]), "tau_syn_ex": float(given["tau_syn"]), "tau_syn_in": float(given["tau_syn"]),
        "C_m": float(given["tau_syn"]), "E_L": 0.0, "V_m": 0.0, "V_th": 10.0, "V_reset": float(given["reset"]),
        "t_ref": float(given["refractory"]), "I_e": 0.0,
    })
    sources = nest.Create("spike_generator", weight.shape[1], [
        {"spike_times": train[train < np.inf].tolist(), "precise_times": True} for train in given["times"]
    ])
    nest.Connect(sources, cells, "all_to_all", {"weight": weight, "delay": delay})
    recorder = nest.Create("spike_recorder")
    nest.Connect(cells, recorder, syn_spec={"delay": delay})
    nest.Simulate(float(given["until"]) + 2 * delay)
    found = recorder.get("events")
    np.savez(sys.argv[2], index=found["senders"] - cells[0].global_id, time=found["times"] - delay)
    """
)


@pytest.mark.nest
@pytest.mark.parametrize(("tau_mem", "refractory", "reset"), [(2.0, 0.2, 0.0), (0.8, 0.5, -0.3), (1.3, 0.1, 0.25)])
def test_trains_of_200_neurons(tau_mem, refractory, reset, tmp_path):
    """Over 20 synaptic time constants; a process of its own, as the import of NEST changes that of later modules."""
    generator = torch.Generator().manual_seed(5)
    times = torch.rand(1, 40, 8, generator=generator, dtype=torch.float64).sort(-1).values * 20
    weight = (torch.rand(200, 40, generator=generator, dtype=torch.float64) - 0.2) * 0.8
    found, low, high = (
        spike_trains(times, weight, LIF(tau_mem, 1.0, threshold, reset, refractory), max_spikes=150)[0]
        for threshold in (1.0, 1 - GRAZING, 1 + GRAZING)
    )
    lead = 1.0  # ms; NEST begins after time 0
    np.savez(
        tmp_path / "given.npz",
        times=times[0].numpy() * TAU_MS + lead,
        weight=weight.numpy() * 10,
        step=STEP_MS,
        delay=STEP_MS,
        tau_mem=tau_mem * TAU_MS,
        tau_syn=TAU_MS,
        refractory=refractory * TAU_MS,
        reset=reset * 10,
        until=60 * TAU_MS,
    )
    command = [sys.executable, "-c", NEST_RUN, str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
    subprocess.run(command, check=True, capture_output=True, env={"PYNEST_QUIET": "1"})
    nest = np.load(tmp_path / "found.npz")
    grazes = 0
    for neuron in range(200):
        own = found[neuron][found[neuron].isfinite()]
        theirs = torch.from_numpy(np.sort(nest["time"][nest["index"] == neuron])) - lead
        near = low[neuron].isfinite().sum() != high[neuron].isfinite().sum()
        grazes += int(near)
        if not near:
            assert len(own) == len(theirs), neuron
            torch.testing.assert_close(theirs / TAU_MS, own, rtol=0, atol=1e-9)
    assert found.isfinite().sum() > 1000
    assert grazes <= 2
