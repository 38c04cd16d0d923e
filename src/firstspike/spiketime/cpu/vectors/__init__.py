"""Vectors, and operations on them lane by lane."""
