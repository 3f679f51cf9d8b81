"""Kinds of failure of a call to an upstream, as components name them; and which requests may be repeated."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")  # RFC 9110 9.2.2

Kind = Literal["connect", "reset", "timeout", "busy", "open", "error"]

REASONS: Mapping[Kind, frozenset[str]] = {
    "connect": frozenset({"connect_failed", "connect_timeout", "tls_failed", "tls_timeout"}),
    "reset": frozenset({"reset", "protocol_error"}),
    "timeout": frozenset({"write_timeout", "head_timeout", "total_timeout"}),
    "busy": frozenset(
        {"pool_full", "pool_timeout", "no_target", "exhausted", "bulkhead_full", "bulkhead_timeout"}
    ),
    "open": frozenset({"circuit_open"}),
    "error": frozenset({"raised", "incomplete"}),
}

BLAMELESS = frozenset({"pool_full", "pool_timeout", "no_target", "exhausted"})
"""Failures of the gateway's own bounds, which say nothing about the upstream."""

Status = Annotated[int, Field(ge=400, le=599)]
"""A status that may mean failure."""


def reasons(kinds: Iterable[Kind]) -> frozenset[str]:
    """The reasons of failures of these kinds."""
    return frozenset[str]().union(*(REASONS[kind] for kind in kinds))
