"""Neurons with their own order of arrival or constants: 32 of them in the lanes of a vector."""
