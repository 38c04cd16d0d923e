"""What holds for every data set in DATASETS that does not come from tables, recordings or aeon."""

import inspect
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from firstspike import data
from firstspike.data import DATASETS, SpikeData, Splits, outline

SIZES = {"train": 40, "validation": 20, "test": 12}


FROM_FILES = {"mnist", "mnist_16x16", "fashion_mnist"}
OWN_TESTS = {"camera", "files", "shd", "spoken_digits", "ssc", "time_series"}
KINDS = sorted(set(DATASETS) - OWN_TESTS)


@pytest.fixture(params=KINDS)
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


VARIANTS = {
    "bars": [{"size": 4}, {"silent_background": True}],
    "pattern": [{"classes": 4, "inputs": 6}, {"patterns": [[0.1, 0.2], [0.2, 0.1]]}],
    "digits": [{"on_off": True}, {"invert": False, "on_off": True, "silent_background": True}],
    "mnist_16x16": [{"silent_background": True}],
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, x) for kind in KINDS for x in [{}, *VARIANTS.get(kind, [])]],
)
def test_outline_is_that_of_the_data(kind, options, image_folder):
    found = outline(kind, **options, train=40, late=1.5)
    folder = {"folder": image_folder} if kind in FROM_FILES else {}
    for part in DATASETS[kind](**SIZES, **options, **folder, late=1.5):
        for name in ("features", "class_names", "image", "blank", "encoder"):
            assert getattr(found, name) == getattr(part, name)
        if part.image is not None and "silent_background" not in options:
            assert {float(x) for x in part.times.view(len(part), part.image[0], -1)[:, 0].amax(1)} == {1.5}
    assert len(found) == 0


@pytest.mark.parametrize(
    ("kind", "options", "blank"),
    [
        ("bars", {}, (2.0,)),
        ("bars", {"silent_background": True}, (math.inf,)),
        ("xor", {}, None),
        ("digits", {"late": 3.0}, (3.0,)),
        ("digits", {"invert": False}, (0.15,)),
        ("mnist", {"silent_background": True}, (math.inf,)),
        ("digits", {"on_off": True}, (2.0, 0.15)),
        ("digits", {"on_off": True, "invert": False, "silent_background": True}, (0.15, math.inf)),
    ],
)
def test_times_of_blank_pixels(kind, options, blank):
    assert outline(kind, **options).blank == blank


def test_times_lie_in_the_window(build):
    for part in build(**SIZES, early=1.0, late=4.0, dtype=torch.float64):
        assert part.times.min() >= 1.0
        assert part.times[torch.isfinite(part.times)].max() <= 4.0


def test_common_parameters(build):
    parameters = list(inspect.signature(build).parameters)
    assert parameters[:3] == ["train", "validation", "test"]
    assert parameters[3] in {"seeds", "seed"}
    assert {"early", "late", "dtype"} <= set(parameters)


@pytest.mark.parametrize("size", ["train", "validation", "test"])
def test_empty_splits_are_refused(build, size):
    with pytest.raises(ValueError, match=r"must be > 0 and <= \d+, got 0"):
        build(**(SIZES | {size: 0}))


def test_bad_window_is_refused(build):
    with pytest.raises(ValueError, match="early, late: expected"):
        build(**SIZES, early=2.0, late=1.0)


@pytest.mark.slow
def test_import_needs_no_scikit_learn():
    code = "import sys, firstspike.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_function_hides_a_module():
    modules = [path.stem for path in Path(data.__file__).parent.glob("[!_]*.py")]
    hidden = [name for name in modules if callable(getattr(data, name, None))]
    assert hidden == []
