"""Limits that kernels share with the rest; they are compiled without torch, so it is not loaded here."""

LARGEST_32, LARGEST_64 = 1e30, 1e200
"""Limit of weights, in thresholds, and of ``tau_mem / tau_syn``, in float32 and float64."""
