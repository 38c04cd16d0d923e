"""What Spiking Heidelberg Digits takes, on made-up files of its shape: reading them, and a part of an epoch.

The files have as many recordings as the published ones, 8156 and 2264, with about 8000 spikes of 700 units each.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import Table, in_fresh_process, resident

from firstspike.config import Config, load_config
from firstspike.config.builder import build, build_data
from firstspike.data import SpikeData

RECORDINGS = {"train": 8156, "test": 2264}
SPIKES, SECONDS, BATCHES = 8000, 1.0, 20
HIDDEN = {
    "256 neurons, several spikes": {"kind": "spike_trains", "out_features": 256},
    "256 recurrent neurons": {"kind": "recurrent", "out_features": 256, "duration": 100.0, "window_spikes": 2},
}


def made_up(folder: Path, recordings: dict[str, int]) -> None:
    """Files in the published format."""
    import h5py

    generator = np.random.default_rng(0)
    for part, count in recordings.items():
        lengths = generator.poisson(SPIKES, count)
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            for name, dtype in (("spikes/times", "float16"), ("spikes/units", "uint16")):
                rows = file.create_dataset(name, (count,), h5py.vlen_dtype(np.dtype(dtype)))
                for k, length in enumerate(lengths):
                    times = np.sort(generator.random(length)) * SECONDS
                    rows[k] = (times if name == "spikes/times" else generator.integers(0, 700, length)).astype(dtype)
            file["labels"] = generator.integers(0, 20, count)
            file["extra/keys"] = [str(k) for k in range(20)]


def config(folder: str, hidden: dict[str, Any]) -> Config:
    return load_config({
        "data": {"kind": "shd", "folder": folder},
        "neuron": {"tau_mem": 2.0},
        "network": [
            {**hidden, "max_spikes": 100, "overflow": "drop", "weight_mean": 0.0, "weight_std": 0.04},
            {"kind": "integral", "out_features": 20, "tau": 50.0},
        ],
        "loss": {"kind": "readout_cross_entropy"},
        "training": {"epochs": 1, "batch_size": 64},
    })  # fmt: skip


def measured(folder: str, hidden: dict[str, Any]) -> dict[str, float]:
    """Seconds and peak memory (MiB) of reading, then of training on ``BATCHES`` batches; the first two do not count."""
    before, start = resident("VmRSS"), time.perf_counter()
    given = config(folder, hidden)
    splits = build_data(given)
    read, kept, peak = time.perf_counter() - start, resident("VmRSS") - before, resident("VmHWM") - before
    Path("/proc/self/clear_refs").write_text("5")
    trainer, size = build(given, splits), given.training.batch_size
    held = resident("VmRSS")
    first, some = (
        SpikeData(splits.train.times[:n], splits.train.labels[:n], splits.train.class_names)
        for n in (2 * size, BATCHES * size)
    )
    trainer.fit(first, epochs=1, batch_size=size, progress_bar=False)
    start = time.perf_counter()
    trainer.fit(some, epochs=2, batch_size=size, progress_bar=False)
    seconds = (time.perf_counter() - start) / BATCHES * RECORDINGS["train"] * 0.9 / size
    return {"read": read, "kept": kept, "peak": peak, "epoch": seconds, "training": resident("VmHWM") - held}


def heidelberg(recordings: dict[str, int] = RECORDINGS) -> Table:
    title = f"Synthetic files the size of Spiking Heidelberg Digits, {sum(recordings.values())} recordings"
    table = Table(title, ("", "seconds", "peak memory MiB"))
    with tempfile.TemporaryDirectory() as folder:
        made_up(Path(folder), recordings)
        for k, (name, hidden) in enumerate(HIDDEN.items()):
            found = in_fresh_process("heidelberg", f"heidelberg.measured({folder!r}, {hidden!r})")
            if not k:
                table.add(f"reading; {found['kept']:.0f} MiB stay", f"{found['read']:.0f}", f"{found['peak']:.0f}")
            table.add(f"an epoch, {name}, batches of 64", f"{found['epoch']:.0f}", f"{found['training']:.0f}")
    return table
