import builtins
import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from firstspike.interop.safe_pickle import SafeUnpickler, StandIn, UnsafePickleError


def load(raw):
    return SafeUnpickler(io.BytesIO(raw)).load()


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Thing:
    pass


class Dangerous:
    """Would do harm in __setstate__ or __new__, if its class were loaded."""

    def __init__(self):
        self.value = [1, 2]

    def __setstate__(self, state):
        raise AssertionError("executed")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, "text", None, True, (3,), -(2**70)],
        {"a": {"b": [1]}, 3: {1, 2}},
        OrderedDict([("x", 1), ("y", [2])]),
        {frozenset({1}), "s"},
        complex(1, 2),
        b"bytes \x00\xff",
    ],
)
def test_plain_data(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_stand_ins(protocol):
    made = load(pickle.dumps(Dangerous(), protocol))
    assert isinstance(made, StandIn)
    assert made.qualified == f"{__name__}.Dangerous"
    assert made.name == "Dangerous"
    assert made.attributes == {"value": [1, 2]}


def test_cycles_and_methods():
    thing = Thing()
    thing.me, thing.method = thing, [].append
    made = load(pickle.dumps(thing, 2))
    assert made.attributes["me"] is made
    assert isinstance(made.attributes["method"], StandIn)
    assert made.attributes["method"].qualified == "builtins.getattr"


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("echo harm > harm",), r"(posix|nt|os)\.system"),
        (builtins.eval, ("open('harm', 'w')",), "builtins.eval"),
        (builtins.exec, ("open('harm', 'w')",), "builtins.exec"),
        (builtins.__import__, ("os",), "builtins.__import__"),
        (builtins.open, ("harm", "w"), r"io\.open|_io\.open"),
        (torch.load, ("harm",), "torch.serialization.load"),
        (pickle.loads, (b"N.",), r"_?pickle\.loads"),
        (Thing, (), rf"{__name__}\.Thing"),
        (np.load, ("harm",), "numpy.*load"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_calls_are_refused_by_name(function, arguments, name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafePickleError, match=f"wants to call ({name})"):
        load(pickle.dumps([Calls(function, *arguments)], protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "raw",
    [
        b"cos\nsystem\n(S'touch harm'\ntR.",  # REDUCE
        b"(cos\nsystem\nS'touch harm'\no.",  # OBJ
        b"(S'touch harm'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch harm\x85R.",  # STACK_GLOBAL
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch harm'\ntR.",  # getattr gives nothing to call
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"ccopyreg\n_reconstructor\n(cos\nsystem\ncbuiltins\nlist\nNtR(S'touch harm'\ntR.",
        b"c_codecs\nencode\n(S'abc'\nS'punycode'\ntR.",
        b"ccollections\nOrderedDict\n}(S'x'\nI1\nub.",  # to change a function
        b"ccollections\nOrderedDict\nN}S'x'\nI1\ns\x86b.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ of a function
        b"\x80\x02cos\nsystem\n)\x81(S'touch harm'\ntR.",  # to call an object
        b"\x80\x02\x82\x01.",  # an extension
        b"Pid\n.",  # a persistent id
        b"Nr\xff\xff\xff\x7f.",  # a memo of gigabytes
        b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00.",  # as large a bytearray
    ],
)
def test_handmade_opcodes_do_nothing(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnsafePickleError, pickle.UnpicklingError, TypeError, ValueError, AttributeError)):
        load(raw)
    assert not list(tmp_path.iterdir())


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "harmful.py").write_text("open('harm', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    made = load(b"\x80\x02charmful\nThing\n)\x81}X\x01\x00\x00\x00xK\x01sb.")
    assert made.attributes == {"x": 1}
    assert not (tmp_path / "harm").exists()


def test_numpy_arrays_are_noted():
    made = load(pickle.dumps([np.arange(3), np.float64(2)], 2))
    assert [note.qualified.rpartition(".")[2] for note in made] == ["_reconstruct", "scalar"]
