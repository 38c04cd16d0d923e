"""Kernels for GPUs in Triton, which GPU builds of PyTorch include; the contract is ``contract``'s."""

from firstspike.spiketime.triton.gradients import backward as backward
from firstspike.spiketime.triton.spikes import forward as forward
from firstspike.spiketime.triton.spikes import saves as saves
