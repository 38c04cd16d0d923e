"""The ``data`` section: which data set, in which sizes. Fields are the arguments of the builder in ``DATASETS``."""

from math import inf
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from firstspike.training.config.base import Finite, NotNegative, Positive, Section, Seed, Size

Seeds = tuple[Seed, Seed, Seed]
RandomStateSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class DataSection(Section):
    """What all data sets share: sizes of the splits and the time window of the input spikes."""

    train: Size
    validation: Size
    test: Size
    early: NotNegative = 0.15
    late: Finite = 2.0

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        raise NotImplementedError

    def image(self) -> tuple[int, int, int] | None:
        """Channels, height and width, where the inputs are pixels in this order; else None."""
        return None

    def blank(self) -> tuple[float, ...]:
        """Time of a pixel with nothing on it, in each channel; ``inf`` where it does not spike."""
        late = inf if getattr(self, "silent_background", False) else self.late
        first, other = (late, self.early) if getattr(self, "invert", True) else (self.early, late)
        return (first, other) if getattr(self, "mirrored", False) else (first,)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.early < self.late:
            raise ValueError(f"early must be before late, got early {self.early} and late {self.late}")
        return self


class YinYang(DataSection):
    """Yin-Yang; sizes and seeds are the published ones."""

    kind: Literal["yin_yang"]
    train: Size = 5000
    validation: Size = 1000
    test: Size = 1000
    seeds: tuple[RandomStateSeed, RandomStateSeed, RandomStateSeed] = (42, 41, 40)
    r_small: Positive = 0.1
    r_big: Annotated[float, Field(gt=0, le=0.5)] = 0.5

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        return 4, 3

    @model_validator(mode="after")
    def _dots(self) -> Self:
        if not self.r_big / 20 <= self.r_small < self.r_big / 2:
            raise ValueError(
                f"r_small must be from r_big / 20 to below r_big / 2, got r_small {self.r_small} and r_big {self.r_big}"
            )
        return self


class Bars(DataSection):
    """Bars in square images."""

    kind: Literal["bars"]
    train: Size = 300
    validation: Size = 90
    test: Size = 90
    seeds: Seeds = (42, 41, 40)
    size: Annotated[int, Field(ge=2, le=200)] = 3
    noise: NotNegative = 0.0
    multiply: Size = 1
    silent_background: bool = False

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        return self.size**2 * self.multiply, 3

    def image(self) -> tuple[int, int, int] | None:
        """Channels, height and width; None where pixels are repeated."""
        return (1, self.size, self.size) if self.multiply == 1 else None


class Xor(DataSection):
    """Exclusive or of two spike times."""

    kind: Literal["xor"]
    train: Size = 200
    validation: Size = 100
    test: Size = 100
    seeds: Seeds = (42, 41, 40)
    noise: NotNegative = 0.0

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        return 2, 2


class Pattern(DataSection):
    """Spike patterns, given or drawn at random, with jitter."""

    kind: Literal["pattern"]
    train: Size = 300
    validation: Size = 90
    test: Size = 90
    seeds: Seeds = (42, 41, 40)
    patterns: list[Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]] | None = None
    classes: Annotated[int, Field(ge=2, le=10**6)] = 3
    inputs: Size = 10
    pattern_seed: Seed = 0
    jitter: NotNegative = 0.0

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        return (len(self.patterns[0]), len(self.patterns)) if self.patterns else (self.inputs, self.classes)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if self.patterns is not None and (len(self.patterns) < 2 or len({len(row) for row in self.patterns}) != 1):
            raise ValueError("patterns must be at least two lists of equal length, one per class")
        return self


class Images(DataSection):
    """What images of ten classes share.

    ``invert``: bright pixels, or ink, spike early. ``silent_background``: pixels at the late end do not spike.
    ``mirrored``: all pixels once more behind, encoded the other way round.
    """

    side: ClassVar[int]
    seed: Seed = 42
    invert: bool = True
    silent_background: bool = False
    mirrored: bool = False

    def shape(self) -> tuple[int, int]:
        """Numbers of inputs and classes."""
        return (1 + self.mirrored) * self.side**2, 10

    def image(self) -> tuple[int, int, int] | None:
        """Channels, height and width."""
        return 1 + self.mirrored, self.side, self.side


class Digits(Images):
    """scikit-learn's 8x8 digits."""

    side = 8
    kind: Literal["digits"]
    train: Size = 1197
    validation: Size = 300
    test: Size = 300

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if (together := self.train + self.validation + self.test) > 1797:
            raise ValueError(f"train, validation and test share 1797 images, got {together}")
        return self


class Files(Images):
    """Images from files, see ``image_splits``. ``folder``: where they are; by default they are searched, or fetched."""

    side = 28
    train: Size = 50_000
    validation: Size = 10_000
    test: Annotated[int, Field(gt=0, le=10_000)] = 10_000
    folder: str | None = None

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.train + self.validation > 60_000:
            raise ValueError(f"train and validation share 60000 images, got {self.train} and {self.validation}")
        return self


class Mnist(Files):
    """MNIST, 28x28 pixels."""

    kind: Literal["mnist"]


class FashionMnist(Files):
    """Fashion-MNIST, 28x28 pixels."""

    kind: Literal["fashion_mnist"]


class Mnist16(Files):
    """MNIST's inner 24x24 pixels, shrunk to 16x16."""

    side = 16
    kind: Literal["mnist_16x16"]


Data = Annotated[YinYang | Bars | Xor | Pattern | Digits | Mnist | FashionMnist | Mnist16, Field(discriminator="kind")]
