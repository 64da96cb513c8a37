"""Section: what have all sections of the configuration in common?"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from elemta.config.types import Duration

Positive = Annotated[Duration, Field(gt=0)]


class Section(BaseModel):
    """A mapping of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)


Words = str | tuple[str, ...]
