"""Neurons with an order of arrival or with constants of their own: 32 of them in the lanes of a vector."""
