"""What holds for every data set in DATASETS."""

import inspect
import subprocess
import sys
from functools import partial

import pytest
import torch

from firstspike.data import DATASETS, SpikeData, Splits

SIZES = {"train": 40, "validation": 20, "test": 12}


FROM_FILES = {"mnist", "mnist_16x16", "fashion_mnist"}


@pytest.fixture(params=sorted(DATASETS))
def build(request, image_folder):
    build = DATASETS[request.param]
    if request.param in FROM_FILES:
        return partial(build, train=100, validation=60, test=40, folder=image_folder)
    return build


def test_sizes_and_common_shape(build):
    splits = build(**SIZES)
    assert isinstance(splits, Splits)
    assert [len(part) for part in splits] == [40, 20, 12]
    for part in splits:
        assert isinstance(part, SpikeData)
        assert part.features == splits.train.features
        assert part.class_names == splits.train.class_names


def test_defaults_have_all_classes_in_every_split(build):
    for part in build():
        assert set(part.labels.tolist()) == set(range(len(part.class_names)))


def test_same_arguments_same_data(build):
    for one, other in zip(build(**SIZES), build(**SIZES), strict=True):
        assert torch.equal(one.times, other.times)
        assert torch.equal(one.labels, other.labels)


def test_the_seed_matters(build):
    seeded = {"seed": 7} if "seed" in inspect.signature(build).parameters else {"seeds": [7, 8, 9]}
    first, second = build(**SIZES), build(**SIZES, **seeded)
    if "folder" in inspect.signature(build).parameters:  # test images keep their order
        assert torch.equal(first.test.times, second.test.times)
        first, second = first[:2], second[:2]
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one.times, other.times)


def test_global_generator_is_untouched(build):
    before = torch.get_rng_state()
    build(**SIZES)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_rounds_the_same_numbers(build, dtype):
    for part, exact in zip(build(**SIZES, dtype=dtype), build(**SIZES, dtype=torch.float64), strict=True):
        assert part.times.dtype == dtype
        assert torch.equal(part.times, exact.times.to(dtype))
        assert torch.equal(part.labels, exact.labels)


def test_times_lie_in_the_window(build):
    for part in build(**SIZES, early=1.0, late=4.0, dtype=torch.float64):
        assert part.times.min() >= 1.0
        assert part.times.max() <= 4.0


def test_common_parameters(build):
    parameters = list(inspect.signature(build).parameters)
    assert parameters[:3] == ["train", "validation", "test"]
    assert parameters[3] in {"seeds", "seed"}
    assert {"early", "late", "dtype"} <= set(parameters)


@pytest.mark.parametrize("size", ["train", "validation", "test"])
def test_empty_splits_are_refused(build, size):
    with pytest.raises(ValueError, match="expected a finite number of at least 1"):
        build(**(SIZES | {size: 0}))


def test_bad_window_is_refused(build):
    with pytest.raises(ValueError, match="early, late: expected"):
        build(**SIZES, early=2.0, late=1.0)


def test_import_needs_no_scikit_learn():
    code = "import sys, firstspike.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
