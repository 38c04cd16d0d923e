"""Configs: a way to write down the arguments of the objects of a training, and to read them."""

from firstspike.config.builder import build, build_data
from firstspike.config.describer import describe
from firstspike.config.load import Config, ConfigError, load_config

__all__ = ["Config", "ConfigError", "build", "build_data", "describe", "load_config"]
