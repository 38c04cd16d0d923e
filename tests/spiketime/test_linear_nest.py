"""Spike trains of NEST, whose linear neurons spike at its time steps, against ``spike_trains``.

NEST's numbers are in ms, mV, pF and pA. A current of w pA that decays is ``w tau_syn / C_m`` mV here. NEST's alpha
functions have w at their peak, and are ``w e tau_syn / C_m``.
"""

import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from firstspike import LIF, spike_trains
from firstspike.neurons import AdaptiveLIF

COARSE, FINE = 0.01, 0.001  # ms
DELAY = 0.01  # in NEST, which has no connection without
UNTIL, CAPACITY = 150.0, 200.0
GRAZING = 1e-3  # relative change of the threshold that no other spike may come or go with

NEST_RUN = textwrap.dedent(
    """
    import sys
    import nest
    import numpy as np

    given = np.load(sys.argv[1], allow_pickle=False)
    nest.set_verbosity("M_ERROR")
    nest.ResetKernel()
    nest.resolution = float(given["step"])
    weight, delay = given["weight"], float(given["delay"])
    names = [name[2:] for name in given.files if name.startswith("p_")]
    cells = nest.Create(str(given["model"]), len(weight), {name: float(given["p_" + name]) for name in names})
    sources = nest.Create("spike_generator", weight.shape[1], [
        {"spike_times": np.round(train - delay, 6).tolist()} for train in given["times"]
    ])
    nest.Connect(sources, cells, "all_to_all", {"weight": weight, "delay": delay})
    recorder = nest.Create("spike_recorder")
    nest.Connect(cells, recorder, syn_spec={"delay": delay})
    nest.Simulate(float(given["until"]))
    found = recorder.get("events")
    np.savez(sys.argv[2], index=found["senders"] - cells[0].global_id, time=found["times"])
    """
)

SHARED = {"C_m": CAPACITY, "E_L": 0.0, "V_m": 0.0, "tau_m": 12.0, "tau_syn_ex": 4.0, "tau_syn_in": 7.0, "t_ref": 2.0}
RESET = {"V_th": 15.0, "V_reset": -3.0}
MODELS = {
    "iaf_psc_exp": RESET | {"I_e": 120.0},
    "iaf_psc_alpha": RESET | {"I_e": 120.0},
    "iaf_psc_exp, driven": RESET | {"I_e": 280.0},
    "mat2_psc_exp": {"omega": 15.0, "tau_1": 10.0, "tau_2": 60.0, "alpha_1": 14.0, "alpha_2": 3.0, "I_e": 120.0},
}


def neuron_of(model, threshold, given):
    """The same neuron, and its weights in mV for 1 pA by receptor."""
    synapses = given["tau_syn_ex"], given["tau_syn_in"]
    common = {"tau_mem": given["tau_m"], "tau_syn": synapses, "refractory": given["t_ref"]}
    common["bias"] = given["I_e"] * given["tau_m"] / given["C_m"]
    factors = [tau / given["C_m"] for tau in synapses]
    if model == "mat2_psc_exp":
        parts = [(given["tau_1"], given["alpha_1"]), (given["tau_2"], given["alpha_2"])]
        common |= {"threshold": given["omega"] * threshold, "reset": None}
        return AdaptiveLIF(threshold_adaptation=parts, **common), factors
    common |= {"threshold": given["V_th"] * threshold, "reset": given["V_reset"]}
    if model == "iaf_psc_alpha":
        return LIF(tau_rise=synapses, **common), [math.e * x for x in factors]
    return LIF(**common), factors


@pytest.mark.nest
@pytest.mark.parametrize("kind", MODELS)
def test_trains_of_100_neurons(kind, tmp_path):
    model, given = kind.split(",")[0], SHARED | MODELS[kind]
    generator = torch.Generator().manual_seed(2)
    times = (1 + 0.8 * UNTIL * torch.rand(1, 30, 6, generator=generator, dtype=torch.float64)).sort(-1).values
    times = (times / DELAY).round() * DELAY
    picoampere = 90 * torch.randn(100, 30, generator=generator, dtype=torch.float64) + 25
    runs = []
    for level in (1.0, 1 - GRAZING, 1 + GRAZING):
        neuron, factors = neuron_of(model, level, given)
        weight = torch.where(picoampere > 0, factors[0], factors[1]) * picoampere
        runs.append(spike_trains(times, weight, neuron, receptor="sign", max_spikes=200, until=UNTIL)[0])
    counts = [run.isfinite().sum(-1) for run in runs]
    sure = ((counts[1] == counts[0]) & (counts[2] == counts[0])).tolist()
    assert sum(sure) >= 95
    assert counts[0].sum() > 200
    for step in (COARSE, FINE):
        np.savez(
            tmp_path / "given.npz", times=times[0].numpy(), weight=picoampere.numpy(), step=step, delay=DELAY,
            until=UNTIL, model=model, **{f"p_{name}": x for name, x in given.items()},
        )  # fmt: skip
        command = [sys.executable, "-c", NEST_RUN, str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
        subprocess.run(command, check=True, capture_output=True, env={"PYNEST_QUIET": "1"})
        nest = np.load(tmp_path / "found.npz")
        late = []
        for neuron in (k for k in range(100) if sure[k]):
            own = runs[0][neuron][runs[0][neuron].isfinite()]
            theirs = torch.from_numpy(np.sort(nest["time"][nest["index"] == neuron]))
            assert len(own) == len(theirs), neuron
            late.append((theirs - own) / step)
            # at the end of the step in which it is; later spikes add up what the earlier ones are late
            assert len(own) == 0 or -1e-6 < late[-1][0] < 1 + 1e-6, neuron
        steps = torch.cat(late)
        assert steps.min() > -1e-6
        assert 0.4 < steps.median() < 2
        assert steps.quantile(0.9) < 8
