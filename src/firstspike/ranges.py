"""Ranges of numbers, for annotations: ``float`` and ``int`` to a type checker, bounds to a config and to readers."""

from math import inf
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Finite = Annotated[float, Gt(-inf), Lt(inf)]
Positive = Annotated[float, Gt(0), Lt(inf)]
PositiveOrInf = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0), Lt(inf)]
Fraction = Annotated[float, Ge(0), Le(1)]
Probability = Annotated[float, Ge(0), Lt(1)]
PositiveInt = Annotated[int, Gt(0)]
NotNegativeInt = Annotated[int, Ge(0)]
# far beyond what anyone trains, and far below what hangs a machine
Count = Annotated[int, Gt(0), Le(10**9)]
Size = Annotated[int, Gt(0), Le(10**6)]
Bits = Annotated[int, Ge(2), Le(32)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]
Retries = Annotated[int, Gt(0), Le(1000)]
Border = Annotated[int, Ge(0), Le(1000)]
Distance = Annotated[float, Ge(0), Le(1000)]
