"""The table: all rows, names that need none, and faults that are known."""

from layer_rows import LAYER_ROWS
from loss_rows import LOSS_ROWS
from operator_rows import OPERATOR_ROWS
from substrate_rows import SUBSTRATE_ROWS

ROWS = [*OPERATOR_ROWS, *LAYER_ROWS, *LOSS_ROWS, *SUBSTRATE_ROWS]
KNOWN_FAULTS: dict[tuple[str, str], str] = {("LIFRecurrent", "overflow"): "memory", ("LIFRecurrent, delays", "overflow"): "memory"}
