"""What the chip and its emulation share: whole-numbered weights, checked settings, runs that are repeated."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

from firstspike.layers import Record
from firstspike.substrates.base import SubstrateError
from firstspike.substrates.bss2.limits import MAX_WEIGHT
from firstspike.substrates.quantisation import QuantisedWeights, WeightQuantiser

logger = logging.getLogger(__name__)

_POSITIVE = {"tau_us", "weight_scale", "refractory", "window", "largest_batch", "retries"}


class StalledError(Exception):
    """A run without a result, which may be repeated."""


class Bss2(QuantisedWeights):
    """BrainScaleS-2, real or emulated. A subclass is a dataclass of its settings."""

    weight_scale: float
    retries: int

    def __post_init__(self) -> None:
        wrong = {name: value for name, value in self.plain_settings().items() if not _in_range(name, value)}
        if wrong:
            raise ValueError(f"settings of the chip are out of range, see {type(self).__name__}: {wrong}")
        self.quantiser = WeightQuantiser(self.weight_scale, MAX_WEIGHT / self.weight_scale)

    def plain_settings(self) -> dict[str, Any]:
        """Settings by name, without the file that overrides them."""
        return {name: value for name, value in asdict(cast("Any", self)).items() if name != "settings"}

    def settings_identity(self) -> dict[str, Any]:
        """The part of ``identity`` that says with which settings a chip was used."""
        settings = self.plain_settings()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return {"settings": settings, "settings_sha256": digest}

    def repeated(self, run: Callable[[], Record], chip: str) -> Record:
        """The result of a run, which is repeated while it stalls.

        Raises:
            SubstrateError: it stalled ``retries`` times in a row.
        """
        reason = ""
        for attempt in range(1, self.retries + 1):
            try:
                return run()
            except StalledError as error:
                reason = str(error)
                logger.warning("%s stalled, try %d of %d: %s", chip, attempt, self.retries, reason)
        raise SubstrateError(f"{chip} stalled {self.retries} times in a row ({reason})")


def _in_range(name: str, value: Any) -> bool:
    if not isinstance(value, int | float) or name == "threshold_offset":
        return True
    most = 1 if name == "spike_loss" else math.inf
    return 0 <= value < most and not (name in _POSITIVE and value == 0)
