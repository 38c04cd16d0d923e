"""Training, validation and test data: drawn independently, or from one table."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from firstspike.data.arrays import Image, as_table, as_tensor
from firstspike.data.base import SpikeData, Splits
from firstspike.data.encoding import Encoder, LatencyEncoder
from firstspike.data.events import EventLists
from firstspike.data.labels import class_indices, targets
from firstspike.data.series_encoding import SeriesEncoder, as_encoder, as_series
from firstspike.layers.timescales import waits_and_lengths
from firstspike.ranges import Size, checks_ranges
from firstspike.signature import parts_of_docstring, takes_arguments_of

Part = Literal["train", "validation", "test"]
_LATE = 100.0  # in units of tau_syn: first spikes come earlier
_SIZES = """

Args:
    train: number of training samples.
    validation: number of validation samples.
    test: number of test samples.
    seeds: seeds of the three parts (training, validation, test), which are drawn independently.
"""


def split(
    times: ArrayLike | Tensor | EventLists,
    labels: ArrayLike | Tensor,
    validation: float | None = 0.1,
    test: float | None = 0.1,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    stratified: bool = True,
    encode: Encoder | Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    trains: bool = False,
    regression: bool = False,
) -> Splits:
    """Divide labelled samples at random into training, validation and test data.

        splits = fs.data.split(wine.data, wine.target, encode={"late": 1.5}, class_names=wine.target_names)

    Arrays, tensors and nested lists are accepted. Samples of more than one dimension, `(samples, height, width)` or
    `(samples, channels, height, width)`, are images, which `SpikingConv2d` can take. With `trains` they are spike
    trains, and with an encoder of time series signals. Times `(samples, height, width)` that are sorted along the last
    dimension, as spike trains are, are refused without `trains`. Images of that kind are `(samples, 1, height, width)`.

    Args:
        times: spike times `(samples, inputs)` in units of `tau_syn`, `inf` = no spike; with `encode` values of any
            range, NaN = missing, or signals `(samples, channels, time)`. Or spike trains as `EventLists`. With a frame
            of pandas or polars the data keep the names of the columns.
        labels: class of each sample `(samples,)`, whole numbers or names; with `regression` numbers, also
            `(samples, targets)`.
        validation: part of the samples for validation: below 1 a fraction, from 1 on their number; None or 0 for none.
        test: part of the samples for testing, like ``validation``.
        seed: seed of the random choice.
        class_names: names of the classes 0, 1, 2, ... Labels are then such numbers, or these names. By default
            they follow from the labels in sorted order.
        stratified: every part has the classes in the proportions of the whole, as far as whole samples allow.
        encode: encodes values by spike times: a `LatencyEncoder`, or a dict of its arguments, for instance
            `{"early": 0.15, "late": 2.0}`. Signals take a `LevelCrossingEncoder` or `ThresholdEncoder`, or a dict such
            as `{"kind": "level_crossing", "levels": 8}`. Those of different lengths are a list of `(channels, time)`.
            Unless it has ranges already, it is fitted to the training part alone.
        dtype: of the times.
        trains: `times` are spike trains `(samples, inputs, spikes)`, sorted, `inf` after the last spike.
        regression: labels are numbers. `class_names` name the targets.

    Returns:
        The three parts. Samples of a part are in random order. Their `encoder` is the fitted one.

    Warns:
        UserWarning: spike times so late, or so far apart, that their unit is hardly that of neurons' time constants.

    Raises:
        ValueError: shapes or labels that do not fit, sizes that leave no sample for training, and as in `SpikeData`.
    """
    encoder = None if encode is None else as_encoder(encode)
    image, columns = None, tuple(" ".join(str(name).split()) for name in getattr(times, "columns", ()))
    if isinstance(times, EventLists):
        if encoder is not None:
            raise ValueError("encode: spike trains from events are not encoded again")
        table: Tensor | EventLists = times
    elif isinstance(encoder, SeriesEncoder):
        table = as_series(times)
    elif trains:
        table = as_tensor("times", times, torch.float64).detach().cpu().double()
        if table.ndim != 3:
            raise ValueError(f"times: expected spike trains (samples, inputs, spikes), got {tuple(table.shape)}")
    else:
        name, how = ("times", "pass trains=True") if encode is None else ("values", None)
        table, image = as_table(times, name, trains=how)
    if encoder is None and table.ndim == 3 and len(waits := waits_and_lengths(table)[0]):
        wait = float(waits.median())
        if wait > _LATE:
            warnings.warn(
                f"spikes of a sample come {wait:.2g} apart in the median, in units of tau_syn: divide the times, such "
                "as microseconds by 1000 for ms, or give neurons such time constants, LIF(tau_mem=..., tau_syn=...)",
                stacklevel=2,
            )
    classes, names = (targets if regression else class_indices)(labels, len(table), class_names)
    return divided(Samples(table, classes, names, image, columns), validation, test, seed, encoder, dtype, stratified)


class Samples(NamedTuple):
    """Labelled samples before they are divided: spike times or trains, or values or signals to encode."""

    table: Float64[Tensor, "samples inputs *more"] | EventLists
    labels: Int64[Tensor, " samples"] | Float64[Tensor, "samples targets"]
    class_names: tuple[str, ...]
    image: Image | None = None
    columns: tuple[str, ...] = ()

    def chosen(self, index: Int64[Tensor, " chosen"]) -> "Samples":
        """The samples with these indices."""
        table = self.table.select(index) if isinstance(self.table, EventLists) else self.table[index]
        return self._replace(table=table, labels=self.labels[index])

    def data(self, encoder: Encoder | None, dtype: torch.dtype) -> SpikeData:
        """The data, encoded if there is a fitted encoder."""
        labels = self.labels.to(dtype) if self.labels.is_floating_point() else self.labels
        table, image, blank = self.table, self.image, None
        if encoder is None or isinstance(table, EventLists):
            return SpikeData(table.to(dtype=dtype), labels, self.class_names, image, columns=self.columns)
        if image is not None and isinstance(encoder, LatencyEncoder):
            blank = tuple(time for time in encoder.blank for _ in range(image[0]))
            image = (len(blank), *image[1:])
        return SpikeData(encoder(table, dtype), labels, self.class_names, image, blank, encoder, self.columns)


def divided(
    samples: Samples,
    validation: float | None,
    test: float | None,
    seed: int,
    encoder: Encoder | None,
    dtype: torch.dtype,
    stratified: bool = True,
) -> Splits:
    """`split` of samples whose labels are indices of classes, or numbers."""
    table, count = samples.table, len(samples.labels)
    if encoder is None and isinstance(table, Tensor) and table.ndim == 2 and table.numel():
        latest = float(table.nan_to_num(posinf=0.0).amax())
        if latest > _LATE:
            warnings.warn(
                f"there are spike times up to {latest:g}, in units of tau_syn; values that are not spike times need "
                "encode={}",
                stacklevel=3,
            )
    sizes = [_size(name, share, count) for name, share in (("validation", validation), ("test", test))]
    if sum(sizes) >= count:
        raise ValueError(f"validation, test: expected fewer than all of {count} samples, got {sum(sizes)}")
    *held, train = _random_order(samples.labels, seed, stratified).split([*sizes, count - sum(sizes)])
    if encoder is not None and not encoder.features:
        encoder = encoder.fit(samples.chosen(train).table)
    return Splits(*(samples.chosen(part).data(encoder, dtype) for part in (train, *held)))


def _size(part: str, share: float | None, samples: int) -> int:
    """Number of samples in a part."""
    if not share:
        return 0
    if 0 < share < 1:
        return max(1, round(share * samples))
    if share >= 1 and share % 1 == 0:
        return int(share)
    raise ValueError(f"{part}: expected a fraction below 1 or a number of samples, got {share}")


def _random_order(labels: Tensor, seed: int, stratified: bool) -> Int64[Tensor, " samples"]:
    """Samples in random order. If stratified, every stretch of them has all classes in proportion."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if not stratified or labels.is_floating_point():
        return order
    position = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        of_class = labels[order] == label
        count = int(of_class.sum())
        position[of_class] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return order[position.argsort(stable=True)]


def independent_splits(draw: Callable[..., SpikeData], train: int, validation: int, test: int) -> Callable[..., Splits]:
    """A builder of three independent draws, with these default sizes. It takes other arguments of ``draw``, too."""

    def build(
        train: Size = train,
        validation: Size = validation,
        test: Size = test,
        seeds: tuple[int, int, int] = (42, 41, 40),
        **options: Any,
    ) -> Splits:
        if len(seeds) != 3:
            raise ValueError(f"seeds: expected three (train, validation, test), got {list(seeds)}")
        sizes = zip((train, validation, test), seeds, strict=True)
        return Splits(*(draw(samples=size, seed=seed, **options) for size, seed in sizes))

    build.__doc__ = "\n\n".join(parts_of_docstring(draw)[0]) + _SIZES
    return takes_arguments_of(draw, without=("samples", "seed"))(build)


def part_of(kind: str, build: Callable[..., Splits]) -> Callable[..., SpikeData]:
    """A function named as the data set that returns one of the three parts that its builder makes."""

    @checks_ranges
    def one(split: Part = "train", **options: Any) -> SpikeData:
        part: SpikeData = getattr(build(**options), split)
        return part

    one.__name__ = one.__qualname__ = kind
    before, _, after = parts_of_docstring(build)
    one.__doc__ = "\n\n".join([*before, "Args:\n    split: which of the three parts.", *after])
    return takes_arguments_of(build)(one)
