"""Sparse synapses from projections of PyNN and back, as docs/large_networks.md says."""

import numpy as np
import pytest
import torch

import firstspike as fs


@pytest.mark.nest
@pytest.mark.filterwarnings("ignore")  # of PyNN and NEST, about their own calls
def test_projections_of_pynn_become_synapses_and_back():
    sim = fs.substrates.Nest()._load()
    sim.setup(timestep=0.1, min_delay=1.0, max_delay=3.0, verbosity="error")
    cells = [sim.Population(n, sim.IF_curr_exp(cm=0.25, tau_syn_I=10.0)) for n in (30, 20)]
    cell = fs.neurons.Cell("IF_curr_exp", cm=0.25, tau_syn_I=10.0)
    for sign, receptor in ((1.0, "excitatory"), (-1.0, "inhibitory")):
        random = sim.RandomDistribution("uniform", (0.01, 0.02) if sign > 0 else (-0.02, -0.01))
        kind = sim.StaticSynapse(weight=random, delay=1.5)
        connector = sim.FixedProbabilityConnector(0.3)
        there = sim.Projection(*cells, connector, kind, receptor_type=receptor).get(["weight", "delay"], format="list")
        rows = torch.tensor(there)
        weight = cell.weights(rows[:, 2])
        found = fs.connect.pairs(rows[:, :2].T.long(), 30, 20, weight=weight, delay=rows[:, 3])
        assert len(found) == len(there) > 100
        back = np.column_stack([found.source, found.target, cell.strengths(found.weight), found.delay])
        again = sim.FromListConnector(back.tolist(), column_names=["weight", "delay"])
        made = sim.Projection(*cells, again, sim.StaticSynapse(), receptor_type=receptor)
        rebuilt = made.get(["weight", "delay"], format="list")
        np.testing.assert_allclose(sorted(rebuilt), sorted(there), rtol=1e-6)
    sim.end()
