"""Reads a file, a shipped config or a dict as a checked ``Config``, and reports all errors of a config at once."""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from firstspike.config import sections
from firstspike.config.network import Problem, network_problems
from firstspike.config.problems import problems_of
from firstspike.config.section import Section
from firstspike.config.yaml_file import Document, YamlError, decode_yaml, parse_yaml, shown_place, shown_text
from firstspike.configs import shipped_configs
from firstspike.neurons import LIF
from firstspike.text import counted
from firstspike.training.augment import misfits

_MAX_BYTES = 1_000_000
_MOST_ERRORS = 50


class ConfigError(ValueError):
    """A config that cannot be used.

    Args:
        source: the file or other origin of the config.
        errors: all that is wrong with it, one line each.
        lines: where in the file, for each of the errors; None for those that have no line there.
    """

    def __init__(self, source: str, errors: Sequence[str], lines: Sequence[int | None] | None = None) -> None:
        self.source = source
        self.errors = list(errors)
        self.lines = list(lines) if lines is not None else [None] * len(self.errors)
        shown = [f"{source}: {counted(len(self.errors), 'error')}"]
        for text, line in zip(self.errors[:_MOST_ERRORS], self.lines, strict=False):
            of_file = f" of {Path(source).name}" if "line " in text else ""
            shown.append(text if line is None else f"{text} (line {line}{of_file})")
        if len(self.errors) > _MOST_ERRORS:
            shown.append(f"and {len(self.errors) - _MOST_ERRORS} more")
        super().__init__("\n  ".join(shown))


class Config(Section):
    """One training, as its file describes it."""

    data: sections.Data
    neuron: sections.Neuron = sections.LIFNeuron()
    network: sections.Network
    loss: sections.Loss
    training: sections.Training
    substrate: sections.Substrate = sections.SUBSTRATE_SECTIONS["exact"].model_validate({"kind": "exact"})
    published: str = Field("", description="a published accuracy for the same task and its source, to compare with")

    def to_yaml(self) -> str:
        """The whole config, defaults written out, in the form that ``load_config`` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)

    def with_training(self, **settings: Any) -> "Config":
        """The config with other values in its section ``training``, which are not checked."""
        return self.model_copy(update={"training": self.training.model_copy(update=settings)})

    def __reduce__(self) -> tuple[Any, ...]:
        return Config.model_validate, (self.model_dump(),)  # pickle cannot find classes that follow from signatures


def load_config(
    source: str | Path | dict[str, Any],
    overrides: Iterable[str] = (),
    substrate: str | None = None,
    *,
    read_tables: bool = True,
) -> Config:
    """Read a config.

    Args:
        source: a file, the name of a shipped config, or the contents of a file as a dict.
        overrides: settings such as ``training.epochs=10`` or ``network[1].out_features=30``, applied before the check.
        substrate: the kind that takes the place of another kind in the config, with its defaults.
        read_tables: whether to read tables of your own data, to check that the network fits them.

    Raises:
        ConfigError: no such file, no YAML, or values that do not fit. The message names all of them.
    """
    if isinstance(source, dict):
        return _check(*_changed(Document(source), substrate, overrides), "config", read_tables)
    document, errors = _changed(read_yaml(source, Config.model_fields), substrate, overrides)
    return _check(_with_absolute_paths(document, Path(source).parent), errors, str(source), read_tables)


def _changed(document: Document, substrate: str | None, settings: Iterable[str]) -> tuple[Document, list[str]]:
    """The document on a kind of substrate, with its defaults unless it has this kind, and with settings; and errors."""
    own = document.data.get("substrate")
    if substrate is not None and not (isinstance(own, dict) and own.get("kind") == substrate):
        document = document.with_value(("substrate",), {"kind": substrate})
    errors = []
    for setting in settings:
        try:
            document = document.with_setting(setting)
        except YamlError as error:
            errors.append(f"--set {shown_text(setting)}: {error.problem}")
    if isinstance(own := document.data.get("substrate"), dict) and "kind" not in own:
        document = document.with_value(("substrate", "kind"), "exact")
    return document, errors


def _with_absolute_paths(document: Document, folder: Path) -> Document:
    """Paths of your own files, or folders of arrays: relative to the config's folder, otherwise to the working one."""
    data = document.data.get("data")
    paths = data if isinstance(data, dict) and data.get("kind") == "files" else {}
    for key in ("train", "validation", "test", "labels"):
        if isinstance(path := paths.get(key), str):
            with suppress(OSError, ValueError):  # no path, for instance a name that is too long
                found = [file for file in (folder / path, Path(path)) if file.is_file() or any(file.glob("*.npy"))]
                document = document.with_value(("data", key), str(found[0].resolve())) if found else document
    return document


def read_yaml(source: str | Path, keys: Iterable[str]) -> Document:
    """The mapping in a YAML file, or in a shipped config, not checked yet; a ConfigError may name its ``keys``."""
    try:
        document = parse_yaml(decode_yaml(_read(source)))
    except YamlError as error:
        raise ConfigError(str(source), [str(error)]) from None
    if not isinstance(document.data, dict):
        raise ConfigError(str(source), [f"must be a mapping with the keys {', '.join(keys)}"])
    return document


def with_substrate(config: Config, kind: str | None, settings: Iterable[str] = ()) -> Config:
    """The config on that kind of substrate, or with ``settings`` for it; a ConfigError for those that do not fit."""
    settings = list(settings)
    if found := [setting for setting in settings if setting.startswith("substrate.kind=")]:
        kind = found[-1].partition("=")[2]
    if kind in (None, config.substrate.kind) and not settings:
        return config
    others = [shown_text(setting) for setting in settings if not setting.startswith("substrate.")]
    if others:
        raise ConfigError("--set", [f"{x}: expected a key of the substrate, substrate.KEY=VALUE" for x in others])
    changed = _changed(Document(config.model_dump()), kind, settings)
    return _check(*changed, f"substrate {kind or config.substrate.kind}")


def _check(document: Document, errors: Sequence[str], source: str, read_tables: bool = True) -> Config:
    """The config. A ConfigError also has the ``errors`` found before."""
    raw = document.data  # a mapping
    problems: list[Problem] = []
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, raw, Config)
    # sizes are compared even if another section has errors, so that all errors are shown together
    data = _valid(sections.Data, raw.get("data"))
    network = _valid(sections.Network, raw.get("network"))
    neuron = _valid(sections.Neuron, raw.get("neuron", {}))
    known = data is not None and (read_tables or data.kind != "files")
    outline = sections.outline_of(data, problems) if known else None
    if outline is not None and network is not None:
        limits = config.training.silent.limits if config is not None else 1.0
        built = LIF() if neuron is None else neuron.build()
        reads = None if config is None else getattr(getattr(config.loss, "_target", None), "reads", None)
        problems += network_problems(network, outline, built, limits, _labels(data), reads)
    if outline is not None and config is not None:
        found = misfits(config.training.augment.build(), outline)
        problems += [(("training", "augment", name), reason) for name, reason in found]
    if errors or problems or config is None:
        texts = [f"{shown_place(place) or 'config'}: {message}" for place, message in problems]
        lines = [document.line(place) for place, _ in problems]
        raise ConfigError(source, [*errors, *texts], [*[None] * len(errors), *lines])
    return config


def _labels(data: Any) -> str | None:
    """The source of a table's labels; None for other data."""
    if data.kind != "files":
        return None
    labels = data.labels.get("train") if isinstance(data.labels, dict) else data.labels
    if labels is None:
        return "the last column" if data.train.endswith(".csv") else "labels"
    return f"column {labels}, counted from 0" if isinstance(labels, int) else f"{labels!r}"


def _read(source: str | Path) -> bytes:
    shipped = shipped_configs()
    path = Path(source)
    try:
        if str(source) in shipped and not path.is_file():
            return shipped[str(source)].read_bytes()
        if not path.is_file():
            near = difflib.get_close_matches(str(source), shipped, 1)
            hint = f"did you mean {near[0]}?" if near else f"shipped configs: {', '.join(sorted(shipped))}"
            raise ConfigError(str(source), [f"no such file or shipped config; {hint}"])
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(str(source), [f"is larger than {_MAX_BYTES // 10**6} MB, the limit for configs"])
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(str(source), [f"cannot be read: {error}"]) from None


def _valid(section: Any, value: Any) -> Any:
    try:
        return TypeAdapter(section).validate_python(value)
    except ValidationError:
        return None
