"""Substrates: whatever yields the spike times of a network. The gradient is always the operator's, at these times.

To add one: a file here with a ``Substrate``, a line in ``SUBSTRATES``, and its settings in
``training/config/substrate.py``.
"""

from firstspike.substrates.base import LayerByLayer, Substrate, SubstrateError, record_at
from firstspike.substrates.exact import Exact
from firstspike.substrates.integrator import Integrator
from firstspike.substrates.mock_bss2 import MockBss2
from firstspike.substrates.noisy import Noisy

SUBSTRATES: dict[str, type[Substrate]] = {
    "exact": Exact,
    "integrator": Integrator,
    "noisy": Noisy,
    "mock_bss2": MockBss2,
}

__all__ = [
    "SUBSTRATES",
    "Exact",
    "Integrator",
    "LayerByLayer",
    "MockBss2",
    "Noisy",
    "Substrate",
    "SubstrateError",
    "record_at",
]
