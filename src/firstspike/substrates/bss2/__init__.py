"""BrainScaleS-2: the chip through PyNN, and an emulation of it."""

from firstspike.substrates.bss2.chip import BrainScaleS2
from firstspike.substrates.bss2.device import calibrate
from firstspike.substrates.bss2.mock import MockBss2

__all__ = ["BrainScaleS2", "MockBss2", "calibrate"]
