"""Where a request carries a credential, and the request without it."""

from urllib.parse import unquote_to_bytes

from asgi_gateway.asgi import Header, Headers

Pair = tuple[bytes, bytes]


def query_pairs(query: bytes) -> list[tuple[Pair, bytes]]:
    """Name and value of each parameter, decoded, beside the bytes that were sent."""
    pieces = query.split(b"&") if query else []
    return [(decoded(piece), piece) for piece in pieces]


def decoded(piece: bytes) -> Pair:
    name, _, text = piece.replace(b"+", b" ").partition(b"=")
    return unquote_to_bytes(name), unquote_to_bytes(text)


def query_without(query: bytes, names: frozenset[bytes]) -> bytes:
    """The query without these parameters; what is left stays byte for byte."""
    return b"&".join(piece for (name, _), piece in query_pairs(query) if name not in names)


def cookie_pairs(line: bytes) -> list[tuple[Pair, bytes]]:
    """Name and value of each cookie in a Cookie field, beside the bytes that were sent."""
    pieces = [piece.strip() for piece in line.split(b";")]
    pairs = [(piece.partition(b"="), piece) for piece in pieces if piece]
    return [((name.strip(), text.strip().strip(b'"')), piece) for (name, _, text), piece in pairs]


def cookies_without(headers: Headers, names: frozenset[bytes]) -> list[Header]:
    """The fields without these cookies; a Cookie field that held nothing else is gone."""
    kept = []
    for key, line in headers:
        if key == b"cookie":
            line = b"; ".join(piece for (name, _), piece in cookie_pairs(line) if name not in names)
            if not line:
                continue
        kept.append((key, line))
    return kept
