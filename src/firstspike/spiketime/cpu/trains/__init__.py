"""Neurons that spike several times."""
