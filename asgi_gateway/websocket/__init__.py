"""WebSocket between a caller and a target: the handshake, the messages both ways, and how it ends."""

from .closing import End
from .peer import Data, Peer
from .tunnel import tunnel

__all__ = ["Data", "End", "Peer", "tunnel"]
