"""A real BrainScaleS-2: its software, name, settings and calibration."""

import hashlib
import importlib
import importlib.metadata
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from firstspike.substrates.base import SubstrateError, first_line

CHIP_VARIABLE = "SLURM_HARDWARE_LICENSES"
"""The environment variable in which the cluster of the chips names a job's chip."""

CALIBRATION_TARGETS: dict[str, float] = {
    "leak": 80,
    "reset": 80,
    "threshold": 150,
    "tau_mem": 6e-6,
    "tau_syn": 6e-6,
    "i_synin_gm": 550,
    "membrane_capacitance": 63,
    "synapse_dac_bias": 800,
    "refractory_time": 16e-6,
}
"""What the neurons are calibrated to; times in seconds, the rest in the chip's units. Source: Göltz et al. 2021."""
_TIMES = ("tau_mem", "tau_syn", "refractory_time")


def load_pynn() -> Any:
    """The module of PyNN that runs on the chip.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("pynn_brainscales.brainscales2")
    except ImportError as error:
        raise ImportError(
            f"pynn_brainscales cannot be imported ({error}). It is part of the software of BrainScaleS-2, not of PyPI: "
            "https://github.com/electronicvisions/pynn-brainscales. Without a chip, mock_bss2 emulates one"
        ) from None


def chip_name(pynn: Any) -> str:
    """Name of the chip.

    Raises:
        SubstrateError: there is none.
    """
    if named := os.environ.get(CHIP_VARIABLE):
        return named
    try:
        found = pynn.helper.get_unique_identifier()
    except Exception as error:  # the libraries below raise many kinds of errors
        raise SubstrateError(
            f"no BrainScaleS-2 is reached ({first_line(error)}): {CHIP_VARIABLE} is not set, and no connection opens. "
            "Run inside a job that has a chip"
        ) from error
    return found if isinstance(found, str) else str(found[0])


def own_settings(file: str | None, chip: str, known: Collection[str]) -> tuple[dict[str, Any], str]:
    """The settings of a chip in a settings file, and the name of their section.

    Args:
        file: YAML, a section for each chip by its name, and ``default`` for all others; None for no file.
        chip: its name.
        known: settings that a section may have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML with sections, or unknown settings.
    """
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


def load_calibration(pynn: Any, calibration: str, chip: str) -> tuple[Any, str, str]:
    """The configuration of the calibrated chip, its origin, and its checksum.

    Args:
        pynn: see ``load_pynn``.
        calibration: a file, in whose name ``{chip}`` is the chip's, or ``nightly`` for the one that the cluster makes.
        chip: its name.

    Raises:
        FileNotFoundError: no such file; the message explains how to make it.
        SubstrateError: no calibration is available.
    """
    if calibration == "nightly":
        try:
            return pynn.helper.chip_from_nightly(), calibration, ""
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
    return found, str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def calibrate(file: Path | str, **targets: float) -> None:
    """Calibrate the neurons of the chip and write the result into a file. It takes minutes.

    It has never run on a chip: written after the sources of calix, and tested against a stand-in for it.

    Args:
        file: the target; a portable binary (.pbin), as ``pynn.helper.chip_from_file`` reads it.
        targets: in place of those in ``CALIBRATION_TARGETS``.

    Raises:
        ValueError: unknown targets.
        ImportError: the software of the chip is not installed.
        SubstrateError: the calibration fails.
    """
    if unknown := set(targets) - set(CALIBRATION_TARGETS):
        raise ValueError(f"unknown targets {', '.join(sorted(unknown))}; there are {', '.join(CALIBRATION_TARGETS)}")
    load_pynn()
    base, neuron, dlens, quantities = (
        importlib.import_module(name)
        for name in ("calix.common.base", "calix.spiking.neuron", "dlens_vx_v3", "quantities")
    )
    wanted: dict[str, Any] = CALIBRATION_TARGETS | targets
    wanted |= {name: wanted[name] * quantities.s for name in _TIMES}
    try:
        with dlens.hxcomm.ManagedConnection() as connection:
            target = neuron.NeuronCalibTarget(**wanted)
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


def bitfile(pynn: Any) -> str:
    """The program of the chip's FPGA; "unknown" if it does not report it."""
    state = pynn.simulator.state
    connection = getattr(state, "connection", None) or getattr(state, "conn", None)
    info = getattr(connection, "bitfile_info", None)
    values = getattr(info, "values", None)
    return "; ".join(map(str, values())) if callable(values) else str(info or "unknown")


def software() -> dict[str, str]:
    """Versions of the chip's software, as far as known."""
    found = {}
    for name in ("pynn_brainscales", "pynn"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
