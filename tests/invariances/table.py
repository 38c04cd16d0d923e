"""The table: all rows, names that need none, and faults that are known."""

from operator_rows import OPERATOR_ROWS

ROWS = [*OPERATOR_ROWS]
KNOWN_FAULTS: dict[tuple[str, str], str] = {}
