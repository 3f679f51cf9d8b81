"""The only place that reads times, sizes and rates the way people write them: 250ms, 1MiB, 100/minute."""

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from .mistake import mistake

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

# The digits are bounded: no number that is read can become infinite, or take long to read.
TIME = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,40})?)(us|ms|s|m|h|d)")
LONGEST = 36500 * SECONDS["d"]
SIZE = re.compile(r"([0-9]{1,12})(B|KB|MB|GB|KiB|MiB|GiB)")
RATE = re.compile(r"([0-9]{1,12})/(?:([0-9]{1,9}) ?)?(second|minute|hour|day)s?")


def read_time(value: Any) -> float:
    """Seconds in `250ms`, `3s`, `5m`, `1h` or a timedelta, up to 36500d. A bare number is refused."""
    seconds = -1.0
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str) and (found := TIME.fullmatch(value.strip())):
        seconds = float(found[1]) * SECONDS[found[2]]
    if 0 <= seconds <= LONGEST:
        return seconds
    raise mistake(f"{value!r} is not a time", "write it with a unit, as in 250ms, 3s, 5m or 1h", value)


def show_time(seconds: float) -> str:
    """The shortest way to write it that is read as exactly the same time."""
    for unit in ("d", "h", "m", "s", "ms"):
        many = seconds / SECONDS[unit]
        if many >= 1 and many.is_integer() and many * SECONDS[unit] == seconds:
            return f"{many:.0f}{unit}"
    return f"{Decimal(repr(seconds)).normalize():f}s"


def read_size(value: Any) -> int:
    """Bytes in `64KiB`, `1MiB`, `10MB`, `512B`."""
    if isinstance(value, str) and (found := SIZE.fullmatch(value.strip())):
        return int(found[1]) * BYTES[found[2]]
    raise mistake(f"{value!r} is not a size", "write it with a unit, as in 512B, 64KiB or 1MiB", value)


def show_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if size >= BYTES[unit] and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]}{unit}"
    return f"{size}B"


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds; written `100/minute` or `5/10 seconds`."""

    amount: int
    period: int

    @classmethod
    def read(cls, value: Any) -> "Rate":
        """The rate in `100/minute`; at least one, in at least one second."""
        if isinstance(value, Rate):
            return value
        if isinstance(value, str) and (found := RATE.fullmatch(value.strip())):
            rate = cls(int(found[1]), int(found[2] or 1) * PERIODS[found[3]])
            if rate.amount and rate.period:
                return rate
        raise mistake(f"{value!r} is not a rate", "write it as 100/minute, 5/second or 10/30 seconds", value)

    def __str__(self) -> str:
        for word in ("day", "hour", "minute"):
            if self.period % PERIODS[word] == 0:
                break
        else:
            word = "second"
        many = self.period // PERIODS[word]
        return f"{self.amount}/{word}" if many == 1 else f"{self.amount}/{many} {word}s"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{RATE.pattern}$", "examples": ["100/minute"]}


Time = Annotated[
    float,
    BeforeValidator(read_time),
    PlainSerializer(show_time),
    WithJsonSchema({"type": "string", "pattern": f"^{TIME.pattern}$", "examples": ["250ms", "3s"]}),
]
"""Seconds; 0 is allowed."""
Span = Annotated[Time, Field(gt=0)]
"""Seconds, more than 0."""
Size = Annotated[
    int,
    BeforeValidator(read_size),
    PlainSerializer(show_size),
    WithJsonSchema({"type": "string", "pattern": f"^{SIZE.pattern}$", "examples": ["64KiB", "1MiB"]}),
]
"""Bytes."""
