"""Substrates: whatever yields the spike times of a network. The gradient is always the operator's, at these times.

To add one: a file here with a ``Substrate``, a line in ``SUBSTRATES``, and its settings in
``training/config/substrate.py``.
"""

from firstspike.substrates.base import LayerByLayer, Substrate, SubstrateError, record_at
from firstspike.substrates.exact import Exact
from firstspike.substrates.integrator import Integrator

SUBSTRATES: dict[str, type[Substrate]] = {substrate.kind: substrate for substrate in (Exact, Integrator)}

__all__ = ["SUBSTRATES", "Exact", "Integrator", "LayerByLayer", "Substrate", "SubstrateError", "record_at"]
