"""Spike trains of neurons with an order of arrival or with constants of their own: 32 of them in a vector's lanes."""
