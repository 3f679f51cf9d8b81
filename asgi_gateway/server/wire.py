"""The only place that knows how a supervisor and its workers speak: frames of JSON over a pair of sockets."""

import asyncio
import json
import socket
import struct
from typing import Any

LENGTH = struct.Struct(">I")

Note = dict[str, Any]
"""`{"load": content}` and `{"drain": true}` to a worker; `{"ready": true}`, `{"loaded": true}` and
`{"refused": why}` from it.
"""


class Wire:
    """One end. Both ends notice when the other one is gone, however it went."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Wire":
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, note: Note) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(note))

    async def next(self) -> Note | None:
        """What the other side says next; None when it is gone."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            note: Note = json.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return note

    def close(self) -> None:
        self._writer.close()


def frame(note: Note) -> bytes:
    data = json.dumps(note).encode()
    return LENGTH.pack(len(data)) + data


def first(end: socket.socket) -> Note | None:
    """What the other side says first, before there is an event loop; None when it is gone."""
    with end.dup().makefile("rb", buffering=0) as stream:
        head = stream.read(LENGTH.size) or b""
        if len(head) < LENGTH.size:
            return None
        (left,) = LENGTH.unpack(head)
        data = b""
        while left > len(data):
            piece = stream.read(left - len(data))
            if not piece:
                return None
            data += piece
    note: Note = json.loads(data)
    return note
