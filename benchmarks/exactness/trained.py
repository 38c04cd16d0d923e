"""Layers of briefly trained networks, from which the set draws neurons and inputs: writes ``trained.npz``.

python benchmarks/exactness/trained.py [--runs DIR]   # some minutes; trains what DIR lacks
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import firstspike as fs

HERE = Path(__file__).parent
TRAININGS = {
    "yin_yang": ["training.epochs=30"],
    "yin_yang_w": ["training.epochs=30"],
    "bars": ["training.epochs=30"],
    "digits": ["training.epochs=20", "network[lif:0].out_features=48"],
}
SAMPLES = 40


def layers(folder: Path) -> dict[str, np.ndarray]:
    """Of each layer with weights: these, what entered it for some samples of the test data, and its constants."""
    run = fs.Run(folder)
    network, found = run.network, {}

    def keep(layer: torch.nn.Module, entered: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        name = f"{folder.name}_{len(found) // 3}"
        found[f"{name}.times"] = entered[0].numpy().astype(np.float32)
        found[f"{name}.weights"] = layer.weight.detach().numpy().astype(np.float32)
        found[f"{name}.tau_mem"] = np.array(float(layer.neuron.tau_mem))

    for layer in network:
        if hasattr(layer, "weight"):
            layer.register_forward_hook(keep)
    with torch.no_grad():
        network(run.data.test.times[:SAMPLES].to(run.dtype))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="where the trainings are, or go to; by default they are not kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        runs = options.runs or Path(made)
        arrays: dict[str, np.ndarray] = {}
        for name, settings in TRAININGS.items():
            if not (runs / name).exists():
                keys = [word for setting in settings for word in ("--set", setting)]
                command = ["firstspike", "train", name, "--quiet", "--out", str(runs / name), *keys]
                subprocess.run(command, check=True)
            arrays |= layers(runs / name)
    np.savez_compressed(HERE / "trained.npz", **arrays)


if __name__ == "__main__":
    main()
