"""Expected forms of JSON files: a damaged or foreign file ends in one message."""

import json
from math import nan
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from firstspike.config.problems import problems_of
from firstspike.config.yaml_file import shown_place
from firstspike.ranges import NotNegativeInt
from firstspike.runs.files import read_regular


class JsonForm(BaseModel):
    """A mapping with at least these keys, each of exactly this type."""

    model_config = ConfigDict(strict=True, extra="allow")


class Manifest(JsonForm):
    """The contents of ``manifest.json`` of a checkpoint."""

    format: Literal[1]
    epoch: NotNegativeInt
    batch: NotNegativeInt
    sha256: dict[str, str]


class Environment(JsonForm):
    """The contents of ``environment.json``."""

    command: list[str] = []
    packages: dict[str, str] = {}
    substrate: dict[str, Any] = {}
    earlier_substrates: list[dict[str, Any]] = []


class SplitResults(JsonForm):
    """Results on a part of the data: of one training, or mean and standard deviation over several."""

    samples: NotNegativeInt
    accuracy: float | None = None
    metrics: dict[str, float] = {}
    loss: float
    silent: list[float]
    accuracy_std: float = nan


class Results(JsonForm):
    """``results.json``, of one training or of several seeds. A part of the data that was not given is null."""

    epochs: NotNegativeInt
    parameters: NotNegativeInt
    seconds: FiniteFloat
    validation: SplitResults | None
    test: SplitResults | None
    best_validation_accuracy: float | None
    seeds: dict[str, "Results"] = {}


def read_json(path: Path, form: type[JsonForm]) -> dict[str, Any]:
    """The content of a JSON file; a ValueError if it is not JSON, or has another form."""
    try:
        found: dict[str, Any] = json.loads(read_regular(path))
        form.model_validate(found)
    except ValidationError as error:
        place, problem = problems_of(error, found, form)[0]
        raise ValueError(f"{path} is damaged, or of another version: {shown_place(place) or 'it'} {problem}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return found
