"""Sweeps: many trainings of one study, on one machine or on many, with Optuna."""
