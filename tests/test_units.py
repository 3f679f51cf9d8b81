from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from asgi_gateway.units import LONGEST, Rate, Size, Span, Time, read_size, read_time, show_size, show_time


class Options(BaseModel):
    time: Time = 1.0
    span: Span = 1.0
    size: Size = 1
    rate: Rate = Rate(1, 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("3s", 3.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("10us", 0.00001),
        ("0s", 0.0),
        (" 3s ", 3.0),
        ("36500d", LONGEST),
    ],
)
def test_times_are_read_in_seconds(text: str, seconds: float) -> None:
    assert read_time(text) == pytest.approx(seconds, rel=1e-12)


def test_a_timedelta_is_a_time() -> None:
    assert read_time(timedelta(minutes=2)) == 120.0


@pytest.mark.parametrize(
    "value",
    [
        3,
        3.0,
        True,
        None,
        "3",
        "s",
        "-3s",
        "3 s",
        "3S",
        "1h30m",
        "٣s",
        "1e3s",
        ".5s",
        "36501d",
        "9" * 400 + "s",
    ],
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a time: write it with a unit, as in 250ms, 3s, 5m or 1h"):
        read_time(value)


def test_a_timedelta_of_the_past_is_no_time() -> None:
    with pytest.raises(ValueError, match="is not a time"):
        read_time(timedelta(seconds=-1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.25, "250ms"),
        (3.0, "3s"),
        (90.0, "90s"),
        (300.0, "5m"),
        (7200.0, "2h"),
        (86400.0, "1d"),
        (1e-7, "0.0000001s"),
    ],
)
def test_times_are_shown_as_people_write_them(seconds: float, text: str) -> None:
    assert show_time(seconds) == text


@given(st.floats(min_value=0, max_value=LONGEST, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-15))
def test_a_time_that_is_shown_is_read_as_the_same_time(seconds: float) -> None:
    assert read_time(show_time(seconds)) == seconds


@given(st.integers(0, 800_000), st.sampled_from(["us", "ms", "s", "m", "h"]))
def test_a_time_that_is_written_survives(number: int, unit: str) -> None:
    seconds = read_time(f"{number}{unit}")
    assert read_time(show_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KiB", 65536), ("1MiB", 1048576), ("2GiB", 2 << 30), ("10MB", 10_000_000), ("0B", 0)],
)
def test_sizes_are_read_in_bytes(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("value", [1024, None, "1024", "1 KiB", "1kb", "1.5MiB", "-1B", "9" * 5000 + "B"])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size: write it with a unit, as in 512B, 64KiB or 1MiB"):
        read_size(value)


@given(st.integers(0, 10**12 - 1))
def test_a_size_that_is_shown_is_read_as_the_same_size(size: int) -> None:
    assert read_size(show_size(size)) == size


@pytest.mark.parametrize(
    ("text", "rate", "shown"),
    [
        ("100/minute", Rate(100, 60), "100/minute"),
        ("5/second", Rate(5, 1), "5/second"),
        ("10/30 seconds", Rate(10, 30), "10/30 seconds"),
        ("10/30seconds", Rate(10, 30), "10/30 seconds"),
        ("1/2 hours", Rate(1, 7200), "1/2 hours"),
        ("1000/day", Rate(1000, 86400), "1000/day"),
        ("7/60 seconds", Rate(7, 60), "7/minute"),
    ],
)
def test_rates_are_read_and_shown(text: str, rate: Rate, shown: str) -> None:
    assert Rate.read(text) == rate
    assert str(rate) == shown


@pytest.mark.parametrize(
    "value",
    [100, None, "100", "0/minute", "5/0 seconds", "100 / minute", "5/week", "-1/second", "1.5/second"],
)
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a rate: write it as 100/minute, 5/second or 10/30 seconds"):
        Rate.read(value)


@given(st.integers(1, 10**9), st.integers(1, 10**8))
def test_a_rate_that_is_shown_is_read_as_the_same_rate(amount: int, period: int) -> None:
    assert Rate.read(str(Rate(amount, period))) == Rate(amount, period)


def test_a_model_reads_units_and_writes_them_back() -> None:
    written = {"time": "250ms", "span": "1m", "size": "64KiB", "rate": "100/minute"}
    options = Options.model_validate(written)
    assert options == Options(time="250ms", span=timedelta(minutes=1), size="64KiB", rate=Rate(100, 60))
    assert options.model_dump() == options.model_dump(mode="json") == written


def test_a_span_is_more_than_nothing() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Options(span="0s")
