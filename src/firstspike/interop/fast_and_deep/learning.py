"""Their losses and training parameters, as sections of ours."""

from typing import Any

from firstspike.interop.fast_and_deep.table import Table

# what only says how often something is written or printed, or how evaluation is cut into pieces
_WITHOUT_EFFECT = ("batch_size_eval", "enforce_cpu", "print_step_percent", "steps", "decay_syn", "decay_mem")


def loss(params: Table, main: bool, tau_syn: float, delays: int) -> dict[str, Any]:
    """A ``loss`` section.

    Args:
        params: their ``training_params``.
        main: whether the config is one of today's, in which only regularisers ask for early outputs.
        tau_syn: of the ``neuron`` section.
        delays: number of delays in the network: their l2 term is a mean over them, ours a sum.

    Raises:
        ValueError: a loss that is not known.
    """
    if "loss" not in params:
        section: dict[str, Any] = {"kind": "cross_entropy", "xi": params.number("xi")}
        return section | {"regularizers": [_early(params)]}
    params.without_effect("alpha", "beta", "xi")  # left over from before there was a choice
    table = params.table("loss")
    kind = table.take("type")
    regularizers = []
    if kind == "TTFS":
        section = {"kind": "cross_entropy", "xi": table.number("xi")}
        if main:
            table.without_effect("alpha", "beta")
        elif "alpha" in table:
            regularizers.append(_early(table))
    elif kind == "MSE":
        section = {"kind": "mse", "correct": table.number("t_correct"), "wrong": table.number("t_wrong")}
        if not main:
            table.remarks.lacking.append(
                f"{table.place}: at that time their MSE was a mean over the output neurons; here it is a sum, so its "
                "gradient is larger by their number"
            )
    elif kind == "shift_invariant_MSE":
        section = {"kind": "shift_invariant", "delta": table.number("delta_t")}
        if section["delta"] <= 0:
            raise ValueError(f"{table.place}.delta_t: the true neuron can only be trained to spike first here")
    else:
        raise ValueError(
            f"{table.place}.type: {kind!r} has no counterpart here; known: TTFS, MSE and shift_invariant_MSE"
        )
    if tau_syn != 1 and kind != "TTFS":
        table.remarks.lacking.append(
            f"{table.place}: with tau_syn = {tau_syn}, their loss is {tau_syn**2:g} times ours, which measures time in "
            "tau_syn"
        )
    for regularizer in table.tables("regulariser", []):
        regularizers.append(_regularizer(regularizer, tau_syn, delays))
        regularizer.close()
    table.close()
    return section | {"regularizers": regularizers}


def _early(table: Table) -> dict[str, Any]:
    return {"kind": "early_output", "alpha": table.number("alpha"), "beta": table.number("beta", 1.0)}


def _regularizer(table: Table, tau_syn: float, delays: int) -> dict[str, Any]:
    kind = table.take("type")
    if kind == "early_output":
        return _early(table)
    if kind == "l2_delay":
        table.lacks("use_effective_delays", "here the delays are kept small, not the parameters behind them", (True,))
        return {"kind": "delay_l2", "alpha": table.number("alpha") * tau_syn**2 / max(1, delays)}
    raise ValueError(f"{table.place}.type: {kind!r} has no counterpart here; known: early_output and l2_delay")


def training(params: Table, bounds: list[float | None]) -> dict[str, Any]:
    """A ``training`` section.

    Args:
        params: their ``training_params``.
        bounds: ``max_dw_norm`` of each layer of neurons.

    Raises:
        ValueError: an optimiser or schedule that is not known.
    """
    section: dict[str, Any] = {
        "epochs": params.integer("epoch_number"),
        "batch_size": params.integer("batch_size"),
        "optimizer": _optimizer(params),
    }
    schedule = _schedule(params)
    if schedule:
        section["schedule"] = schedule
    given = [b for b in bounds if b is not None]
    if given:
        section["max_weight_grad"] = min(given)
    if len(set(bounds)) > 1:
        params.remarks.lacking.append(
            f"max_dw_norm differs between layers ({bounds}); here all layers have {section['max_weight_grad']}"
        )
    section["silent"] = {
        "bump": params.number("weight_bumping_value"),
        "targeted": bool(params.take("weight_bumping_targeted", True)),
        "exponential": bool(params.take("weight_bumping_exp", True)),
    }
    noise = params.take("training_noise", None)
    if noise not in (None, False):
        table = params.table("training_noise")
        section["time_noise"] = table.number("std_dev")
        table.lacks("mean", "input noise has the mean 0 here")
        table.close()
    section["seed"] = params.integer("torch_seed", 0, most=2**63) if params.take("torch_seed", None) is not None else 0
    section["dtype"] = "float64"  # theirs computes in double precision throughout
    _differences(params)
    params.close()
    return section


def _optimizer(params: Table) -> dict[str, Any]:
    name = params.take("optimizer", "sgd")
    lr = params.number("learning_rate")
    if name == "adam":
        params.without_effect("momentum")
        return {"kind": "adam", "lr": lr}
    if name == "sgd":
        return {"kind": "sgd", "lr": lr, "momentum": params.number("momentum", 0.0)}
    raise ValueError(f"{params.place}.optimizer: {name!r} has no counterpart here; known: adam and sgd")


def _schedule(params: Table) -> dict[str, Any] | None:
    if params.take("lr_scheduler", None) is None:
        return None
    table = params.table("lr_scheduler")
    kind = table.take("type")
    schedule: dict[str, Any] | None
    if kind == "StepLR":
        schedule = {"kind": "step", "step_size": table.integer("step_size"), "gamma": table.number("gamma")}
    elif kind == "MultiStepLR":
        milestones = table.integers("milestones")
        schedule = {"kind": "multi_step", "milestones": milestones, "gamma": table.number("gamma")}
    elif kind == "ExponentialLR":
        schedule = {"kind": "exponential", "gamma": table.number("gamma")}
    elif kind is None:
        schedule = None
        table.without_effect("step_size", "gamma", "milestones")
    else:
        raise ValueError(
            f"{table.place}.type: {kind!r} has no counterpart here; known: StepLR, MultiStepLR and ExponentialLR"
        )
    table.close()
    return schedule


def _differences(params: Table) -> None:
    """What theirs can do and this program cannot, told where it is in use."""
    params.without_effect(*_WITHOUT_EFFECT)
    params.lacks("numpy_seed", "one seed, theirs for torch, starts everything that is random; its numbers differ")
    epochs = params.take("epoch_number")
    params.lacks("epoch_snapshots", "checkpoints come at equal distances", ([], None, [epochs]))
