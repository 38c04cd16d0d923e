"""Random problems for two backends, and what is compared."""

import torch

DOUBLE = {"dtype": torch.float64}


def with_rest(neuron, options):
    """The neuron with the reset and the refractory time that are among options, and the other options."""
    own = {name: options[name] for name in ("refractory", "reset") if name in options}
    return neuron.with_values(**own), {name: x for name, x in options.items() if name not in own}


class Drawn:
    """Random numbers, one seed for each problem."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def uniform(self, *shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(shape, generator=self.random, **DOUBLE)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.random, **DOUBLE)

    def chance(self, of):
        return bool(self.uniform() < of)

    def whole(self, low, high):
        return int(self.uniform(low=low, high=high + 1))

    def parameter(self, outputs, low, high):
        """Shared or of each neuron, and learnt."""
        return self.uniform(*([] if self.chance(0.5) else [outputs]), low=low, high=high).requires_grad_()


def learnt(neuron):
    values = {
        f"{name} {k}": x
        for name, value in neuron.values.items()
        for k, x in enumerate(value if isinstance(value, tuple) else (value,))
    }
    return {name: x for name, x in values.items() if isinstance(x, torch.Tensor)}


def results(leaves, own, run, backend, observed=None):
    """Outputs, and gradients of a sum of them with random factors."""
    leaves = {name: x.clone().requires_grad_() for name, x in leaves.items()}
    out = run(leaves, backend, observed)
    terms = []
    for k, x in enumerate(out):
        factors = torch.randn(x.shape, generator=torch.Generator().manual_seed(k), **DOUBLE)
        terms.append(torch.where(x.isfinite(), x * factors, 0.0).sum())
    leaves |= own
    loss = sum(terms)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True) if loss.requires_grad else [None] * 99
    zeros = map(torch.zeros_like, leaves.values())
    grads = {n: z if g is None else g for n, g, z in zip(leaves, found, zeros, strict=False)}
    return [x.detach() for x in out], grads


def same(found, expected, times=1e-10, grads=1e-7):
    for x, y in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=times)
    for name, y in expected[1].items():
        scale = 1e-3 + y.abs().max().item() if y.numel() else 1.0
        torch.testing.assert_close(
            found[1][name], y, rtol=0, atol=grads * scale, msg=lambda text, name=name: f"{name}: {text}"
        )
