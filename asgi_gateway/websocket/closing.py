"""The only place that knows the close codes (RFC 6455 7.4), and how messages end."""

from dataclasses import dataclass

from ..errors import Reason

CLOSE_SECONDS = 5.0
"""How long a peer may take to answer a close, or to read why it was failed."""
REASON_BYTES = 123
"""The longest reason that fits into a close frame (RFC 6455 5.5)."""


@dataclass(frozen=True, slots=True)
class End:
    """How the messages of a peer ended."""

    code: int
    """Of the close frame that came, or that we failed the peer with; 1005: it had none; 1006: none came."""
    reason: str = ""
    failure: Reason | None = None
    """What the peer did wrong."""


def sendable(code: int) -> int:
    """A code that may stand in a close frame (RFC 6455 7.4). Three only report how a connection ended: 1005,
    there was no code; 1006, there was no close frame; 1015, TLS failed.
    """
    if code == 1005:
        return 1000
    if code == 1015:
        return 1014
    return code if 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999 else 1011


def shortened(reason: str) -> str:
    """As much of a reason as fits into a close frame."""
    encoded = reason.encode("utf-8", "replace")
    return reason if len(encoded) <= REASON_BYTES else encoded[:REASON_BYTES].decode("utf-8", "ignore")
