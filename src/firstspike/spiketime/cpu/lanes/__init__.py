"""Neurons on their own, 32 in the lanes of vectors, each with its own list of inputs or its own time constants."""
