import builtins
import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from firstspike.interop.pickles import UnsafePickleError
from firstspike.interop.safe_pickle import SafeUnpickler, StandIn


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


NESTED = b"N" + b"2\x86" * 60  # DUP, TUPLE2: a tuple of two tuples that are the same one, and so on inwards


@pytest.mark.parametrize(
    "raw",
    [
        b"}" + NESTED + b"Ns.",
        b"(" + NESTED + b"\x91.",  # a frozenset
        b"cbuiltins\nset\n]" + NESTED + b"a\x85R.",
        b"}" + b"N" + b"\x85" * 10_000 + b"Ns.",  # deeper than what hashes can follow
        b"}(" + b"K\x01" * 5000 + b"tq\x00N" + b"h\x00Ns" * 5000 + b".",  # a long one as a key again and again
        b"}\x8b\x00\x20\x00\x00" + b"\x01" * 8192 + b"q\x00N" + b"h\x00Ns" * 5000 + b".",  # the same of a number
        b"}N" + b"2\x86\x85q\x000ctorch._utils\n_rebuild_parameter\nh\x00R" * 60 + b"Ns.",  # through a function
    ],
    ids=["key", "frozenset", "set", "deep", "flat", "number", "call"],
)
def test_tuples_that_would_be_hashed_without_end(raw):
    with pytest.raises(ValueError, match="tuples in tuples without end"):
        load(b"\x80\x02" + raw)


@pytest.mark.parametrize("protocol", range(6))
def test_shared_values_are_no_harm(protocol):
    shape, lists = (3, 4), [[1]] * 50
    value = {f"layer {k}": (shape, shape, [shape], k) for k in range(200)} | {"lists": lists, shape: 10**100}
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("raw", [b"\x80\x02s.", b"\x80\x02h\x05.", b"\x80\x02e.", b"\x80\x02}N(u"])
def test_operations_without_anything_to_work_on(raw):
    with pytest.raises(ValueError, match=r"nothing to work on|exhausted"):
        load(raw)


@pytest.mark.parametrize(
    "call", [b"ccopy_reg\n_reconstructor\n(%bNNtR.", b"c_codecs\nencode\n(%btR.", b"c_codecs\nencode\n(NS''\n0%btR."]
)
def test_messages_name_types_alone(call):
    lists = b"]q\x000" + b"".join(b"]q%ch%cah%ca0" % (k + 1, k, k) for k in range(60)) + b"h\x3c"
    with pytest.raises(ValueError, match=r"an object of a list|text to encode|another way"):
        load(b"\x80\x02" + call % lists)
