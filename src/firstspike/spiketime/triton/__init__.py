"""Kernels for GPUs in Triton, which GPU builds of PyTorch include; the contract is ``backend``'s."""

from firstspike.spiketime.triton.host import backward, forward

__all__ = ["backward", "forward"]
