"""The operator of spike trains: several spikes per neuron."""

from firstspike.spiketime.contract import Windows
from firstspike.spiketime.trains.operator import (
    TrainState,
    Window,
    knows_recurrence,
    recurrent_window,
    spike_trains,
    spike_window,
)

__all__ = ["TrainState", "Window", "Windows", "knows_recurrence", "recurrent_window", "spike_trains", "spike_window"]
