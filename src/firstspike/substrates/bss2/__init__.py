"""BrainScaleS-2: the chip through PyNN, and an emulation of it."""
