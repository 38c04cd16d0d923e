import builtins
import io
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from firstspike.interop.torch_file import StandIn, TorchFileError, UnsafePickleError, _Unpickler, read_torch_file

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "row"])


def save(value, path, zipped):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def array(tensor):
    assert isinstance(tensor, torch.Tensor)
    return tensor.numpy()


@FORMS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_tensors(tmp_path, zipped, dtype):
    base = torch.arange(24).reshape(4, 6).to(dtype)
    tensors = [base, base.T, base[1:3, ::2], base[0, 5], base[:0], torch.empty(0, dtype=dtype)]
    found = read_torch_file(save({"all": tensors}, tmp_path / "x.pt", zipped))["all"]
    for tensor, read in zip(tensors, found, strict=True):
        np.testing.assert_array_equal(array(read), tensor.numpy())
        assert array(read).dtype == tensor.numpy().dtype


@FORMS
def test_whole_modules(tmp_path, zipped):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).double()
    net.register_buffer("steps", torch.tensor([1.5]))
    read = read_torch_file(save(net, tmp_path / "x.pt", zipped))
    assert isinstance(read, StandIn)
    assert read.qualified == "torch.nn.modules.container.Sequential"
    linear = read.attributes["_modules"]["0"]
    assert type(linear).__name__ == "Linear"
    np.testing.assert_array_equal(array(linear.attributes["_parameters"]["weight"]), net[0].weight.detach().numpy())
    assert array(read.attributes["_buffers"]["steps"]) == 1.5


class Harm:
    def __reduce__(self):
        return eval, ("open('harm', 'w')",)


@FORMS
def test_harm_is_refused(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = save({"weights": torch.ones(2), "harm": Harm()}, tmp_path / "x.pt", zipped)
    with pytest.raises(UnsafePickleError, match=r"x.pt: the pickle wants to call builtins.eval"):
        read_torch_file(path)
    assert not (tmp_path / "harm").exists()


@FORMS
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_damaged_files(tmp_path, zipped, keep):
    raw = save({"a": torch.ones(100)}, tmp_path / "x.pt", zipped).read_bytes()
    (tmp_path / "y.pt").write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(TorchFileError, match=r"y\.pt"):
        read_torch_file(tmp_path / "y.pt")


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_memo_indices_reserve_no_memory(tmp_path, put):
    raw = save({"a": torch.ones(10)}, tmp_path / "x.pt", zipped=False).read_bytes()
    (tmp_path / "y.pt").write_bytes(raw.replace(b"q\x02", put, 1))
    with pytest.raises(TorchFileError, match=r"y\.pt: .*damaged \(memo index 4294967295 at byte \d+"):
        read_torch_file(tmp_path / "y.pt")


@pytest.mark.slow
@FORMS
def test_changed_bytes_are_errors_or_other_numbers(tmp_path, zipped):
    raw = save({"a": torch.ones(10), "b": [torch.nn.Linear(2, 3)]}, tmp_path / "x.pt", zipped).read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(100):
        changed = bytearray(raw)
        for place in random.integers(len(raw), size=random.integers(1, 4)):
            changed[place] = random.integers(256)
        (tmp_path / "y.pt").write_bytes(changed)
        try:
            read_torch_file(tmp_path / "y.pt")
        except (TorchFileError, UnsafePickleError):
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("raw", [b"", b"hello", pickle.dumps({"a": 1}), b"PK\x03\x04"])
def test_other_files(tmp_path, raw):
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(TorchFileError, match=r"x.pt: is not a file of torch.save"):
        read_torch_file(tmp_path / "x.pt")


def forged(tmp_path, arguments, compression=zipfile.ZIP_STORED):
    """A file whose only tensor claims the given offset, shape and stride over eight numbers."""
    torch.save({"a": torch.zeros(8)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bad.pt", "w", compression) as bad:
        for name in good.namelist():
            raw = good.read(name)
            if name.endswith("data.pkl") and arguments is not None:
                *start, stride = (b"K" + bytes([number]) for number in arguments)
                raw = _replaced(raw, b"K\x01\x85", stride + b"\x85")
                raw = _replaced(raw, b"K\x00K\x08\x85", b"".join(start) + b"\x85")
            bad.writestr(name, raw)
    return tmp_path / "bad.pt"


def _replaced(raw, old, new):
    assert raw.count(old) == 1
    return raw.replace(old, new)


def test_forged_files_are_read_like_others(tmp_path):
    np.testing.assert_array_equal(array(read_torch_file(forged(tmp_path, (2, 3, 2)))["a"]), np.zeros(3))


@pytest.mark.parametrize("arguments", [(0, 9, 1), (1, 8, 1), (0, 8, 2), (8, 1, 1)])
def test_tensors_stay_inside_their_data(tmp_path, arguments):
    with pytest.raises(TorchFileError, match="out of bounds for storage"):
        read_torch_file(forged(tmp_path, arguments))


def test_compressed_parts_are_refused(tmp_path):
    with pytest.raises(TorchFileError, match="compressed"):
        read_torch_file(forged(tmp_path, None, zipfile.ZIP_DEFLATED))


def test_programs_are_refused(tmp_path):
    with zipfile.ZipFile(forged(tmp_path, None), "a") as archive:
        archive.writestr("good/constants.pkl", b"")
    with pytest.raises(TorchFileError, match="TorchScript"):
        read_torch_file(tmp_path / "bad.pt")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "nothing.pt")


def load(raw):
    return _Unpickler(io.BytesIO(raw)).load()


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


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, "text", None, True, (3,), -(2**70)],
        {"a": {"b": [1]}, 3: {1, 2}},
        OrderedDict([("x", 1), ("y", [2])]),
        {2.5, "s"},
    ],
)
def test_plain_data(value):
    assert load(pickle.dumps(value, 2)) == value  # the protocol of torch.save


def test_objects_become_stand_ins():
    made = load(pickle.dumps(Dangerous(), 2))
    assert isinstance(made, StandIn)
    assert made.qualified == f"{__name__}.Dangerous"
    assert type(made).__name__ == "Dangerous"
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
        b"ccollections\nOrderedDict\n}(S'x'\nI1\nub.",  # to change a function
        b"ccollections\nOrderedDict\nN}S'x'\nI1\ns\x86b.",
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ of a function
        b"\x80\x02cos\nsystem\n)\x81(S'touch harm'\ntR.",  # to call an object
        b"\x80\x02\x82\x01.",  # an extension
        b"Pid\n.",  # a persistent id
        b"Nr\xff\xff\xff\x7f.",  # a memo of gigabytes
        b"\x80\x05\x96\0\0\0\0\0\1\0\0.",  # as large a bytearray
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


@pytest.mark.parametrize("protocol", range(6))
def test_shared_values_are_no_harm(protocol):
    shape, lists = (3, 4), [[1]] * 50
    value = {f"layer {k}": (shape, shape, [shape], k) for k in range(200)} | {"lists": lists, shape: 10**100}
    assert load(pickle.dumps(value, protocol)) == value
