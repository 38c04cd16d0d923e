"""The operator under every layer: spike times, weights and delays -> first spike times, with the exact gradient."""

from firstspike.spiketime import custom_ops  # noqa: F401  (torch finds them by their names)
from firstspike.spiketime.current import Current
from firstspike.spiketime.operator import TrainState, first_spike_time, spike_trains, spike_window

__all__ = ["Current", "TrainState", "first_spike_time", "spike_trains", "spike_window"]
