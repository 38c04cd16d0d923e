"""Vectors, and what is done with them lane by lane."""
