"""Train spiking neural networks with exact gradients of spike times.

    lif = fs.LIF(tau_mem=1.0, tau_syn=1.0, threshold=1.0)
    out = fs.first_spike_time(times, weight, lif)

Times are in the unit of ``tau_syn``; ``inf`` means no spike, and nothing else does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from firstspike._version import __version__

if TYPE_CHECKING:
    from firstspike import config, connect, data, interop, layers, losses, neurons, plots, runs, spiketime, substrates
    from firstspike import training as training
    from firstspike.deferred import raise_deferred_errors
    from firstspike.interop.neo import from_neo, to_neo
    from firstspike.interop.nir import from_nir, to_nir
    from firstspike.layers import (
        BiasSpikes,
        Concatenate,
        Delay,
        DelayRule,
        Earliest,
        EarliestPool2d,
        FirstSpike,
        IntegralReadout,
        LIFConv1d,
        LIFConv2d,
        LIFLinear,
        LIFRecurrent,
        LIFSpikeTrains,
        MaximumReadout,
        MembraneReadout,
        MergePool2d,
        Multiplex,
        Network,
        PoissonSpikes,
        Record,
        SmoothCount,
        SpikeDropout,
        SpikeTrains,
        SpikingConv1d,
        SpikingConv2d,
        SpikingLinear,
        SpikingRecurrent,
        export,
    )
    from firstspike.neurons import LIF, Neuron
    from firstspike.runs import Run
    from firstspike.spiketime import Current, first_spike_time, spike_trains
    from firstspike.training import (
        Augment,
        Callback,
        CosineLR,
        EarlyStopping,
        Evaluation,
        Rewiring,
        SilentNeurons,
        Trainer,
    )

__all__ = [
    "LIF", "Augment", "BiasSpikes", "Callback", "Concatenate", "CosineLR", "Current", "Delay", "DelayRule", "Earliest",
    "EarliestPool2d", "EarlyStopping", "Evaluation", "FirstSpike", "IntegralReadout", "LIFConv1d", "LIFConv2d",
    "LIFLinear", "LIFRecurrent", "LIFSpikeTrains", "MaximumReadout", "MembraneReadout", "MergePool2d", "Multiplex",
    "Network", "Neuron", "PoissonSpikes", "Record", "Rewiring", "Run", "SilentNeurons", "SmoothCount", "SpikeDropout",
    "SpikeTrains", "SpikingConv1d", "SpikingConv2d", "SpikingLinear", "SpikingRecurrent", "Trainer", "__version__",
    "config", "connect", "data", "export", "first_spike_time", "from_neo", "from_nir", "interop", "layers", "losses",
    "neurons", "plots", "raise_deferred_errors", "runs", "spike_trains", "spiketime", "substrates", "to_neo", "to_nir",
    "training",
]  # fmt: skip

# Looked up on first use, so that reading a config or printing a help text does not load torch.
_ROOMS = ("deferred", "neurons", "spiketime", "layers", "training", "runs", "interop.nir", "interop.neo")
_MODULES = (
    "config", "connect", "data", "interop", "layers", "losses", "neurons", "plots", "runs", "spiketime", "substrates",
    "training",
)  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    for room in _ROOMS if name in __all__ else ():
        if (found := getattr(import_module(f"{__name__}.{room}"), name, None)) is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
