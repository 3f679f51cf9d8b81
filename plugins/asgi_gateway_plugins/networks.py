"""Which addresses belong to some networks, however many these are: merged ranges, and one bisection."""

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from asgi_gateway.config.model import Network, read_network
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.files import read_whole

__all__ = ["Network", "Networks", "networks_in", "pack", "read_file", "spelt"]

MAPPED = bytes(10) + b"\xff\xff"
"""What stands before an IPv4 address that is written as IPv6: ::ffff:192.0.2.1."""
LARGEST = 16 * 1024 * 1024
"""Bytes of a file of networks."""


def pack(address: str) -> bytes:
    """The 4 or 16 bytes of an address, without its zone; IPv4 in IPv6 is IPv4. Empty if it is none."""
    try:
        if ":" not in address:
            return inet_pton(AF_INET, address)
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(MAPPED) else packed


def spelt(packed: bytes) -> str:
    """The one way to write an address."""
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


class Ranges:
    """Numbers in ranges that neither overlap nor touch."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(ranges):
            if self._lasts and first <= self._lasts[-1] + 1:
                self._lasts[-1] = max(last, self._lasts[-1])
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._lasts[index]


class Networks:
    """Networks and single addresses; `unix` stands for a peer without an address."""

    __slots__ = ("_ranges", "unix")

    def __init__(self, networks: Iterable[str]) -> None:
        texts = set(networks)
        self.unix = "unix" in texts
        ranges: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for text in texts - {"unix"}:
            size, first, last = read_range(text)
            ranges[size].append((first, last))
        self._ranges = {size: Ranges(found) for size, found in ranges.items()}

    def __contains__(self, address: str) -> bool:
        return self.hold(pack(address)) if address else self.unix

    def hold(self, packed: bytes) -> bool:
        """The same for what `pack` made of an address."""
        return bool(packed) and int.from_bytes(packed) in self._ranges[len(packed)]


def read_range(text: str) -> tuple[int, int, int]:
    """The length of a network's addresses in bytes, and the first and the last of them.

    A seventh of what `ipaddress` takes: a hundred thousand networks shall not hold up a reload.
    """
    address, _, prefix = text.partition("/")
    if prefix and not prefix.isdecimal():
        # A mask, as in 10.0.0.0/255.0.0.0.
        return read_range(ip_network(text, strict=False).with_prefixlen)
    packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address.partition("%")[0])
    bits = len(packed) * 8 - int(prefix) if prefix else 0
    if bits <= 32 and packed.startswith(MAPPED):
        packed = packed[12:]
    first = int.from_bytes(packed) >> bits << bits
    return len(packed), first, first + (1 << bits) - 1


def read_file(name: str) -> bytes:
    """What a file of networks says; ConfigError if it cannot be had."""
    try:
        content = read_whole(name, LARGEST + 1)
    except OSError as error:
        raise ConfigError(Problem(f"{name} cannot be read: {error.strerror}")) from None
    if len(content) > LARGEST:
        raise ConfigError(Problem(f"{name} is larger than {LARGEST} bytes"))
    return content


def networks_in(name: str, content: bytes) -> list[str]:
    """The networks in a file: one in a line, `#` begins a comment. ConfigError with all that is wrong."""
    found, problems = [], []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            found.append(read_network(text))
        except ValueError:
            hint = "as in 10.0.0.0/8 or ::1"
            problems.append(Problem(f"{text!r} is not a network", "", hint, name, number))
    if problems:
        raise ConfigError(problems)
    return found
