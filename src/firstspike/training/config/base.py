"""What all parts of a config share. Nothing in this folder imports torch: a config is read or refused in no time."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from firstspike.training.config.yaml_file import Place

Problem = tuple[Place, str]
"""What is wrong in a config: where, and what was expected, what came, how to fix it."""

# pydantic takes inf and nan for numbers; only tau_mem may be inf
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# far beyond what anyone trains, and far below what hangs a machine
Count = Annotated[int, Field(gt=0, le=10**9)]
Size = Annotated[int, Field(gt=0, le=10**6)]
MOST_SEEDS = 1000
MOST_NUMBERS = 2**31  # input times of a part of the data, weights of a layer: 8 GiB in float32
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Section(BaseModel):
    """A part of a config: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def arguments(self) -> dict[str, Any]:
        """The fields beside ``kind``: the arguments of what ``kind`` names in its registry."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
