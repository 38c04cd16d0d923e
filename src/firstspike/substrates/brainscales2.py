"""BrainScaleS-2, the chip, through PyNN."""

import hashlib
import json
import logging
import math
import warnings
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import BiasSpikes, Network, Record
from firstspike.substrates.base import SubstrateError
from firstspike.substrates.bss2 import CLOCK_US, LARGEST_DIGIT, Clock, clock_for
from firstspike.substrates.chip_network import ChipNetwork, placement
from firstspike.substrates.chips import (
    bitfile,
    chip_name,
    first_line,
    load_calibration,
    load_pynn,
    own_settings,
    software,
)
from firstspike.substrates.digits import StoresDigits, WeightDigits
from firstspike.substrates.windows import Windows

logger = logging.getLogger(__name__)

LEAD_MS = 0.1
"""From the start of a run to its first sample."""
_DUMMY_MS = 0.01


@dataclass(eq=False)
class BrainScaleS2(StoresDigits):
    """BrainScaleS-2 through ``pynn_brainscales``.

    **It has never run on a chip.** It follows the sources of pynn_brainscales and the procedure of Göltz et al., and is
    tested against a stand-in that simulates a chip and checks names, units and ranges of all calls.

    A batch is one long run, sample after sample. Weights and delays are written when they have changed. Neurons may
    spike again after their refractory period; the record has the first spikes, later layers see all. How long time
    constants and how high thresholds are is up to the calibration: it has to fit the network, ``tau_us`` and
    ``weight_scale``.

    Args:
        calibration: a file (.pbin); ``{chip}`` in its name is the chip's. Or ``nightly``, the one of the cluster.
        settings: a YAML file with sections by chip, and one called ``default``; what they say goes before the other
            arguments here.
        tau_us: microseconds that ``tau_syn`` takes on the chip.
        weight_scale: a weight w is the whole number ``round(w weight_scale)``, at most 63.
        window: how long a sample takes, in units of ``tau_syn``; membranes must be at rest again at its end.
        latency_us: how much later than they happen spikes are noted, in microseconds; subtracted.
        largest_batch: most samples in a run; more are several runs.
        retries: how often a run is tried.

    Raises:
        ValueError: a value out of its range.
    """

    kind = "brainscales2"
    exclusive = True

    calibration: str = "calibrations/{chip}.pbin"
    settings: str | None = None
    tau_us: float = 6.0
    weight_scale: float = 30.0
    window: float = 30.0
    latency_us: float = 0.08
    largest_batch: int = 200
    retries: int = 5

    def __post_init__(self) -> None:
        numbers = {field.name: getattr(self, field.name) for field in fields(self) if field.type in (int, float)}
        positive = all(value > 0 for name, value in numbers.items() if name != "latency_us")
        if not positive or self.latency_us < 0 or not all(map(math.isfinite, numbers.values())):
            raise ValueError(f"settings of the chip are out of range, see BrainScaleS2: {numbers}")
        self.digits = WeightDigits(self.weight_scale, LARGEST_DIGIT / self.weight_scale)
        self._chip: _Chip | None = None

    def open(self, network: Network) -> Self:
        """See ``Substrate``."""
        clock_for(network, self.tau_us)
        circuits = placement(network)
        self.close()
        pynn = load_pynn()
        name = chip_name(pynn)
        known = {key: value for key, value in asdict(self).items() if key != "settings"}
        own, source = own_settings(self.settings, name, known)
        used = replace(self, settings=None, **own)  # checks their ranges
        calibrated, place, checksum = load_calibration(pynn, used.calibration, name)
        clock = clock_for(network, used.tau_us)
        settings = {key: value for key, value in asdict(used).items() if key != "settings"}
        self.digits = used.digits
        self._chip = _Chip(pynn, name, used, clock)
        try:
            pynn.setup(initial_config=calibrated, neuronPermutation=circuits)
            self._chip.network = ChipNetwork(pynn, network, clock, used.digits)
            self._chip.network.write(network)
            pynn.run(_DUMMY_MS)
            pynn.reset()
            program = bitfile(pynn)
        except Exception as error:
            self.close()
            raise SubstrateError(f"chip {name} does not start: {first_line(error)}") from error
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._chip.identity = {
            "chip": name,
            "bitfile": program,
            "calibration": place,
            "calibration_sha256": checksum,
            "settings": settings,
            "settings_from": source,
            "settings_sha256": digest,
            "software": software(),
        }
        return self

    def close(self) -> None:
        """See ``Substrate``."""
        chip, self._chip = self._chip, None
        if chip is not None:
            try:
                chip.pynn.end()
            except Exception as error:  # a chip that failed may fail again here; the first error counts
                logger.warning("chip %s did not end well: %s", chip.name, first_line(error))

    def identity(self) -> dict[str, Any]:
        """See ``Substrate``."""
        return {"kind": self.kind} | ({} if self._chip is None else self._chip.identity)

    @torch.no_grad()
    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        """See ``Substrate``."""
        chip = self._chip
        if chip is None:
            raise ValueError("the chip is not open: call open(network) first")
        parts = [chip.run(network, part) for part in times.split(chip.used.largest_batch)]
        layers = (torch.cat(layer).to(times) for layer in zip(*(part.layers for part in parts), strict=True))
        return Record(torch.cat([part.inputs for part in parts]).to(times), tuple(layers))


class _Chip:
    """An open chip with a network on it."""

    network: ChipNetwork

    def __init__(self, pynn: Any, name: str, used: BrainScaleS2, clock: Clock) -> None:
        self.pynn, self.name, self.used, self.clock = pynn, name, used, clock
        self.identity: dict[str, Any] = {}

    def run(self, network: Network, times: Tensor) -> Record:
        """One run, repeated where it stalls."""
        received = self.clock.floor(times.detach().cpu().double())
        windows, outside = self._packed(network, received)
        reason = ""
        for attempt in range(1, self.used.retries + 1):
            self.network.write(network)
            self.network.feed(outside.numpy(), windows)
            try:
                try:
                    with warnings.catch_warnings():
                        # spikes behind the end are left out with a warning, and sometimes given
                        warnings.filterwarnings("error", ".*after t_stop", UserWarning)
                        self.pynn.run(windows.run_ms)
                        spikes = self.network.spikes()
                finally:
                    self.pynn.reset()
            except (RuntimeError, OSError, TimeoutError, UserWarning) as error:
                reason = first_line(error)
            else:
                latest = max((float(at.max()) for _, at in spikes.values() if len(at)), default=0.0)
                if latest < windows.run_ms:
                    return self.network.record(network, received, spikes, windows, self.used.latency_us * 1e-3)
                reason = f"a spike at {latest:.3f} ms of {windows.run_ms:.3f}"
            logger.warning("chip %s stalled, try %d of %d: %s", self.name, attempt, self.used.retries, reason)
        raise SubstrateError(f"chip {self.name} stalled {self.used.retries} times in a row ({reason})")

    def _packed(self, network: Network, received: Tensor) -> tuple[Windows, Tensor]:
        """Where the samples are in the run, and the spikes from outside; those behind a window's end are left out."""
        unit = self.clock.unit_us
        bias = [layer.times.cpu().double() for layer in network if isinstance(layer, BiasSpikes)]
        fixed = self.clock.floor(torch.cat([*bias, received.new_empty(0)])).expand(len(received), -1)
        outside = torch.cat([received, fixed], dim=1)
        arriving = outside[torch.isfinite(outside)]
        ticks = round(min(float(arriving.min()), 0.0) * unit / CLOCK_US) if len(arriving) else 0
        span = math.ceil(self.used.window * self.used.tau_us / CLOCK_US - 1e-6)
        start, end = ticks * CLOCK_US / unit, span * CLOCK_US / unit
        windows = Windows(len(received), start, end - start, unit * 1e-3, LEAD_MS)
        return windows, outside.masked_fill(outside >= end, math.inf)
