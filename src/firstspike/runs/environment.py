"""What a run depends on, beside its config."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from firstspike._version import __version__
from firstspike.config import Config
from firstspike.torchrun import processes


def environment(
    config: Config, substrate: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a run depends on, beside its config.

    Args:
        config: as it runs.
        substrate: the identity of its substrate; by default the kind alone.
        data: the checksum of its data.
    """
    import torch

    packages = ("torch", "numpy", "numba", "safetensors", "pydantic")
    return {
        "firstspike": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "processes": processes(),
        "device": config.training.device,
        "dtype": config.training.dtype,
        "seed": config.training.seed,
        "substrate": dict(substrate or {"kind": config.substrate.kind}),
        "command": sys.argv,
        **({} if data is None else {"data": dict(data)}),
    }


def _commit() -> str | None:
    """The commit of the package's own source, where it runs from a checkout."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
