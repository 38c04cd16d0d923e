"""Experiments of the original code of Göltz et al. (github.com/JulianGoeltz/fastAndDeep), taken over.

``translate`` makes a config of theirs one of ours, ``run_folder.import_folder`` takes over a result folder: config,
trained network and, as a check, the spike times that they saved.
"""

from firstspike.interop.fast_and_deep.translate import Translation, import_config, read_config, translate

__all__ = ["Translation", "import_config", "read_config", "translate"]
