"""The only place that turns a path into its one canonical view, and that puts a value into a path."""

import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from .config import Paths
from .errors import GatewayError

Spelling = Literal[
    "not_absolute",
    "bad_encoding",
    "overlong_encoding",
    "control_character",
    "double_slash",
    "dot_segment",
    "encoded_slash",
    "backslash",
    "semicolon",
]

DETAILS: dict[Spelling, str] = {
    "not_absolute": "a path begins with a slash",
    "bad_encoding": "a percent sign is not followed by two hexadecimal digits; write a percent sign as %25",
    "overlong_encoding": "the path holds bytes that some decoders take for an ASCII character",
    "control_character": "the path holds a control character",
    "double_slash": "the path holds two slashes in a row; `paths.double_slash` can merge or keep them",
    "dot_segment": "the path holds a dot segment; `paths.dot_segments` can resolve plain ones",
    "encoded_slash": "the path holds an encoded slash; `paths.encoded_slash` can keep or decode it",
    "backslash": "the path holds a backslash; `paths.backslash` can keep it as %5C",
    "semicolon": "the path holds a semicolon; `paths.semicolon` can keep it",
}

PCHAR = "!$&'()*+,;=:@"
"""What may stand in a segment besides letters, digits and `-._~` (RFC 3986, 3.3)."""

BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
ENCODED_SLASH = re.compile(rb"%2[Ff]")
CONTROL = re.compile(rb"[\x00-\x1F\x7F]")
# Careless decoders read these as ASCII characters. C0 and C1 never occur in UTF-8.
OVERLONG = re.compile(
    rb"[\xC0\xC1]|\xE0[\x80\x81][\x80-\xBF]|\xF0\x80[\x80\x81][\x80-\xBF]"
    rb"|\xF8\x80\x80[\x80\x81][\x80-\xBF]|\xFC\x80\x80\x80[\x80\x81][\x80-\xBF]"
)
# `..;x`, `a/..`, `..\a` inside one segment: dot segments for servers that cut or decode before they resolve.
HIDDEN_DOTS = re.compile(rb"(?:\A|[/\\])\.\.?(?=[/\\;]|\Z)")
DOTS = (b".", b"..")


class Ambiguous(GatewayError):
    """A path that servers read in different ways. `detail` names the key of the policy, if there is one."""

    def __init__(self, reason: Spelling, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail or DETAILS[reason]

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def canonical(policy: Paths) -> Callable[[bytes], str]:
    """A function from a raw path without its query to its one spelling, still percent-encoded; or Ambiguous.

    Each segment is decoded once and encoded again, so that only what cannot stand in a segment is encoded, in
    upper case. What the function returns, it returns again for itself.
    """
    is_plain = plain(policy)

    def view(raw: bytes) -> str:
        return raw.decode("ascii") if is_plain(raw) else respell(raw, policy)

    return view


def plain(policy: Paths) -> Callable[[bytes], object]:
    """A function that knows most paths which are their own canonical spelling, at a look."""
    first = rb"A-Za-z0-9\-_~!$&'()*+,=:@" + (b";" if policy.semicolon == "keep" else b"")
    return re.compile(rb"(?:/[%b][.%b]*+)++/?+|/" % (first, first)).fullmatch


def respell(raw: bytes, policy: Paths) -> str:
    if raw[:1] != b"/":
        raise Ambiguous("not_absolute")
    if BROKEN.search(raw):
        raise Ambiguous("bad_encoding")
    if policy.encoded_slash == "decode":
        raw = ENCODED_SLASH.sub(b"/", raw)
    segments = [unquote_to_bytes(segment) for segment in raw[1:].split(b"/")]
    for segment in segments:
        check(segment, policy)
    return "/" + "/".join(map(spell, resolve(segments, policy)))


def spell(segment: bytes) -> str:
    """The one spelling of a decoded segment."""
    return quote_from_bytes(segment, PCHAR)


def check(segment: bytes, policy: Paths) -> None:
    """Refuse what is ambiguous inside one decoded segment."""
    if CONTROL.search(segment):
        raise Ambiguous("control_character")
    if OVERLONG.search(segment):
        raise Ambiguous("overlong_encoding")
    if b"/" in segment and policy.encoded_slash == "reject":
        raise Ambiguous("encoded_slash")
    if b"\\" in segment and policy.backslash == "reject":
        raise Ambiguous("backslash")
    if b";" in segment and policy.semicolon == "reject":
        raise Ambiguous("semicolon")
    if segment not in DOTS and HIDDEN_DOTS.search(segment):
        raise Ambiguous("dot_segment")


def resolve(segments: list[bytes], policy: Paths) -> list[bytes]:
    """Take empty and dot segments away, or refuse them. An empty last one is a trailing slash, and stays."""
    found: list[bytes] = []
    last = len(segments) - 1
    for index, segment in enumerate(segments):
        if segment in DOTS:
            if policy.dot_segments == "reject":
                raise Ambiguous("dot_segment")
            if segment == b"..":
                if not found:
                    raise Ambiguous("dot_segment", "the path climbs above its root")
                found.pop()
            if index == last:
                found.append(b"")
        elif segment or index == last or policy.double_slash == "keep":
            found.append(segment)
        elif policy.double_slash == "reject":
            raise Ambiguous("double_slash")
    return found


def strip_root(path: str, root_path: str) -> str:
    """Cut the place where an app is mounted off a canonical path, at a segment's border only.

    `root_path` is decoded, as ASGI has it. A path that is not below it stays as it is.
    """
    root = quote(root_path, "/" + PCHAR, errors="replace").rstrip("/")
    if not root or not path.startswith(root):
        return path
    rest = path[len(root) :]
    if not rest:
        return "/"
    return rest if rest[0] == "/" else path


def decode(segment: str) -> str:
    """A canonical segment as text. Bytes that are not UTF-8 become U+FFFD, as in ASGI's `path`."""
    return unquote(segment, errors="replace")


def encode(text: str) -> str:
    """Text as one segment of a path: everything but unreserved characters is encoded.

    Ambiguous for text that is not one segment to every server: empty, dots, control characters.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise Ambiguous("bad_encoding", "the text has no encoding in UTF-8") from None
    if not raw:
        raise Ambiguous("double_slash", "an empty value would leave two slashes in a row")
    if CONTROL.search(raw):
        raise Ambiguous("control_character")
    if HIDDEN_DOTS.search(raw):
        raise Ambiguous("dot_segment", "the value would be a dot segment")
    return quote_from_bytes(raw, "")


class Template:
    """A path with variables, `/v2/{id}/x/{*}`, to be filled with values as they stand in a canonical path."""

    __slots__ = ("_end", "_pieces", "text", "variables")

    def __init__(self, text: str) -> None:
        """ValueError, with what to write instead, for text that is not such a path."""
        parts = re.split(r"\{([^{}/]*)\}", text)
        self.text = text
        self.variables = tuple(parts[1::2])
        """Their names in the order of the text; `*` is the rest that a wildcard took."""
        check_template(text, "".join(parts[::2]), self.variables)
        *pieces, self._end = map(literal, parts[::2])
        self._pieces = tuple(zip(pieces, self.variables, strict=True))

    def fill(self, values: Mapping[str, str]) -> str:
        """The path with values that are still encoded, so that nothing is decoded twice; KeyError without."""
        return "".join([piece + values[name] for piece, name in self._pieces]) + self._end

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def check_template(text: str, around: str, variables: tuple[str, ...]) -> None:
    """Refuse what a template cannot be; `around` is its text without the variables."""
    for name in variables:
        if name != "*" and not name.isidentifier():
            raise ValueError(f"{text!r}: {{{name}}} is not a variable: write a name, as in {{id}}, or {{*}}")
    if sign := next((sign for sign in "{}*?#" if sign in around), ""):
        raise ValueError(
            f"{text!r}: write {{name}} or {{*}} for a variable, %{ord(sign):02X} for {sign!r} itself"
        )
    if "{*}" in text.removesuffix("/{*}"):
        raise ValueError(f"{text!r}: {{*}} stands only at the end, after a slash")
    if "//" in text:
        raise ValueError(f"{text!r} is not a plain path: double slash")
    if BROKEN.search(text.encode()):
        raise ValueError(f"{text!r} is not a plain path: bad encoding")
    try:
        # Without the variables, so that `..{id}` is found too: it could become a dot segment.
        canonical(Paths(double_slash="keep", encoded_slash="keep", semicolon="keep"))(around.encode())
    except Ambiguous as error:
        raise ValueError(f"{text!r} is not a plain path: {error.reason.replace('_', ' ')}") from None


def literal(text: str) -> str:
    """Part of a template in canonical spelling; its slashes stay slashes, and `%2F` stays encoded."""
    return "/".join(spell(unquote_to_bytes(part)) for part in text.split("/"))
