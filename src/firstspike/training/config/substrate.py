"""The ``substrate`` section: what yields the spike times. Fields are the arguments of the class in ``SUBSTRATES``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from firstspike.training.config.base import Positive, Section


class Exact(Section):
    """The operator itself."""

    kind: Literal["exact"] = "exact"


class Integrator(Section):
    """A simulation in time steps up to a duration, both in the unit of the times."""

    kind: Literal["integrator"]
    step: Positive = 0.01
    duration: Positive = 20.0

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.step > self.duration:
            raise ValueError(f"step must not be longer than duration, got {self.step} and {self.duration}")
        return self


Substrate = Annotated[Exact | Integrator, Field(discriminator="kind")]
