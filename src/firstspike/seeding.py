"""Random numbers from a seed, for one purpose each."""

import numpy as np
import torch


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A separate generator for each purpose and index: drawing from one does not change the others.

    It lives on the CPU, so that a seed means the same on every device.
    """
    entropy = (seed, *purpose.encode(), *index)
    state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state)
