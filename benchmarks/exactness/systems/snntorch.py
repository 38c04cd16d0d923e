"""snnTorch's ``Synaptic`` neuron, stepped through time."""

import math
from typing import Any

import snntorch as snn
import torch
from systems.in_steps import STEP, InSteps
from torch import Tensor


class SnnTorch(InSteps):
    name = "snnTorch `Synaptic`"
    packages = ("snntorch", "torch")

    def spikes(self, currents: Tensor, layer: Any) -> Tensor:
        synapse, membrane = math.exp(-STEP / layer.tau_syn), math.exp(-STEP / layer.tau_mem)
        cell = snn.Synaptic(alpha=synapse, beta=membrane, threshold=layer.threshold, reset_mechanism="zero")
        i = torch.zeros_like(currents[0])
        v, found = i.clone(), torch.zeros(currents.shape, dtype=torch.bool)
        for k, current in enumerate(currents * (1 - membrane)):
            spike, i, v = cell(current, i, v)
            found[k] = spike > 0
        return found


SYSTEMS = {"snntorch": SnnTorch}
