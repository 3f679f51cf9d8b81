"""The only place that refuses what pydantic would take for a switch or a number: `yes`, `workers: true`."""

from typing import Any, get_args

from pydantic import ValidationInfo, field_validator

from .declaration import Declaration
from .mistake import mistake


class Strict(Declaration):
    """A switch is true or false, and a number is no switch."""

    @field_validator("*", mode="before")
    @classmethod
    def plain_words(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str | bool) and info.field_name is not None:
            kind = cls.model_fields[info.field_name].annotation
            kinds = get_args(kind) or (kind,)
            # What comes from an environment variable is a text.
            if (
                isinstance(value, str)
                and bool in kinds
                and str not in kinds
                and value not in ("true", "false")
            ):
                raise mistake("must be true or false", f"not {value!r}", value)
            if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
                raise mistake("must be a number", f"not {str(value).lower()}", value)
        return value
