"""Kernels for neurons from equations: Taylor series by programs that kernels read, 32 neurons at once, in float64."""
