"""Numba kernels for the CPU; the contract is ``contract``'s. Importing compiles nothing, the first call does.

Compiled kernels are kept on disk, see ``cache``.
"""

from firstspike.spiketime.cpu.host import backward, forward, saves

__all__ = ["backward", "forward", "saves"]
