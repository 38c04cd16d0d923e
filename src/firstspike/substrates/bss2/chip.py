"""BrainScaleS-2, the chip, through PyNN."""

import logging
import math
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from firstspike.layers import BiasSpikes, Network, Record, SpikeTrains, SpikingLinear
from firstspike.layers.windows import joined_trains
from firstspike.ranges import NotNegative, Positive, Retries, Size, checks_ranges
from firstspike.substrates.base import SubstrateError
from firstspike.substrates.bss2.base import CLOCK_US, Bss2, StalledError, placement
from firstspike.substrates.bss2.device import chip_name, load_calibration, load_pynn, own_settings, versions
from firstspike.substrates.bss2.network import ChipNetwork
from firstspike.substrates.windows import Windows
from firstspike.text import first_line

logger = logging.getLogger(__name__)

_LEAD_MS = 0.1  # from the start of a run to its first sample
_DUMMY_MS = 0.01


@checks_ranges
@dataclass(eq=False)
class BrainScaleS2(Bss2):
    """BrainScaleS-2 through ``pynn_brainscales``.

    **It has never run on a chip.** It follows the sources of pynn_brainscales and the procedure of Göltz et al., and is
    tested against a stand-in that simulates a chip and checks names, units and ranges of all calls.

    A batch is one long run, sample after sample. Weights and delays are written when they have changed. Neurons may
    spike again after their refractory period. The record has the first spikes, later layers see all. Time constants and
    thresholds are those of the calibration, which has to fit the network, ``tau_us`` and ``weight_scale``.

    Args:
        calibration: a file (.pbin). ``{chip}`` in its name is the chip's. Or ``nightly``, the one of the cluster.
        settings: a YAML file with sections by chip, and one called ``default``, which override the other arguments.
        tau_us: ``tau_syn`` on the chip, in microseconds; of two that of the excitatory synapses.
        weight_scale: a weight w becomes the integer ``round(w weight_scale)``, at most 63.
        window: duration of a sample, in units of ``tau_syn``. Membranes must be at rest again at its end.
        latency_us: delay with which spikes are recorded, in microseconds; subtracted.
        largest_batch: largest number of samples in a run. Larger batches take several runs.
        retries: number of attempts at a run.

    Raises:
        ValueError: a value out of its range.
    """

    kind = "brainscales2"
    neurons = (SpikingLinear, SpikeTrains)
    exclusive = True

    calibration: str = "calibrations/{chip}.pbin"
    settings: str | None = None
    tau_us: Positive = 6.0
    weight_scale: Positive = 30.0
    window: Positive = 30.0
    latency_us: NotNegative = 0.08
    largest_batch: Size = 200
    retries: Retries = 5

    def __post_init__(self) -> None:
        self._pynn: Any = None
        self._chip: ChipNetwork | None = None
        self._identity: dict[str, Any] = {}

    def open(self, network: Network) -> Self:
        self.clock_for(network)
        circuits = placement(network)
        self.close()
        pynn = load_pynn()
        name = chip_name(pynn)
        own, source = own_settings(self.settings, name, self.settings_of())
        try:
            used = replace(self, settings=None, **own)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        calibrated, calibration = load_calibration(pynn, used.calibration, name)
        clock = used.clock_for(network)
        self._pynn, self._identity = pynn, {"chip": name, **calibration}
        try:
            pynn.setup(initial_config=calibrated, neuronPermutation=circuits)
            self._chip = ChipNetwork(pynn, network, clock, used)
            self._chip.write(network)
            pynn.run(_DUMMY_MS)
            pynn.reset()
            self._identity |= versions(pynn) | {"settings": used.settings_of(), "settings_from": source}
        except Exception as error:
            self.close()
            raise SubstrateError(f"chip {name} does not start: {first_line(error)}") from error
        return self

    def close(self) -> None:
        pynn, name = self._pynn, self._identity.get("chip")
        self._pynn, self._chip, self._identity = None, None, {}
        if pynn is not None:
            try:
                pynn.end()
            except Exception as error:  # a chip that failed may fail again here. The first error counts
                logger.warning("chip %s did not end well: %s", name, first_line(error))

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, **self._identity}

    def parameters(self, network: Network) -> dict[str, Tensor]:
        """The stored weights, by the settings of the chip, which may override those given here."""
        return super().parameters(network) if self._chip is None else self._chip.settings.parameters(network)

    def project_(self, network: Network) -> None:
        """Keep weights in the range of the chip, by its settings."""
        super().project_(network) if self._chip is None else self._chip.settings.project_(network)

    @torch.no_grad()
    def run(self, network: Network, times: Float[Tensor, "batch inputs"]) -> Record:
        chip = self._chip
        if chip is None:
            raise ValueError("the chip is not open: call open(network) first")
        parts = [self._run(chip, network, part) for part in times.split(chip.settings.largest_batch)]
        layers = (torch.cat(layer).to(times) for layer in zip(*(part.layers for part in parts), strict=True))
        return Record(torch.cat([part.inputs for part in parts]).to(times), tuple(layers))

    def _run(self, chip: ChipNetwork, network: Network, times: Tensor) -> Record:
        """One run, repeated if it stalls."""
        received = chip.clock.floor(times.detach().cpu().double())
        windows, outside = _packed(chip, network, received)

        def attempt() -> Record:
            chip.write(network)
            chip.feed(outside.numpy(), windows)
            try:
                with ExitStack() as stack:
                    stack.callback(chip.pynn.reset)  # which may fail, too
                    stack.enter_context(warnings.catch_warnings())
                    # spikes after the end are left out with a warning, and sometimes returned
                    warnings.filterwarnings("error", ".*after t_stop", UserWarning)
                    chip.pynn.run(windows.run_ms)
                    spikes = chip.spikes()
            except (RuntimeError, OSError, TimeoutError, UserWarning) as error:
                raise StalledError(first_line(error)) from error
            latest = max((float(at.max()) for _, at in spikes.values() if len(at)), default=0.0)
            if latest >= windows.run_ms:
                raise StalledError(f"a spike at {latest:.3f} ms of {windows.run_ms:.3f}")
            return chip.record(network, received, spikes, windows)

        return chip.settings.repeated(attempt, f"chip {self._identity['chip']}")


def _packed(chip: ChipNetwork, network: Network, received: Tensor) -> tuple[Windows, Tensor]:
    """Start times of the samples in the run, and the external spikes before the end of a window."""
    unit, settings = chip.clock.unit_us, chip.settings
    bias = [layer.times.cpu().double() for layer in network if isinstance(layer, BiasSpikes)]
    trains = received if received.ndim > 2 else received.unsqueeze(-1)
    fixed = chip.clock.floor(torch.cat([*bias, received.new_empty(0)])).unsqueeze(-1).expand(len(received), -1, -1)
    outside = joined_trains(trains, fixed)
    arriving = outside[torch.isfinite(outside)]
    ticks = round(min(float(arriving.min()), 0.0) * unit / CLOCK_US) if len(arriving) else 0
    span = math.ceil(settings.window * settings.tau_us / CLOCK_US - 1e-6)
    start, end = ticks * CLOCK_US / unit, span * CLOCK_US / unit
    windows = Windows(len(received), start, end - start, unit * 1e-3, _LEAD_MS)
    return windows, outside.masked_fill(outside >= end, math.inf)
