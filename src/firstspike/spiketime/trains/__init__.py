"""The operator of spike trains: several spikes per neuron."""

from firstspike.spiketime.trains.operator import TrainState, Window, spike_trains, spike_window

__all__ = ["TrainState", "Window", "spike_trains", "spike_window"]
