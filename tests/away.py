"""A device ``away`` for tests of code for GPUs on machines without one: real values, out of the CPU's reach.

Torch has a place for devices that are written in Python. Here it holds tensors on the CPU inside tensors that say to be
``away``. As on a GPU, an operation on tensors of both devices is an error, as is NumPy, and everything without a device
is made on the CPU.
"""

import types

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "away"

aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_, aten._copy_from}
INDEXED = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # by those, too


class Away(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw):
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        device = torch.device(NAME, 0)
        return torch.Tensor._make_wrapper_subclass(cls, raw.shape, dtype=raw.dtype, device=device, **layout)

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self, *, tensor_contents=None):
        return f"{self.raw!r} {NAME}"

    def __reduce_ex__(self, protocol):  # a file holds values, and is read to the CPU
        learns = isinstance(self, torch.nn.Parameter)
        return (torch.nn.Parameter(self.raw, self.requires_grad) if learns else self.raw).__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        copy = Away(self.raw.detach().clone()).requires_grad_(self.requires_grad)
        copy._is_param = isinstance(self, torch.nn.Parameter)
        return memo.setdefault(id(self), copy)

    def numpy(self, *, force=False):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy

    def tolist(self):
        return self.raw.tolist()

    @property
    def data(self):
        return Away(self.raw.detach())  # whose changes torch does not see

    @data.setter
    def data(self, other):
        self.raw = other.raw

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """The operation on the tensors inside; what it gives is on the device of its arguments, or the one asked for."""
    packet = func.overloadpacket
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    others = [x for x in tensors if not isinstance(x, Away) and x.ndim]
    if others and packet not in COPIES | INDEXED:
        raise RuntimeError(f"Expected all tensors on one device, {func} got some on {NAME}:0 and on {others[0].device}")
    asked = kwargs.get("device")
    away = isinstance(args[0], Away) if packet in COPIES else True
    if asked is not None:
        away, kwargs = torch.device(asked).type == NAME, {**kwargs, "device": "cpu"}
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    args, kwargs = tree_map(lambda x: x.raw if isinstance(x, Away) else x, (args, kwargs))
    known = {id(x.raw): x for x in tensors if isinstance(x, Away)}

    def outside(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else Away(x) if away else x

    return tree_map(outside, func(*args, **kwargs))


def factories():
    """Operations that make a tensor on a device from none."""
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        packet, _, overload = name.partition(".")
        op = getattr(getattr(aten, packet, None), overload or "default", None) if space == "aten" else None
        if op is None:
            continue
        taken = {x.name: str(x.type) for x in op._schema.arguments}
        if "device" in taken and not any("Tensor" in kind for kind in taken.values()):
            yield name, op


def register():
    """Make the device known to torch, for the rest of the process; keep what is returned."""
    module = types.ModuleType(f"torch.{NAME}")
    yes = ("is_available", "is_initialized")
    no = ("_is_in_bad_fork", "current_device", "set_device", "synchronize", "manual_seed", "manual_seed_all")
    for names, value in ((yes, True), (no, False)):
        for name in names:
            setattr(module, name, lambda *_, value=value: value)
    module.device_count = lambda: 1
    _setup_privateuseone_for_python_backend(NAME, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    for name, op in factories():
        library.impl(name, lambda *args, op=op, **kwargs: run(op, args, kwargs), "PrivateUse1")
    copy = aten.copy_.default
    library.impl("_copy_from", lambda source, target, _=False: run(copy, (target, source), {}), "PrivateUse1")
    return library
