"""The configs that come with the package; listing them loads nothing else."""

from importlib import resources
from importlib.resources.abc import Traversable


def shipped_configs() -> dict[str, Traversable]:
    """The configs that come with the package, by name."""
    folder = resources.files("firstspike.configs")
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
