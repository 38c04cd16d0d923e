"""The published code of Göltz et al. 2021, in double precision: first spikes, tau_mem = tau_syn or 2 tau_syn.

It is not on a package index and has another licence: set ``FASTANDDEEP`` to a checkout of
github.com/JulianGoeltz/fastAndDeep.
"""

import os
import subprocess
import sys
from typing import Any

import torch
from systems.base import Array, Found, System, usual
from systems.with_torch import first_of

SOURCE = os.environ.get("FASTANDDEEP", "")
if not SOURCE:
    raise ImportError("FASTANDDEEP is not set to a checkout of it")
sys.path.append(f"{SOURCE}/src")
sys.dont_write_bytecode = True

import utils  # noqa: E402


class FastAndDeep(System):
    name = "fastAndDeep"
    packages = ("torch",)

    def version(self) -> str:
        return f"commit {commit(SOURCE)}, {super().version()}"

    def cannot(self, layer: Any) -> str:
        if layer.kind == "train":
            return "trains"
        return usual(layer) or ("" if layer.ratio in (1, 2) else "other ratios than 1 and 2")

    def first(self, layer: Any, factors: Array | None) -> Found:
        samples, neurons, inputs = layer.shape
        neuron = {
            "tau_syn": 1.0, "tau_mem": layer.tau_mem, "g_leak": 1 / layer.tau_mem, "leak": 0.0, "threshold": 1.0,
            "activation": "linear", "max_dw_norm": None,
        }  # fmt: skip
        size = {
            "feat_in": [inputs], "size": neurons, "weights_mean": 0.0, "weights_std": 1.0,
            "max_num_missing_spikes": 1.0,
        }  # fmt: skip
        made = utils.NeuronLayer(size, neuron, {"substrate": "sim", "max_dw_norm": 1e9}, torch.device("cpu"))

        def call(times: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            entering = times[:, :, None].expand(samples, inputs, neurons)
            return torch.func.functional_call(made, {"weights": weight.T.contiguous()}, (entering,))

        return first_of(call, layer, factors)


def commit(folder: str) -> str:
    found = subprocess.run(["git", "-C", folder, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


SYSTEMS = {"fastanddeep": FastAndDeep}
