"""Configs: a typed description of one training. Reading one imports no torch and executes nothing."""

from firstspike.training.config.load import (
    Config,
    ConfigError,
    load_config,
    parse_config,
    shipped_configs,
    with_substrate,
)

__all__ = ["Config", "ConfigError", "load_config", "parse_config", "shipped_configs", "with_substrate"]
