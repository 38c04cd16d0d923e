"""Kernels of neurons that share the order of arrival and the time constants."""
