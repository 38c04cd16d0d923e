"""Observed spike times in place of computed ones, for layers that copy, shift or join spikes."""

import torch
from jaxtyping import Float
from torch import Tensor


def at_observed(computed: Float[Tensor, "*shape"], observed: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The ``observed`` times as they are, with the gradient of the ``computed`` ones; none where either is ``inf``.

    Raises:
        ValueError: observed times of another shape.
    """
    if observed.shape != computed.shape:
        raise ValueError(f"observed must have the shape {tuple(computed.shape)}, got {tuple(observed.shape)}")
    both = torch.isfinite(computed) & torch.isfinite(observed)
    return torch.where(both, observed + (computed - computed.detach()), observed)
