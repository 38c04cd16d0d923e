"""Configs: a way to write down the arguments of the objects of a training, and to read them."""

from firstspike.config.builder import DTYPES, Parts, build, build_data, build_loss, build_network, build_substrate
from firstspike.config.describer import describe
from firstspike.config.load import Config, ConfigError, load_config, parse_config, with_substrate
from firstspike.configs import shipped_configs

__all__ = [
    "DTYPES",
    "Config",
    "ConfigError",
    "Parts",
    "build",
    "build_data",
    "build_loss",
    "build_network",
    "build_substrate",
    "describe",
    "load_config",
    "parse_config",
    "shipped_configs",
    "with_substrate",
]
