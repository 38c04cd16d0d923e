"""Expected forms of JSON files: a damaged or foreign file ends in one message."""

import json
from math import nan
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from firstspike.runs.files import read_regular

FORMAT = 1
"""Of checkpoints."""
Count = Annotated[int, Field(ge=0)]


class Form(BaseModel):
    """A mapping with at least these keys, each of exactly this type."""

    model_config = ConfigDict(strict=True, extra="allow")


def _known(number: Any) -> Any:
    if number != FORMAT:
        raise ValueError(f"has format {number}, this version reads {FORMAT}")
    return number


class Manifest(Form):
    """``manifest.json`` of a checkpoint."""

    format: Annotated[Any, AfterValidator(_known)]
    epoch: Count
    batch: Count
    sha256: dict[str, str]


class Environment(Form):
    """``environment.json``."""

    command: list[str] = []
    packages: dict[str, str] = {}
    substrate: dict[str, Any] = {}
    earlier_substrates: list[dict[str, Any]] = []


class Part(Form):
    """Results on a part of the data: of one training, or mean and standard deviation over several."""

    samples: Count
    accuracy: float | None = None
    metrics: dict[str, float] = {}
    loss: float
    silent: list[float]
    accuracy_std: float = nan


class Results(Form):
    """``results.json``, of one training or of several seeds; a part of the data that was not given is null."""

    epochs: Count
    parameters: Count
    seconds: FiniteFloat
    validation: Part | None
    test: Part | None
    best_validation_accuracy: float | None
    seeds: dict[str, "Results"] = {}


def read_json(path: Path, form: type[Form]) -> dict[str, Any]:
    """The content of a JSON file; a ValueError if it is not JSON, or has another form."""
    try:
        found: dict[str, Any] = json.loads(read_regular(path))
        form.model_validate(found)
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return found


def _problem(error: ValidationError) -> str:
    """The first problem with a form: the place, what was expected, and what was found."""
    first = error.errors(include_url=False)[0]
    steps, kind, value = [str(step) for step in first["loc"]], first["type"], first["input"]
    if kind == "value_error":
        return first["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return f"{'.'.join(steps[:-1]) or 'it'} lacks {steps[-1]!r}"
    expected = "should be a mapping" if kind in ("model_type", "dict_type") else first["msg"].removeprefix("Input ")
    if isinstance(value, dict | list):
        shown = f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    else:
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:36]} ..."
    return f"{'.'.join(steps) or 'it'} {expected}, it is {shown}"
