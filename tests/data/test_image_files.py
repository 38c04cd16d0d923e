import gzip
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from firstspike import data
from firstspike.data import image_files as module
from firstspike.data.image_files import _find_idx, _read_idx, image_splits

SIZES = {"train": 120, "validation": 60, "test": 40}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of our own, no packages of the system, and no torchvision."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    sources = {name: source._replace(folders=(tmp_path / "system",)) for name, source in module.SOURCES.items()}
    monkeypatch.setattr(module, "SOURCES", sources)
    return tmp_path / "cache" / "firstspike"


def brightness(times):
    return ((2.0 - times.double()) / (2.0 - 0.15) * 255).round().numpy().astype(np.uint8)


def test_learning_images_are_shared_out_and_test_images_keep_their_order(image_folder):
    splits = image_splits("mnist", 140, 60, 40, folder=image_folder)
    pixels = _read_idx(image_folder / "train-images-idx3-ubyte").reshape(200, -1)
    ours = np.concatenate([brightness(part.times) for part in splits[:2]])
    assert sorted(ours.tolist()) == sorted(pixels.tolist())
    labels = {row.tobytes(): k % 10 for k, row in enumerate(pixels)}
    for part in splits[:2]:
        assert [labels[row.tobytes()] for row in brightness(part.times)] == part.labels.tolist()
    fresh = _read_idx(image_folder / "t10k-images-idx3-ubyte").reshape(60, -1)
    assert np.array_equal(brightness(splits.test.times), fresh[:40])
    assert splits.test.labels.tolist() == [k % 10 for k in range(40)]


def test_bright_is_early_and_black_is_late_or_silent(image_folder):
    options = SIZES | {"folder": image_folder}
    bright = data.mnist("train", **options)
    assert float(bright.times.min()) == pytest.approx(0.15)
    assert bool((bright.times[:, 0] == 2.0).all())
    silent = data.mnist("train", silent_background=True, **options)
    assert torch.equal(silent.times.isinf(), bright.times == 2.0)
    inverse = data.mnist("train", invert=False, **options)
    torch.testing.assert_close(inverse.times, 2.15 - bright.times)
    assert torch.equal(data.mnist("train", on_off=True, **options).times, torch.cat([bright.times, inverse.times], 1))


def test_small_images_are_those_of_pillow(image_folder):
    """Within one level of brightness."""
    times = data.DATASETS["mnist_16x16"](folder=image_folder, **SIZES).test.times
    assert times.shape == (40, 256)
    pixels = _read_idx(image_folder / "t10k-images-idx3-ubyte")
    for ours, image in zip(brightness(times), pixels, strict=False):
        shrunk = Image.fromarray(image[2:-2, 2:-2]).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(shrunk, dtype=int).ravel() - ours.astype(int)).max() <= 1


def test_fashion_has_names():
    assert len(set(module.SOURCES["fashion_mnist"].class_names)) == 10


def test_zipped_files_are_the_same(tmp_path, image_folder, write_images):
    zipped = data.mnist("test", folder=write_images(tmp_path / "zipped", zipped=True), **SIZES)
    assert torch.equal(zipped.times, data.mnist("test", folder=image_folder, **SIZES).times)


def test_where_the_files_are_found(tmp_path, cache, write_images):
    for place in (tmp_path / "system", cache / "FashionMNIST" / "raw"):
        write_images(place)
        assert len(data.fashion_mnist("train", **SIZES)) == 120
        for file in place.iterdir():
            file.unlink()
    with pytest.raises(FileNotFoundError, match="fashion_mnist: the files are not in"):
        data.fashion_mnist(**SIZES)


def test_missing_files_say_how_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not installed.*\[images\].*or set data.folder"):
        data.mnist()
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist"):
        data.fashion_mnist()
    (tmp_path / "train-images-idx3-ubyte").touch()  # not all four
    with pytest.raises(FileNotFoundError, match="expected train-images-idx3-ubyte, train-labels"):
        data.mnist(folder=tmp_path)


def fake_torchvision(monkeypatch, download):
    fake = types.ModuleType("torchvision")
    fake.datasets = types.SimpleNamespace(MNIST=download)
    monkeypatch.setitem(sys.modules, "torchvision", fake)


def test_torchvision_fetches_into_the_cache(monkeypatch, cache, write_images):
    calls = []

    def download(root, download):
        calls.append((root, download))
        write_images(cache / "MNIST" / "raw")

    fake_torchvision(monkeypatch, download)
    first = data.mnist(**SIZES)
    assert torch.equal(data.mnist(**SIZES).times, first.times)
    assert calls == [(str(cache), True)]


def test_torchvision_without_a_network(monkeypatch):
    def download(root, download):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nmore")

    fake_torchvision(monkeypatch, download)
    with pytest.raises(FileNotFoundError, match=r"download them \(Error downloading train-images-idx3-ubyte.gz\)\."):
        data.mnist()


def test_too_many_images(image_folder):
    with pytest.raises(ValueError, match="train, validation: expected at most 200 images in total, got 201"):
        data.mnist(train=141, validation=60, test=1, folder=image_folder)
    with pytest.raises(ValueError, match="test: expected at most 60 images in total, got 61"):
        data.mnist(train=1, validation=1, test=61, folder=image_folder)


def test_unknown_split(image_folder):
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'valid'"):
        data.mnist("valid", folder=image_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x0d\x01\0\0\0\0", "begins with 00000d01"),
        (b"\0\0\x08\x01\0\0", "is corrupt"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"expected 5 numbers of shape \(5,\), got 3"),
        (b"\0\0\x08\x01\0\0\0\x02abc", r"expected 2 numbers of shape \(2,\), got 3"),
        (
            b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff",
            r"expected \d+ numbers of shape \(4294967295, 4294967295\), got 0",
        ),
        (b"\x1f\x8b\x08\0", "is corrupt"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        _read_idx(path)


def test_images_of_another_size(tmp_path, write_idx, write_images):
    folder = write_images(tmp_path)
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((200, 8, 8)))
    with pytest.raises(ValueError, match=r"expected images of 28x28 pixels, got the shape \(200, 8, 8\)"):
        data.mnist(folder=folder)
    write_images(tmp_path)
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(ValueError, match="expected one label for each of 60 images"):
        data.mnist(folder=folder)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((200, 28, 28), "expected 156800 numbers of shape .*, got 156801 or more"),
        ((1, 1, 200, 28, 28), r"expected images of 28x28 pixels, got the shape \(1, 1, 200"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), "expected images of 28x28 pixels, got the shape"),
        ((1,) * 255, "expected images of 28x28 pixels, got the shape"),
        ((0, 2**32 - 1, 2**32 - 1), "expected images of 28x28 pixels, got the shape"),
        ((), r"expected images of 28x28 pixels, got the shape \(\)"),
    ],
)
def test_no_more_is_unpacked_than_a_file_announces(tmp_path, write_images, sizes, message):
    folder = write_images(tmp_path)
    packed = gzip.compress(struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + bytes(1 << 23))
    (folder / "train-images-idx3-ubyte").write_bytes(packed[:-100])  # its end would be an error
    with pytest.raises(ValueError, match=message) as error:
        data.mnist(folder=folder)
    assert len(str(error.value)) < 300


def test_a_head_that_announces_all_memory_is_no_reason_to_take_it(tmp_path, write_images):
    folder = write_images(tmp_path)
    head = struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28)
    for content in (head, gzip.compress(head)):
        (folder / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(ValueError, match=r"expected 3367254359280 numbers of shape \(4294967295, 28, 28\), got 0"):
            data.mnist(folder=folder)


def test_without_a_home_folder(monkeypatch):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(
        FileNotFoundError, match="the user has no home folder; set the folder of the data, or XDG_CACHE"
    ):
        data.mnist()
    with pytest.raises(FileNotFoundError, match="~nobody-has-this-name/x: there is no such home folder"):
        data.mnist(folder="~nobody-has-this-name/x")


def test_names_with_a_dot(tmp_path):
    (tmp_path / "train-images.idx3-ubyte.gz").touch()
    assert _find_idx(tmp_path, "train-images-idx3-ubyte").name == "train-images.idx3-ubyte.gz"
    assert _find_idx(tmp_path, "train-labels-idx1-ubyte") is None
