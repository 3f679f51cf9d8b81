"""The only place that makes the errors which validators of declarations raise."""

from collections.abc import Iterable
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

Loc = tuple[int | str, ...]


def mistake(what: str, hint: str = "", value: object = None) -> PydanticCustomError:
    """A ValueError for pydantic. `value` is what `what` shows as `{value!r}`: a secret is taken out of it."""
    template = "{what}: {hint}" if hint else "{what}"
    return PydanticCustomError("mistake", template, {"what": what, "hint": hint, "value": value})


def mistakes(found: Iterable[tuple[Loc, PydanticCustomError]]) -> ValidationError:
    """What a validator raises that found mistakes below the value that it was given, each with its place."""
    details = [InitErrorDetails(type=fault, loc=loc, input=None) for loc, fault in found]
    return ValidationError.from_exception_data("mistakes", details, hide_input=True)


def below(name: str, error: ValidationError) -> list[InitErrorDetails]:
    """The errors of something that is written below `name`, without the values that they are about."""
    return [
        InitErrorDetails(type=kind_of(each), loc=(name, *each["loc"]), input=None, ctx=each.get("ctx", {}))
        for each in error.errors(include_url=False)
    ]


def kind_of(error: ErrorDetails) -> str | PydanticCustomError:
    if error["type"] in get_args(ErrorType):
        return error["type"]
    # The text is complete; the context goes along for those who read it.
    return PydanticCustomError(error["type"], error["msg"], error.get("ctx"))
