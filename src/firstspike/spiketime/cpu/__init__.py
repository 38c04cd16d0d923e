"""Numba kernels for the CPU; the contract is ``backend``'s. Importing compiles nothing, the first call does.

Compiled kernels are kept on disk, see ``cache``.
"""

from firstspike.spiketime.cpu.host import backward, forward

__all__ = ["backward", "forward"]
