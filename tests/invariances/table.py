"""The table: all rows, all invariances, names that need no row, and faults that are known."""

from collections.abc import Callable

from checks import (
    Case,
    apart,
    backends,
    budget,
    cut,
    empty_batch,
    input_split,
    neuron_repeated,
    no_inputs,
    permuted,
    scale,
    shift,
    silent_input,
    unit,
)
from dtype_checks import single
from ensemble_checks import other_options, together
from equation_rows import EQUATION_ROWS
from gradient_checks import differences, layout, nonfinite, observed, subsets, transforms
from layer_rows import LAYER_ROWS
from linear_rows import LINEAR_ROWS
from loss_rows import LOSS_ROWS
from moving_rows import MOVING_ROWS
from operator_rows import OPERATOR_ROWS
from substrate_rows import SUBSTRATE_ROWS

ROWS = [*OPERATOR_ROWS, *LINEAR_ROWS, *EQUATION_ROWS, *LAYER_ROWS, *MOVING_ROWS, *LOSS_ROWS, *SUBSTRATE_ROWS]

INVARIANCES: dict[str, Callable[[Case], None]] = {
    "shift": shift,
    "unit": unit,
    "scale": scale,
    "inputs permuted": permuted("i"),
    "samples permuted": permuted("b"),
    "neurons permuted": permuted("o"),
    "input split": input_split,
    "silent input": silent_input,
    "neuron repeated": neuron_repeated,
    "sample alone": apart("b", True),
    "neuron alone": apart("o", False),
    "empty batch": empty_batch,
    "no inputs": no_inputs,
    "cut": cut,
    "overflow": budget,
    "observed": observed,
    "differences": differences,
    "subsets": subsets,
    "layout": layout,
    "transforms": transforms,
    "nonfinite": nonfinite,
    "backends": backends,
    "float32": single,
    "ensemble": together,
    "ensemble, other options": other_options,
}

BASE = "a base class, tested as its subclasses"
NAME = "a second name of a class, see tests/layers/test_names.py"
PROGRAM = "needs another program; tests/substrates compare it with the exact substrate"
TARGETS = "compares with target trains; invariances are in tests/losses/test_train_losses.py"
WITHOUT_ROW = {
    **dict.fromkeys(("SpikingLayer", "Readout", "TimeLoss"), BASE),
    **dict.fromkeys(
        ("SpikingLinear", "SpikeTrains", "SpikingRecurrent", "SpikingConv1d", "SpikingConv2d", "LIFLayer"), NAME
    ),
    **dict.fromkeys(("Substrate", "LayerByLayer"), BASE),
    **dict.fromkeys(("nest", "Nest", "neuron", "Neuron", "brian2", "Brian2", "brainscales2", "BrainScaleS2"), PROGRAM),
    **dict.fromkeys(
        ("MatchedSpikes", "matched_spikes", "VanRossum", "van_rossum", "SpikeErrors", "spike_errors"), TARGETS
    ),
    "SubstrateError": "an error",
    "NeuronDifference": "a row of a table, without computation; see tests/substrates/test_differences.py",
}

# For each pair of a row and an invariance that is known not to hold, the fault in words.
KNOWN_FAULTS: dict[tuple[str, str], str] = {}
