"""Kernels for GPUs in Triton, which GPU builds of PyTorch include; the contract is ``contract``'s."""

from firstspike.spiketime.triton.host import backward, forward, saves

__all__ = ["backward", "forward", "saves"]
