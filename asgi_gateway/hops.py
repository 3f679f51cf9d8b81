"""The only place that knows which header fields belong to one connection only, and drops them (RFC 9110
7.6.1).
"""

from .asgi import Header

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

NO_TRAILER = HOP_BY_HOP | {
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"date",
    b"expires",
    b"host",
    b"location",
    b"retry-after",
    b"set-cookie",
    b"vary",
    b"www-authenticate",
}
"""What says how a message is framed, routed, cached or allowed counts in a head only (RFC 9110 6.5.1)."""

NOT_BY_NAME = frozenset({b"host", b"content-length", b"close", b"keep-alive", b""})
"""What a Connection field cannot take away: its own options, and what frames and addresses the message."""


NOTHING: frozenset[bytes] = frozenset()


def named(connections: list[bytes]) -> frozenset[bytes]:
    """The fields that Connection fields name."""
    if len(connections) == 1 and connections[0] in NOT_BY_NAME:
        # Most of them say `keep-alive`, and nothing else.
        return NOTHING
    tokens = b",".join(connections).lower().split(b",")
    return frozenset(token.strip() for token in tokens) - NOT_BY_NAME


def end_to_end(headers: list[Header]) -> list[Header]:
    """The header fields of a message without those of the connection that it came over."""
    kept = [pair for pair in headers if pair[0] not in HOP_BY_HOP]
    if len(kept) != len(headers):
        return unnamed(kept, [value for name, value in headers if name == b"connection"])
    return kept


def unnamed(headers: list[Header], connections: list[bytes]) -> list[Header]:
    """The fields that no Connection field names."""
    dropped = named(connections)
    return [pair for pair in headers if pair[0] not in dropped] if dropped else headers
