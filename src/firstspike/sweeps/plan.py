"""The trials of a sweep and their configs: all can be built before the first one starts."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from pydantic import ValidationError

from firstspike.config import Config, ConfigError, load_config
from firstspike.config.load import read_yaml
from firstspike.config.problems import problems_of
from firstspike.config.yaml_file import shown_place
from firstspike.sweeps.config import N_SEEDS, Params, Range, Sweep, as_yaml, choices


@dataclass(frozen=True)
class Plan:
    """A checked sweep: the name of its study, its keys, and the folder of base configs that are files."""

    name: str
    sweep: Sweep
    folder: Path

    def trials(self) -> list[Params]:
        """The values of all trials: a grid, the last axis fastest, or numbers that depend on the seed alone.

        They are empty for TPE, which draws according to earlier results.
        """
        axes = self.sweep.axes
        if self.sweep.sampler == "grid":
            return [dict(zip(axes, row, strict=True)) for row in itertools.product(*map(choices, axes.values()))]
        if self.sweep.sampler == "tpe":
            return [{}] * (self.sweep.trials or 0)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.sweep.seed))
        return [study.ask(self.sweep.distributions()).params for _ in range(self.sweep.trials or 0)]

    def config(self, params: Params) -> Config:
        """The config of a trial. A ConfigError names all values that do not fit."""
        values = self.sweep.settings | {key: value for key, value in params.items() if key != "base"}
        if self.sweep.seeds is not None:
            values[N_SEEDS] = self.sweep.seeds
        base = str(params.get("base", self.sweep.base))
        return load_config(self._place(base), [f"{key}={as_yaml(value)}" for key, value in values.items()])

    def refusals(self) -> list[str]:
        """Why trials cannot be trained, with the first one of those that cannot.

        All trials of a grid are built; for other samplers each value and each end of a range, with the first of others.
        """
        ends = {key: [x.start, x.to] if isinstance(x, Range) else choices(x) for key, x in self.sweep.axes.items()}
        first = {key: values[0] for key, values in ends.items()}
        at_ends: list[Params] = [{**first, key: value} for key, values in ends.items() for value in values]
        found: dict[str, str] = {}
        needed = {"metric": "test" if self.sweep.metric.startswith("test") else "validation"}
        needed |= {"pruning": "validation"} if self.sweep.pruning else {}
        for params in self.trials() if self.sweep.sampler == "grid" else at_ends:
            try:
                data = self.config(params).data
                missing = {key: part for key, part in needed.items() if not getattr(data, part, True)}
                texts = [f"{key}: needs {part} data, but data.{part} is 0" for key, part in missing.items()]
            except ConfigError as error:
                texts = [text.removeprefix("--set ") for text in error.errors]
            for text in texts:
                found.setdefault(text, ", ".join(f"{key}={value}" for key, value in params.items()))
        return [f"{text} (at {params})" for text, params in found.items()]

    def _place(self, base: str) -> str:
        """A base config: a file relative to the sweep's, or a name for ``load_config``."""
        return str(self.folder / base) if (self.folder / base).is_file() else base

    def definition(self) -> dict[str, Any]:
        """The definition that all workers of a study share, for JSON: the sweep, and its base configs as written."""
        sweep = self.sweep.model_dump(mode="json", by_alias=True, exclude={"heartbeat", "trials"})
        bases = choices(self.sweep.axes["base"]) if self.sweep.base is None else [self.sweep.base]
        return sweep | {f"config {base}": read_yaml(self._place(str(base)), ()).data for base in bases}


def load_plan(file: Path, name: str | None = None) -> Plan:
    """Read a sweep's file and check all of it (ConfigError). By default the study has the file's name."""
    if not file.is_file():
        raise ConfigError(str(file), ["no such file; a sweep is a YAML file with a base and axes"])
    document = read_yaml(file, (field.alias or key for key, field in Sweep.model_fields.items()))
    name = name or file.stem
    if not re.fullmatch(r"\w[\w.-]*", name):
        rule = "give a --name of letters, digits, '_', '-' and '.'"
        raise ConfigError(str(file), [f"the name {name!r} becomes a folder: {rule}"])
    try:
        plan = Plan(name, Sweep.model_validate(document.data), file.resolve().parent)
    except ValidationError as error:
        problems = problems_of(error, document.data, Sweep)
        texts = [f"{shown_place(place)}: {message}".removeprefix(": ") for place, message in problems]
        raise ConfigError(str(file), texts, [document.line(place) for place, _ in problems]) from None
    if refusals := plan.refusals():
        raise ConfigError(str(file), refusals)
    return plan
