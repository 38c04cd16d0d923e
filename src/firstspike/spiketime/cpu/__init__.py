"""Numba kernels for the CPU; the contract is ``backend``'s. Importing compiles nothing, the first call does.

Compiled kernels are kept in ``__pycache__``, see ``cache``.
"""

from firstspike.spiketime.cpu.cache import drop_outdated
from firstspike.spiketime.cpu.single_host import backward, forward

__all__ = ["backward", "forward"]

drop_outdated()
