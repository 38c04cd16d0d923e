import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import firstspike as fs
from firstspike.config import ConfigError, load_config
from firstspike.data import SpikeData, bars, outline
from firstspike.training import Augment, Interrupted
from firstspike.training.augment import between, cut_out, interpolated, shifted
from trained import resume, start

pytestmark = pytest.mark.usefixtures("on_device")

INF = math.inf


def config(data=None, **training):
    return load_config(
        {
            "data": {"kind": "bars", "silent_background": True} | (data or {}),
            "network": [{"kind": "lif", "out_features": 3}],
            "loss": {"kind": "cross_entropy"},
            "training": {"epochs": 1, "batch_size": 10} | training,
        }
    )


DATA = bars(silent_background=True)


def augmented(times, sources, **settings):
    return Augment(**settings)(times, DATA, sources)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def times(members=2, batch=50):
    return torch.rand(members, batch, 9, generator=seeded(0)[0])


def test_images_move_and_blank_pixels_come_in():
    image = torch.arange(6.0).expand(2, 6)
    moved = shifted(image, torch.tensor([[1, 0], [0, -2]]), (1, 2, 3), (9.0,))
    assert moved.tolist() == [[9, 9, 9, 0, 1, 2], [2, 9, 9, 5, 9, 9]]
    both = shifted(torch.arange(8.0), torch.tensor([-1, 1]), (2, 2, 2), (INF, 9.0))
    assert both.tolist() == [INF, 2, INF, INF, 9, 6, 9, 9]


def test_shifts_take_all_steps_in_reach():
    one = torch.full((1, 400, 9), INF)
    one[..., 4] = 0.5
    found = augmented(one, seeded(1), shift=1)[0]
    assert bool((found.isfinite().sum(dim=1) == 1).all())
    assert found.argmin(dim=1).unique().tolist() == list(range(9))


def test_images_move_by_parts_of_pixels():
    image, steps = torch.arange(6.0).expand(2, 6), torch.tensor([[0.25, 0.0], [0.0, -0.5]])
    moved = interpolated(image, steps, (1, 2, 3), (10.0,))
    assert moved.tolist() == [[2.5, 3.25, 4.0, 2.25, 3.25, 4.25], [0.5, 1.5, 6.0, 3.5, 4.5, 7.5]]
    whole = torch.tensor([[1, 0], [0, -2]])
    assert torch.equal(interpolated(image, whole.float(), (1, 2, 3), (9.0,)), shifted(image, whole, (1, 2, 3), (9.0,)))


def test_silent_pixels_move_by_parts_of_pixels():
    image = torch.tensor([INF, 1.0, INF, 2.0]).expand(3, 4)
    steps = torch.tensor([[0.0, 0.25], [0.0, 0.5], [0.0, -0.75]])
    moved = interpolated(image, steps, (1, 1, 4), (INF,))
    assert moved.tolist() == [[INF, 1.0, INF, 2.0], [INF, INF, INF, INF], [1.0, INF, 2.0, INF]]


def test_parts_of_pixels_are_drawn_within_reach():
    row = torch.arange(9.0).expand(1, 4000, 9)
    data = replace(DATA, image=(1, 1, 9), blank=(INF,))
    moved = Augment(shift=0.4)(row, data, seeded(1))[0][:, 4] - 4.0
    assert moved.abs().max().item() == pytest.approx(0.4, abs=0.005)
    assert moved.mean().item() == pytest.approx(0.0, abs=0.02)


def test_steps_between_corners():
    corners = torch.tensor([[[0.0, 0.0], [0.0, 6.0]], [[3.0, 0.0], [3.0, 6.0]]])
    steps = between(corners, 4, 3)
    torch.testing.assert_close(steps[..., 0], torch.arange(4.0)[:, None].expand(4, 3))
    torch.testing.assert_close(steps[..., 1], torch.tensor([0.0, 3.0, 6.0]).expand(4, 3))


def test_images_turn_with_their_corners():
    corners = torch.tensor([[[-2.0, 0.0], [0.0, 2.0]], [[0.0, -2.0], [2.0, 0.0]]])
    images = torch.arange(18.0)
    turned = interpolated(images, between(corners, 3, 3), (2, 3, 3), (9.0, 9.0))
    assert torch.equal(turned.view(2, 3, 3), images.view(2, 3, 3).rot90(-1, (1, 2)))


def test_corners_move_by_the_given_distance():
    columns = torch.arange(8.0).expand(1, 4000, 8, 8)
    data = outline("digits", silent_background=True)
    middle = Augment(deform=0.5)(columns.flatten(2), data, seeded(1)).view_as(columns)[0, :, 4, 4] - 4.0
    assert middle.mean().item() == pytest.approx(0.0, abs=0.02)
    assert middle.std().item() == pytest.approx(0.5 * (4**2 + 3**2) / 7**2, abs=0.02)  # a mean of four corners


@pytest.mark.parametrize(
    ("kind", "options", "blank"),
    [
        ("bars", {}, (2.0,)),
        ("bars", {"silent_background": True}, (INF,)),
        ("digits", {"late": 3.0}, (3.0,)),
        ("digits", {"invert": False}, (0.15,)),
        ("mnist", {"silent_background": True}, (INF,)),
        ("digits", {"on_off": True}, (2.0, 0.15)),
        ("digits", {"on_off": True, "invert": False, "silent_background": True}, (0.15, INF)),
    ],
)
def test_blank_pixels_are_those_of_the_data(kind, options, blank):
    assert outline(kind, **options).blank == pytest.approx(blank)


def test_half_of_the_images_are_flipped():
    given = times(batch=400)
    found = augmented(given, seeded(1, 2), flip=True)
    turned = (found != given).any(dim=-1)
    other = given.unflatten(-1, (3, 3))[..., [2, 1, 0]].flatten(-2)
    assert torch.equal(found, torch.where(turned[..., None], other, given))
    assert turned.double().mean().item() == pytest.approx(0.5, abs=0.06)
    assert not torch.equal(turned[0], turned[1])


def test_inputs_are_dropped():
    found = augmented(times(), seeded(1, 2), dropout=0.25)
    lost = found.isinf()
    assert torch.equal(found[~lost], times()[~lost])
    assert lost.double().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(lost[0], lost[1])


def test_squares_are_blank():
    source, image = seeded(1), torch.rand(2, 300, 18)
    data = bars(silent_background=True)
    data = replace(data, image=(2, 3, 3), blank=(INF, 9.0), times=image[0], labels=torch.zeros(300, dtype=torch.int64))
    found = Augment(cutout=2)(image[:1], data, source)[0].unflatten(-1, (2, 3, 3))
    cut = found != image[0].unflatten(-1, (2, 3, 3))
    assert bool((found[:, 0][cut[:, 0]] == INF).all())
    assert bool((found[:, 1][cut[:, 1]] == 9).all())
    assert torch.equal(cut[:, 0], cut[:, 1])
    corners = cut[:, 0].flatten(1).long().argmax(dim=1)
    assert corners.unique().tolist() == [0, 1, 3, 4]  # where the square begins
    assert set(cut[:, 0].sum(dim=(1, 2)).tolist()) == {1, 2, 4}


def test_square_of_a_place():
    cut = cut_out(torch.zeros(2, 16), torch.tensor([[0.0, 0.99], [0.5, 0.5]]), 3, (1, 4, 4), (7.0,))
    assert cut.unflatten(-1, (4, 4)).tolist() == [
        [[0, 0, 7, 7], [0, 0, 7, 7], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 7, 7, 7], [0, 7, 7, 7], [0, 7, 7, 7]],
    ]


@pytest.mark.parametrize("shift", [1, 0.4])
def test_each_member_draws_as_if_alone(shift):
    everything = {"flip": True, "shift": shift, "deform": 0.5, "cutout": 1, "dropout": 0.2, "jitter": 0.1}
    found = augmented(times(), seeded(1, 2), **everything)
    assert torch.equal(found[1], augmented(times()[1:], seeded(2), **everything)[0])


def test_negative_times_are_reflected_if_asked():
    plain = augmented(times(), seeded(1, 2), jitter=0.5)
    assert bool((plain < 0).any())
    assert torch.equal(augmented(times(), seeded(1, 2), jitter=0.5, reflect=True), plain.abs())


def test_nothing_is_drawn_unasked():
    source = seeded(1)
    before = source[0].get_state()
    given = times(1)
    assert augmented(given, source) is given
    assert torch.equal(source[0].get_state(), before)


def test_shift_needs_images():
    with pytest.raises(ConfigError, match=r"training.augment.shift: needs data that are images"):
        load_config("yin_yang", ["training.augment.shift=1"])
    with pytest.raises(ConfigError, match=r"training.augment.flip: needs data that are images"):
        load_config("yin_yang", ["training.augment.flip=true"])
    with pytest.raises(ConfigError, match=r"training.augment.deform: needs data that are images"):
        load_config("yin_yang", ["training.augment.deform=1"])
    with pytest.raises(ConfigError, match=r"training.augment.cutout: needs data that are images"):
        load_config("yin_yang", ["training.augment.cutout=2"])
    with pytest.raises(ConfigError, match=r"training.augment.dropout: should be less than 1"):
        load_config("bars", ["training.augment.dropout=1"])


@pytest.mark.parametrize(("name", "value"), [("shift", 3), ("shift", 3.5), ("deform", 3), ("cutout", 3)])
def test_changes_are_smaller_than_the_images(name, value):
    with pytest.raises(ConfigError, match=rf"training.augment.{name}: must be below 3, the size of the images, got"):
        load_config("bars", [f"training.augment.{name}={value}"])
    with pytest.raises(ValueError, match=f"{name} must be below 3, the size of the images, got"):
        augmented(times(), seeded(1, 2), **{name: value})


def events(batch=40, image=(2, 3, 4), spikes=3):
    """Data as those of an event camera: a spike train for each pixel and polarity."""
    trains = torch.rand(batch, math.prod(image), spikes, generator=seeded(0)[0]).sort(dim=-1).values
    trains[:, ::2, 1:] = INF
    return SpikeData(trains, torch.zeros(batch, dtype=torch.int64), ("0",), image)


@pytest.mark.parametrize("settings", [{"flip": True}, {"shift": 1}, {"cutout": 2}, {"flip": True, "cutout": 1}])
def test_trains_move_with_their_pixels(settings):
    """As images of the first spikes alone, of the second ones, and so on."""
    data = events()
    found = Augment(**settings)(data.times[None], data, seeded(1))
    for k in range(3):
        one = replace(data, times=data.times[..., k])
        assert torch.equal(found[..., k], Augment(**settings)(one.times[None], one, seeded(1)))
    assert not torch.equal(found[0], data.times)
    with_noise = Augment(**settings, jitter=0.1, dropout=0.1)(data.times[None], data, seeded(1))
    assert bool((with_noise[..., 1:] >= with_noise[..., :-1]).all())


def test_blank_pixels_with_trains_spike_once():
    data = replace(events(), blank=(0.5, INF))
    found = Augment(shift=2)(data.times[None], data, seeded(1)).unflatten(2, (2, 3, 4))
    late = [0.5, INF, INF]
    assert (found[:, :, 0] == torch.tensor(late)).all(dim=-1).any()
    assert not (found[..., 1:] == 0.5).any()


@pytest.mark.parametrize("settings", [{"deform": 1}, {"shift": 0.5}])
def test_trains_are_not_interpolated(settings, tmp_path):
    data = events()
    with pytest.raises(ValueError, match=r"would mix the spike trains of several pixels, got .*; shift by whole"):
        Augment(**settings)(data.times[None], data, seeded(1))
    network = fs.Network(fs.LIFSpikeTrains(24, 1, max_spikes=2), fs.MembraneReadout(1, 2, time=1.0))
    trainer = fs.Trainer(
        network, fs.losses.ReadoutCrossEntropy(), torch.optim.Adam(network.parameters()), augment=Augment(**settings)
    )
    with pytest.raises(ValueError, match="would mix the spike trains"):
        trainer.fit(data, epochs=1, folder=tmp_path / "run", progress_bar=False)
    assert not (tmp_path / "run").exists()


def test_images_of_one_row_are_flipped(tmp_path):
    np.savez(tmp_path / "rows.npz", times=np.random.default_rng(0).random((40, 1, 6)), labels=np.arange(40) % 3)
    files = {"kind": "files", "train": str(tmp_path / "rows.npz")}
    raw = config(augment={"flip": True}).model_dump() | {"data": files}
    assert load_config(raw).training.augment.flip


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_with_varied_samples_goes_on_bit_for_bit(tmp_path, seeds):
    varied = config({"train": 60}, augment={"flip": True, "shift": 1, "cutout": 1, "jitter": 0.1}, n_seeds=seeds)
    varied = varied.model_copy(update={"training": varied.training.model_copy(update={"epochs": 3})})
    start(tmp_path / "whole", varied, progress_bar=False)
    once = varied.model_copy(update={"training": varied.training.model_copy(update={"epochs": 1})})
    start(tmp_path / "parts", once, progress_bar=False)
    resume(tmp_path / "parts", epochs=3, progress_bar=False)
    for table in ("metrics.csv", "output_times.csv"):
        for path in (tmp_path / "whole").rglob(table):
            other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
            assert path.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_run_stopped_inside_an_epoch_goes_on_bit_for_bit(tmp_path):
    varied = config({"train": 60}, augment={"shift": 1, "dropout": 0.1, "jitter": 0.1})
    start(tmp_path / "whole", varied, progress_bar=False)
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start(tmp_path / "parts", varied, progress_bar=False, stop=lambda: next(asked) >= 3)
    resume(tmp_path / "parts", progress_bar=False)
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "parts" / "metrics.csv").read_bytes()
