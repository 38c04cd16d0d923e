"""A real BrainScaleS-2: its software, name, settings and calibration."""

import hashlib
import importlib
import importlib.metadata
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from firstspike.substrates.base import SubstrateError
from firstspike.text import first_line

_CHIP_VARIABLE = "SLURM_HARDWARE_LICENSES"  # in which the cluster of the chips names a job's chip

# the neurons' calibration; times in seconds, the rest in the chip's units. Source: Göltz et al. 2021
_TARGETS: dict[str, float] = {
    "leak": 80,
    "reset": 80,
    "threshold": 150,
    "tau_mem": 6e-6,
    "i_synin_gm": 550,
    "membrane_capacitance": 63,
    "synapse_dac_bias": 800,
    "refractory_time": 16e-6,
}
_SHORTEST_US, _LONGEST_US = 0.1, 50.0  # of synapses
_TIMES = ("tau_mem", "tau_syn", "refractory_time")


def load_pynn() -> Any:
    """The module of PyNN that runs on the chip."""
    try:
        return importlib.import_module("pynn_brainscales.brainscales2")
    except ImportError as error:
        raise ImportError(
            f"pynn_brainscales cannot be imported ({error}). It is part of the software of BrainScaleS-2, not of PyPI: "
            "https://github.com/electronicvisions/pynn-brainscales. Without a chip, mock_bss2 emulates one"
        ) from None


def chip_name(pynn: Any) -> str:
    """Name of the chip; a SubstrateError if there is none."""
    if named := os.environ.get(_CHIP_VARIABLE):
        return named
    try:
        found = pynn.helper.get_unique_identifier()
    except Exception as error:  # the libraries below raise many kinds of errors
        raise SubstrateError(
            f"no BrainScaleS-2 is reached ({first_line(error)}): {_CHIP_VARIABLE} is not set, and no connection opens. "
            "Run inside a job that has a chip"
        ) from error
    return found if isinstance(found, str) else str(found[0])


def own_settings(file: str | None, chip: str, known: Collection[str]) -> tuple[dict[str, Any], str]:
    """The settings of a chip in a YAML file, and the name of their section: that of the chip, or ``default``."""
    if file is None:
        return {}, "config"
    import yaml

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the settings file of the chips is not there; see substrate.settings")
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML raises all of these for values that do not fit their tags
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(f"{path}: expected a section of settings for each chip, and one called default")
    section = chip if chip in sections else "default"
    found = sections.get(section, {})
    if unknown := [name for name in found if name not in known]:
        raise ValueError(f"{path}: {section}: unknown setting {unknown[0]!r}; there are {', '.join(known)}")
    return dict(found), f"{path}: {section}" if section in sections else "config"


def load_calibration(pynn: Any, calibration: str, chip: str) -> tuple[Any, dict[str, str]]:
    """The configuration of the calibrated chip, and its part of the identity. See ``BrainScaleS2``."""
    if calibration == "nightly":
        try:
            return pynn.helper.chip_from_nightly(), {"calibration": calibration}
        except Exception as error:
            raise SubstrateError(f"chip {chip} has no nightly calibration: {first_line(error)}") from error
    path = Path(calibration.replace("{chip}", chip))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: chip {chip} has no calibration there. Make it on the chip, which takes minutes: "
            f"python -c \"import firstspike as fs; fs.substrates.calibrate('{path}')\"; or set "
            "substrate.calibration to a file that is there, or to nightly"
        )
    try:
        found = pynn.helper.chip_from_file(str(path))
    except Exception as error:
        raise SubstrateError(f"{path}: cannot be read as a calibration: {first_line(error)}") from error
    return found, {"calibration": str(path), "calibration_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def calibrate(file: Path | str, tau_syn_us: tuple[float, float] = (6.0, 6.0)) -> None:
    """Calibrate the neurons of the chip, to time constants of 6 µs, and write the result into a file: it takes minutes.

    It has never run on a chip: written after the sources of calix, and tested against a stand-in for it.

    Args:
        file: the target; a portable binary (.pbin), as ``pynn.helper.chip_from_file`` reads it.
        tau_syn_us: time constants of excitatory and of inhibitory synapses, in microseconds: ``tau_us`` is the first
            one, and their ratio that of the neuron's ``tau_syn``.

    Raises:
        ValueError: time constants that the chip does not have.
        ImportError: the software of the chip is not installed.
        SubstrateError: the calibration fails.
    """
    if len(tau_syn_us) != 2 or not all(_SHORTEST_US <= tau <= _LONGEST_US for tau in tau_syn_us):
        raise ValueError(f"tau_syn_us must be two times from {_SHORTEST_US} to {_LONGEST_US} us, got {tau_syn_us}")
    load_pynn()
    base = importlib.import_module("calix.common.base")
    neuron = importlib.import_module("calix.spiking.neuron")
    dlens = importlib.import_module("dlens_vx_v3")
    quantities = importlib.import_module("quantities")
    wanted: dict[str, Any] = _TARGETS | {"tau_syn": np.array(tau_syn_us) * 1e-6}
    targets = {name: value * quantities.s if name in _TIMES else value for name, value in wanted.items()}
    try:
        with dlens.hxcomm.ManagedConnection() as connection:
            target = neuron.NeuronCalibTarget(**targets)
            result = neuron.calibrate(base.StatefulConnection(connection), target=target)
        dumper = dlens.sta.PlaybackProgramBuilderDumper()
        result.apply(dumper)
        data = bytes(dlens.sta.to_portablebinary(dumper.done()))
    except Exception as error:
        raise SubstrateError(f"the calibration failed: {first_line(error)}") from error
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def versions(pynn: Any) -> dict[str, Any]:
    """The program of the chip's FPGA, "unknown" if it does not report it, and versions of the software, if known."""
    state, software = pynn.simulator.state, {}
    connection = getattr(state, "connection", None) or getattr(state, "conn", None)
    info = getattr(connection, "bitfile_info", None)
    values = getattr(info, "values", None)
    for name in ("pynn_brainscales", "pynn"):
        with suppress(importlib.metadata.PackageNotFoundError):
            software[name] = importlib.metadata.version(name)
    return {
        "bitfile": "; ".join(map(str, values())) if callable(values) else str(info or "unknown"),
        "software": software,
    }
