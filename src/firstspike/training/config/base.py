"""What all parts of a config share. Nothing in this folder imports torch: a config is read or refused in no time."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# pydantic takes inf and nan for numbers; only tau_mem may be inf
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a config: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def arguments(self) -> dict[str, Any]:
        """The fields beside ``kind``: the arguments of what ``kind`` names in its registry."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
