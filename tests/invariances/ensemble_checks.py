"""A network in an ensemble is the network alone."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from checks import Case
from comparing import Found, UnsettledError, assert_same_gradients, assert_same_outputs, base_of, factors_of, loss_of
from problems import Problem
from torch import Tensor

from firstspike.layers.ensembles import Ensemble


def together(case: Case) -> None:
    """A network in an ensemble is the network alone."""
    _compare_members(case, [{}, {}, {}])


def other_options(case: Case) -> None:
    """Members with other options are refused, or are as they are alone."""
    name, value = case.random.choice(list(case.row.others.items()))
    try:
        _compare_members(case, [{}, {name: value}])
    except ValueError as error:
        if "max_spikes" in str(error):
            raise UnsettledError from None
        if "member" not in str(error):
            raise


def _compare_members(case: Case, options: list[dict[str, Any]]) -> None:
    problems = [case.row.make(case.setting, k).having(**x) for k, x in enumerate(options)]
    networks, alone = [], []
    for problem in problems:
        base_of(problem, case.backend, case.setting.seed)  # steady at all
        network = case.row.network(problem.values, case.backend)
        state = case.row.parameters(problem.values)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(state[name])
        networks.append(network)
        alone.append(_passed(network, network.named_parameters(), _flat(problem), case.setting.seed))
    ensemble = Ensemble(copy.deepcopy(networks))
    names = [name for name, _ in networks[0].named_parameters()]
    times = torch.stack([_flat(problem) for problem in problems])
    factors = torch.stack([factors_of(x.outputs, case.setting.seed)["out"] for x in alone])
    found = _passed(ensemble, zip(names, ensemble.stacked, strict=True), times, 0, factors)
    for k, one in enumerate(alone):
        all_of = {name: torch.ones_like(x, dtype=torch.bool) for name, x in one.outputs.items()}
        assert_same_outputs({name: x[k] for name, x in found.outputs.items()}, one.outputs, all_of)
        assert_same_gradients({name: x[k] for name, x in found.gradients.items()}, one.gradients)


def _flat(problem: Problem) -> Tensor:
    """Inputs of a network, of an image flat."""
    times, axes = problem.values["times"], problem.quantities["times"].axes
    return times.flatten(1, -1 - axes.endswith("k")) if "x" in axes else times


def _passed(
    network: Callable[[Tensor], Tensor],
    parameters: Iterable[tuple[str, Tensor]],
    times: Tensor,
    seed: int,
    factors: Tensor | None = None,
) -> Found:
    """Outputs of a network, and gradients by its inputs and parameters."""
    leaves = {"times": times.clone().requires_grad_(), **dict(parameters)}
    outputs = {"out": network(leaves["times"])}
    loss = loss_of(outputs, factors_of(outputs, seed) if factors is None else {"out": factors})
    found = [None] * len(leaves)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {k: torch.zeros_like(x) if g is None else g for (k, x), g in zip(leaves.items(), found, strict=True)}
    return Found({"out": outputs["out"].detach()}, gradients)
