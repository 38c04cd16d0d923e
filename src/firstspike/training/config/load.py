"""From a file, a shipped name or a dict to a checked ``Config``; every error of a config in one go."""

import difflib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from firstspike.training.config.base import Section
from firstspike.training.config.data import Data
from firstspike.training.config.network import Network, Neuron, network_errors, neuron_errors
from firstspike.training.config.substrate import Exact, Substrate
from firstspike.training.config.training import Loss, Training

_MAX_BYTES = 1_000_000


class ConfigError(ValueError):
    """A config that cannot be used, with all that is wrong with it in ``errors``, one line each."""

    def __init__(self, source: str, errors: Sequence[str]) -> None:
        self.source = source
        self.errors = list(errors)
        super().__init__("\n".join([f"{source}: {len(self.errors)} error(s)", *(f"  {line}" for line in self.errors)]))


class Config(Section):
    """One training, as its file describes it."""

    data: Data
    neuron: Neuron = Neuron()
    network: Network
    loss: Loss
    training: Training
    substrate: Substrate = Exact()

    def to_yaml(self) -> str:
        """The whole config, defaults written out, in the form that ``load_config`` reads."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


def shipped_configs() -> dict[str, Traversable]:
    """The configs that come with the package, by name."""
    folder = resources.files("firstspike.configs")
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_config(source: str | Path, overrides: Iterable[str] = (), substrate: str | None = None) -> Config:
    """Read a config.

    Args:
        source: a file, or the name of a shipped config.
        overrides: settings such as ``training.epochs=10`` or ``network[1].size=30``, applied before the check.
        substrate: the kind that takes the place of another kind in the config, with its defaults.

    Raises:
        ConfigError: no such file, no YAML, or values that do not fit; the message names all of them.
    """
    name = str(source)
    raw = read_yaml(source, Config.model_fields)
    if substrate is not None and not (isinstance(own := raw.get("substrate"), dict) and own.get("kind") == substrate):
        raw["substrate"] = {"kind": substrate}
    errors = [wrong for setting in overrides if (wrong := _override(raw, setting))]
    try:
        config = parse_config(raw, name)
    except ConfigError as error:
        raise ConfigError(name, [*errors, *error.errors]) from None
    if errors:
        raise ConfigError(name, errors)
    return config


def read_yaml(source: str | Path, keys: Iterable[str]) -> dict[str, Any]:
    """The mapping in a YAML file, or in a shipped config, not checked yet; ``keys`` are for the message only.

    Raises:
        ConfigError: no such file, no YAML, no mapping.
    """
    name = str(source)
    text = _read(source)
    try:
        raw = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(name, [_one_line(error)]) from None
    except RecursionError:
        raise ConfigError(name, ["is nested too deeply for a config"]) from None
    if not isinstance(raw, dict):
        raise ConfigError(name, [f"must be a mapping with the keys {', '.join(keys)}"])
    return raw


def with_substrate(config: Config, kind: str | None) -> Config:
    """The config on a substrate of that kind with its defaults; as it is for None, or where it has this kind already.

    Raises:
        ConfigError: no such kind.
    """
    if kind in (None, config.substrate.kind):
        return config
    return parse_config(config.model_dump() | {"substrate": {"kind": kind}}, "--substrate")


def parse_config(raw: dict[str, Any], source: str = "config") -> Config:
    """Check a config given as a dict.

    Raises:
        ConfigError: values that do not fit; the message names all of them.
    """
    errors: list[str] = []
    config = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        errors += [_explain(detail, raw) for detail in error.errors()]
    # sizes are compared even where another section has errors, so that one look shows everything
    data = config.data if config else _valid(Data, raw.get("data"))
    network = config.network if config else _valid(Network, raw.get("network"))
    if data is not None and network is not None:
        inputs, classes = data.shape()
        errors += network_errors(network, inputs, classes, data.image())
    if config is not None and config.data.image() is None:
        for name in ("flip", "shift"):
            if getattr(config.training.augment, name):
                errors.append(f"training.augment.{name}: {config.data.kind} has no images to {name}; leave it out")
    neuron = config.neuron if config else _valid(Neuron, raw.get("neuron", {}))
    if network is not None and neuron is not None:
        errors += neuron_errors(network, neuron)
    if errors or config is None:
        raise ConfigError(source, errors)
    return config


class _StrictLoader(yaml.SafeLoader):
    """Plain values only: no Python objects, no key twice, no aliases, which a short file could multiply without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 and 2.e5 as text; here they are numbers
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _read(source: str | Path) -> str:
    shipped = shipped_configs()
    path = Path(source)
    try:
        if str(source) in shipped and not path.is_file():
            return shipped[str(source)].read_text(encoding="utf-8")
        if not path.is_file():
            near = difflib.get_close_matches(str(source), shipped, 1)
            hint = f"did you mean {near[0]}?" if near else f"shipped configs: {', '.join(sorted(shipped))}"
            raise ConfigError(str(source), [f"no such file or shipped config; {hint}"])
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(str(source), [f"is larger than {_MAX_BYTES} bytes, which no config is"])
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(source), [f"cannot be read: {error}"]) from None


def _override(raw: dict[str, Any], setting: str) -> str | None:
    """Set one value in place of what the file has; returns what is wrong with the setting."""
    path, equals, text = setting.partition("=")
    if not equals or not re.fullmatch(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*", path):
        return f"--set {setting}: expected a.b=value or a[0].b=value"
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        return f"--set {setting}: {_one_line(error)}"
    *parents, last = (int(part) if part.isdigit() else part for part in re.findall(r"\w+", path))
    place: Any = raw
    for step, key in enumerate([*parents, last]):
        if isinstance(key, int) and not (isinstance(place, list) and key < len(place)):
            what = f"the list has {len(place)} entries" if isinstance(place, list) else f"{place!r} is no list"
            return f"--set {setting}: there is no [{key}]; {what}"
        if isinstance(key, str) and not isinstance(place, dict):
            return f"--set {setting}: {key} cannot be set inside {place!r}"
        if step == len(parents):
            place[key] = value
            break
        if isinstance(key, str) and place.get(key) is None:
            place[key] = {}
        place = place[key]
    return None


def _valid(section: Any, value: Any) -> Any:
    try:
        return TypeAdapter(section).validate_python(value)
    except ValidationError:
        return None


def _explain(detail: Any, raw: dict[str, Any]) -> str:
    """One pydantic error as ``place: what is wrong, how to mend it``."""
    steps, model, value = _walk(detail["loc"], raw)
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".") or "config"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        valid = list(model.model_fields) if model else []
        near = difflib.get_close_matches(str(steps[-1]), valid, 1)
        return f"{place}: unknown key{f', did you mean {near[0]}?' if near else ';'} valid keys: {', '.join(valid)}"
    if kind == "missing":
        return f"{place}: is missing"
    if kind == "union_tag_invalid":
        return f"{place}.kind: expected one of {context['expected_tags']}, got {context['tag']!r}"
    if kind == "union_tag_not_found":
        return f"{place}: needs a kind"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    shown = "" if isinstance(value, dict | list) else f", got {value!r}"
    return f"{place}: {message}{shown}"


def _walk(loc: tuple[int | str, ...], raw: Any) -> tuple[list[int | str], type[BaseModel] | None, Any]:
    """The place of an error without the tags of unions, the model that refused it, and the value there."""
    model: type[BaseModel] | None = Config
    annotation: Any = Config
    steps: list[int | str] = []
    value = raw
    for part in loc:
        options = _models(annotation)
        tagged = [m for m in options if "kind" in m.model_fields and part in _tags(m)]
        if tagged and not (isinstance(value, dict) and part in value and part != value.get("kind")):
            annotation = model = tagged[0]
            continue
        if len(options) == 1 and options[0] is not model:
            model = options[0]
        steps.append(part)
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) and part < len(value) else None
            annotation = get_args(_strip(annotation))[0] if get_args(_strip(annotation)) else annotation
        else:
            value = value.get(part) if isinstance(value, dict) else None
            field = model.model_fields.get(part) if model else None
            annotation = field.annotation if field else None
    return steps, model, value


def _strip(annotation: Any) -> Any:
    """``X`` of ``Annotated[X, ...]``."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    annotation = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for option in get_args(annotation) for model in _models(option)]
    return []


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["kind"].annotation)


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or str(error)).replace("\n", " ")
