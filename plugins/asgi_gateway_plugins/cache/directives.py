"""The fields that caches read, as values: Cache-Control, dates, ages and entity tags (RFC 9110, RFC 9111)."""

import re
from calendar import timegm
from collections.abc import Iterable, Mapping
from datetime import datetime

from asgi_gateway.asgi import Header

Directives = Mapping[bytes, bytes | None]
"""Names in lower case; the first of each counts (RFC 9111 4.2.1)."""

NONE: Directives = {}
MOST_SECONDS = 2**31 - 1
"""What does not fit is taken for this (RFC 9111 1.2.2)."""
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = rb'"(?:[^"\\]|\\.)*"'
OPEN = rb'"(?:[^"\\]|\\.)*\\?\Z'
"""A quotation without an end. It takes the rest, so that no text is looked at twice."""
MEMBER = re.compile(rb'(?:[^,"]|%b|%b)+' % (QUOTED, OPEN), re.DOTALL)
DIRECTIVE = re.compile(rb"(%b)(?:=(?:(%b)|(.*)))?" % (TOKEN, QUOTED), re.DOTALL)
BALANCED = re.compile(rb'(?:[^"]|%b)*' % QUOTED, re.DOTALL)
ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rb"[a-z]{3}, (?P<day>[0-9]{2}) (?P<month>[a-z]{3}) (?P<year>[0-9]{4}) %b GMT" % TIME,
        rb"[a-z]{6,9}, (?P<day>[0-9]{2})-(?P<month>[a-z]{3})-(?P<year>[0-9]{2}) %b GMT" % TIME,
        rb"[a-z]{3} (?P<month>[a-z]{3}) (?P<day>[ 0-9][0-9]) %b (?P<year>[0-9]{4})" % TIME,
    )
)
"""The three forms of RFC 9110 5.6.7."""
TAG = re.compile(rb'(?:W/)?("[^"]*")')


def directives(headers: Iterable[Header], name: bytes = b"cache-control") -> Directives:
    """The directives of a field, all lines of it together."""
    found: dict[bytes, bytes | None] = {}
    for field, value in headers:
        if field == name:
            parse_into(found, value)
    return found or NONE


def parse_into(found: dict[bytes, bytes | None], value: bytes) -> None:
    for member in MEMBER.findall(value):
        directive = DIRECTIVE.fullmatch(member.strip(b" \t"))
        if b'"' in member and not BALANCED.fullmatch(member):
            # What stands behind an open quotation cannot be read: it may be anything.
            found[b"no-store"] = None
        if directive is None:
            continue
        name, quoted, plain = directive.groups()
        argument = plain if quoted is None else ESCAPED.sub(rb"\1", quoted[1:-1])
        found.setdefault(name.lower(), argument)


def seconds(argument: bytes | None) -> int | None:
    """Delta-seconds (RFC 9111 1.2.2), or None for what is no whole number."""
    if argument is None or not argument.isdigit():
        return None
    return min(int(argument[:20]), MOST_SECONDS) if len(argument) < 20 else MOST_SECONDS


def date(value: bytes) -> float | None:
    """Seconds since 1970 in an HTTP date, or None for what is none."""
    for form in DATES:
        if found := form.fullmatch(value.strip(b" \t")):
            break
    else:
        return None
    year, month = int(found["year"]), MONTHS.get(found["month"].lower())
    if len(found["year"]) == 2:
        # The last year with these digits that is not more than 50 years ahead (RFC 9110 5.6.7).
        this = datetime.now().year
        year += this - this % 100
        if year > this + 50:
            year -= 100
    if month is None:
        return None
    try:
        moment = datetime(
            year,
            month,
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            min(int(found["second"]), 59),
        )
    except ValueError:
        return None
    return float(timegm(moment.timetuple()))


def same_tag(one: bytes, other: bytes) -> bool:
    """Whether two entity tags agree, weak or not (RFC 9110 8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")


def names_tag(listed: bytes, tag: bytes) -> bool:
    """Whether If-None-Match names an entity tag."""
    if listed.strip() == b"*":
        return True
    return tag == listed.strip() or any(same_tag(each, tag) for each in TAG.findall(listed)) if tag else False


def names(headers: Iterable[Header], field: bytes) -> list[bytes]:
    """The members of a list of names, in lower case."""
    lines = [value for name, value in headers if name == field]
    return [name.strip() for line in lines for name in line.lower().split(b",") if name.strip()]
