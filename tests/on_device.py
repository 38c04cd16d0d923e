"""``pytest --device NAME``: what tests that use the fixture ``on_device`` make is made on that device."""

import functools
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

import away
from firstspike import layers

HERE = str(Path(__file__).parent)
CONSTRUCTORS = {*_device_constructors()} - {torch.asarray}
MODULES = {*layers.LAYERS.values(), nn.Linear}


def usable(name):
    """Make the device usable, or raise a usage error; returns what has to live as long as the process."""
    if name == away.NAME:
        return away.register()
    try:
        return torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise pytest.UsageError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None


class Made(TorchFunctionMode):
    """Tensors that tests make, without a device, are moved to the device: the numbers are the same on each."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        here = sys._getframe(1).f_code.co_filename.startswith(HERE)
        if not here or func not in CONSTRUCTORS or kwargs.get("device") is not None:
            return func(*args, **kwargs)
        learns = kwargs.pop("requires_grad", False)
        return func(*args, **kwargs).to(self.device).requires_grad_(learns)


@contextmanager
def all_on(device):
    """Inside, modules and the tensors of tests are made on the device."""
    with ExitStack() as stack:
        for cls in MODULES:

            @functools.wraps(cls.__init__)
            def init(self, *args, made=cls.__init__, **kwargs):
                made(self, *args, **kwargs)
                if kwargs.get("device") is None and sys._getframe(1).f_code.co_filename.startswith(HERE):
                    self.to(device)

            stack.enter_context(mock.patch.object(cls, "__init__", init))
        stack.enter_context(Made(device))
        yield
