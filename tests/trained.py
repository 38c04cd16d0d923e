"""Runs for tests that look at the folder, and at the numbers at its end."""

from firstspike.runs import Run


def start(folder, config, **options):
    """Train a config in a new folder; the contents of ``results.json``."""
    return Run.start(folder, config, **options).results


def resume(folder, *, data=None, **options):
    """Continue a run, with objects of one's own among the options; the contents of ``results.json``."""
    names = ("epochs", "progress_bar", "callbacks", "allow_other_chip", "from_scratch", "stop")
    how = {name: options.pop(name) for name in names if name in options}
    return Run(folder, data=data, **options).resume(**how).results
