"""An accepted path means one thing to whoever reads it, with any policy (P16, P17)."""

import itertools
import re
from collections.abc import Callable, Iterator

from hypothesis import assume, example, given
from hypothesis import strategies as st

from asgi_gateway.config import Paths
from asgi_gateway.paths import Ambiguous, Template, canonical, decode, encode, strip_root
from asgi_gateway.patterns import Pattern
from tests.properties.profile import examples

ALL_POLICIES = [
    Paths.model_validate(dict(zip(Paths.model_fields, choice, strict=True)))
    for choice in itertools.product(
        ["reject", "resolve"],
        ["reject", "merge", "keep"],
        ["reject", "keep", "decode"],
        ["reject", "keep"],
        ["reject", "keep"],
    )
]
policies = st.sampled_from(ALL_POLICIES)

# fmt: off
PARTS = [
    b"/", b"/", b"/", b"/", b"a", b"b", b"admin", b".", b"..", b"...", b"%2e", b"%2E%2e", b".%2e", b"%2f",
    b"%2F", b"\\", b"%5c", b"%5C", b";", b"%3b", b";x=1", b"%", b"%25", b"%252e", b"%25%32%65", b"%252F",
    b"%zz", b"%4", b"%61", b"%c3%A9", b"\xc3\xa9", b"\xff", b"%ff", b"%c0%ae", b"\xc0\xaf", b"%e0%80%af",
    b"\xc1", b"%00", b"\0", b"\r\n", b"%0d", b"%0A", b"\x7f", b"#", b"%23", b"?", b"%3F", b" ", b"%20", b"|",
    b"{", b"~", b"%7e", b":", b"@", b"&=+,", b"!$'()*",
]
# fmt: on
raw_paths = st.one_of(
    st.lists(st.sampled_from(PARTS), max_size=9).map(lambda parts: b"/" + b"".join(parts)),
    st.binary(max_size=12).map(lambda raw: b"/" + raw),
    st.lists(st.sampled_from(PARTS), max_size=3).map(b"".join),
)


def accepted(raw: bytes, policy: Paths) -> str | None:
    try:
        return canonical(policy)(raw)
    except Ambiguous:
        return None


# The reference: a byte at a time, without a regular expression, after the words of the docs.

HEX = b"0123456789abcdefABCDEF"
PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@"


def decoded_once(raw: bytes) -> bytes | None:
    """None for a percent sign without two hexadecimal digits."""
    found, index = bytearray(), 0
    while index < len(raw):
        if raw[index] != ord("%"):
            found.append(raw[index])
            index += 1
            continue
        digits = raw[index + 1 : index + 3]
        if len(digits) < 2 or digits[0] not in HEX or digits[1] not in HEX:
            return None
        found.append(int(digits, 16))
        index += 3
    return bytes(found)


def spelt(segment: bytes) -> str:
    return "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in segment)


def is_overlong(segment: bytes) -> bool:
    """Whether a decoder that does not insist on the shortest form sees an ASCII character (RFC 3629, 10)."""
    for index, byte in enumerate(segment):
        if byte in (0xC0, 0xC1):
            return True
        for first, length in ((0xE0, 3), (0xF0, 4), (0xF8, 5), (0xFC, 6)):
            rest = segment[index + 1 : index + length]
            if byte == first and len(rest) == length - 1 and all(0x80 <= other < 0xC0 for other in rest):
                value = 0
                for other in rest:
                    value = value << 6 | other & 0x3F
                if value < 0x80:
                    return True
    return False


def hides_dots(segment: bytes) -> bool:
    """Whether a server that takes `\\` for a slash, decodes a slash, or cuts parameters off sees dots."""
    parts = segment.replace(b"\\", b"/").split(b"/")
    return any(part.split(b";")[0] in (b".", b"..") for part in parts) and segment not in (b".", b"..")


def remove_dots(segments: list[bytes]) -> list[bytes] | None:
    """RFC 3986 5.2.4, but None where it would climb above the root."""
    found: list[bytes] = []
    for segment in segments[:-1]:
        if segment == b"..":
            if not found:
                return None
            found.pop()
        elif segment != b".":
            found.append(segment)
    if segments[-1] == b"..":
        if not found:
            return None
        return [*found[:-1], b""]
    return [*found, b"" if segments[-1] == b"." else segments[-1]]


def reference(raw: bytes, policy: Paths) -> str | None:
    """The canonical path, or None where the docs say 400."""
    if not raw.startswith(b"/"):
        return None
    if policy.encoded_slash == "decode":
        raw = raw.replace(b"%2F", b"/").replace(b"%2f", b"/")
    segments = []
    for part in raw[1:].split(b"/"):
        segment = decoded_once(part)
        if segment is None:
            return None
        segments.append(segment)
    for segment in segments:
        if any(byte < 0x20 or byte == 0x7F for byte in segment):
            return None
        if is_overlong(segment) or hides_dots(segment):
            return None
        if b"/" in segment and policy.encoded_slash == "reject":
            return None
        if b"\\" in segment and policy.backslash == "reject":
            return None
        if b";" in segment and policy.semicolon == "reject":
            return None
        if segment in (b".", b"..") and policy.dot_segments == "reject":
            return None
    if b"" in segments[:-1]:
        if policy.double_slash == "reject":
            return None
        if policy.double_slash == "merge":
            segments = [*(segment for segment in segments[:-1] if segment), segments[-1]]
    resolved = remove_dots(segments)
    return None if resolved is None else "/" + "/".join(map(spelt, resolved))


@examples(1000)
@given(raw_paths, policies)
@example(b"/a//../b", Paths(dot_segments="resolve", double_slash="keep"))
@example(b"/.//", Paths(dot_segments="resolve", double_slash="reject"))
@example(b"/a/../", Paths(dot_segments="resolve"))
def test_a_path_is_read_as_a_plain_reader_of_the_docs_does(raw: bytes, policy: Paths) -> None:
    assert accepted(raw, policy) == reference(raw, policy)


@examples(120)
@given(raw_paths, policies)
def test_a_canonical_path_stays_as_it_is_under_its_policy(raw: bytes, policy: Paths) -> None:
    path = accepted(raw, policy)
    assume(path is not None)
    assert path is not None
    assert canonical(policy)(path.encode("ascii")) == path


# Who stands behind a gateway: each of these takes another way to the segments that it serves.

Reader = Callable[[bytes], list[bytes]]


def reader(*, times: int, cuts: bool, backslash: bool, merges: bool, late: bool) -> Reader:
    """`late`: it resolves dots after decoding, else before and after."""

    def split(path: bytes) -> list[bytes]:
        path = path.replace(b"\\", b"/") if backslash else path
        return path[1:].split(b"/")

    def read(raw: bytes) -> list[bytes]:
        if not late:
            raw = b"/" + b"/".join(remove_dots(split(raw)) or [])
        for _ in range(times):
            raw = decoded_once(raw) or raw
        segments = split(raw)
        if cuts:
            segments = [segment.split(b";")[0] for segment in segments]
        if merges:
            segments = [*(segment for segment in segments[:-1] if segment), segments[-1]]
        return remove_dots(segments) or []

    return read


READERS = [
    reader(**dict(zip(("times", "cuts", "backslash", "merges", "late"), choice, strict=True)))
    for choice in itertools.product([0, 1], *[[False, True]] * 4)
]


@examples(150)
@given(raw_paths)
@example(b"/%252e%252e/admin")
@example(b"/a/.%2e/admin")
def test_no_reader_sees_another_path_than_the_gateway_did(raw: bytes) -> None:
    """With the default policy, whether it reads what the caller sent or what the gateway sends."""
    path = accepted(raw, Paths())
    assume(path is not None)
    assert path is not None
    seen = [decoded_once(segment) for segment in path.encode()[1:].split(b"/")]
    for read, once in zip(READERS, itertools.product([0, 1], *[[0, 1]] * 4), strict=True):
        for spelling in (raw, path.encode()):
            found = read(spelling)
            assert (found if once[0] else [decoded_once(segment) for segment in found]) == seen


@examples(300)
@given(raw_paths, policies)
def test_one_who_decodes_twice_is_told_nothing_new(raw: bytes, policy: Paths) -> None:
    """What the gateway sends is, decoded twice, what the caller sent decoded twice."""
    if policy.dot_segments == "resolve" or policy.double_slash == "merge":
        return
    path = accepted(raw, policy)
    assume(path is not None)
    assert path is not None
    assert twice(path.encode()) == twice(raw)


def twice(raw: bytes) -> bytes:
    once = decoded_once(raw)
    assert once is not None
    return decoded_once(once) or once


@examples(300)
@given(raw_paths, policies)
def test_each_policy_keeps_its_promise(raw: bytes, policy: Paths) -> None:
    path = accepted(raw, policy)
    assume(path is not None)
    assert path is not None
    segments = [decoded_once(segment) or b"" for segment in path.encode("ascii")[1:].split(b"/")]
    text = b"/".join(segments)
    assert not any(byte < 0x20 or byte == 0x7F for byte in text)
    assert b"." not in segments
    assert b".." not in segments
    assert not any(map(hides_dots, segments))
    assert policy.double_slash == "keep" or b"" not in segments[:-1]
    assert policy.encoded_slash == "keep" or not any(b"/" in segment for segment in segments)
    assert policy.backslash == "keep" or b"\\" not in text
    assert policy.semicolon == "keep" or b";" not in text
    if policy == Paths():
        assert not re.search(rb"[\x00-\x20\\;?#\x7f-\xff]", path.encode("ascii"))
        # Nothing was taken away either.
        assert text == b"/".join(decoded_once(part) or b"" for part in raw[1:].split(b"/"))


# What is put together out of canonical parts is canonical.

inside = st.sampled_from([part for part in PARTS if b"/" not in part])
segments = st.lists(inside, min_size=1, max_size=3).map(b"".join)
LENIENT = Paths(double_slash="keep", encoded_slash="keep", semicolon="keep", backslash="keep")


@st.composite
def canonical_segments(draw: st.DrawFn) -> str:
    path = accepted(b"/" + draw(segments), LENIENT)
    assume(path is not None and path != "/")
    assert path is not None
    return path[1:]


named = st.text("ab/é %;:?#\\.~{", min_size=1, max_size=4).filter(lambda text: text.strip("/"))
roots = st.lists(named, max_size=3).map(lambda parts: "".join("/" + part.strip("/") for part in parts))


@examples(120)
@given(roots, st.sampled_from(["", "/"]), st.lists(canonical_segments(), max_size=3), st.booleans())
def test_a_root_is_cut_off_and_nothing_else(root: str, slash: str, rest: list[str], trailing: bool) -> None:
    """`root` is where an app is mounted, decoded, as ASGI has it."""
    below = "".join("/" + segment for segment in rest) + ("/" if trailing else "")
    mounted = "/".join(spelt(part.encode()) for part in root.split("/"))
    assert strip_root(mounted + below, root + slash) == (below or "/" if mounted else mounted + below or "")
    if mounted:
        # A neighbour, and a root that is only part of a segment, are left alone.
        assert strip_root(mounted + "x" + below, root) == mounted + "x" + below
        assert strip_root("/x" + mounted + below, root) == "/x" + mounted + below


def texts_of(variables: list[str]) -> Iterator[str]:
    for index, kind in enumerate(variables):
        yield {"variable": f"{{v{index}}}", "literal": f"l{index}", "encoded": f"%41%2f{index}é"}[kind]


@examples(150)
@given(
    st.lists(st.sampled_from(["variable", "literal", "encoded"]), min_size=1, max_size=4),
    st.data(),
    st.none() | st.lists(canonical_segments(), max_size=3),
)
def test_variables_out_of_a_path_put_back_give_the_path(
    kinds: list[str], data: st.DataObject, rest: list[str] | None
) -> None:
    text = "".join("/" + part for part in texts_of(kinds))
    pattern = Pattern(text + ("/*" if rest is not None else ""), LENIENT)
    template = Template(text + ("/{*}" if rest is not None else ""))
    parts = [data.draw(canonical_segments()) if literal is None else literal for literal in pattern.segments]
    path = "/" + "/".join([*parts, *(rest or ())])
    params = pattern.params(path.split("/"))
    assert set(params) == set(pattern.variables) == set(template.variables)
    assert template.fill(params) == path + ("/" if rest == [] else "")
    assert canonical(LENIENT)(path.encode("ascii")) == path


@examples(300)
@given(st.text(max_size=8) | st.lists(st.sampled_from([*"./\\;?#% {}é", "a", "%2e"])).map("".join))
def test_text_put_into_a_path_comes_out_again_as_it_was(text: str) -> None:
    try:
        segment = encode(text)
    except Ambiguous:
        assert not text or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]|(^|[/\\])\.\.?($|[/\\;])", text)
        return
    path = f"/x/{segment}/y"
    view = canonical(LENIENT)(path.encode("ascii"))
    assert decode(view.split("/")[2]) == decode(segment) == text
    assert view.count("/") == 3


@examples(120)
@given(raw_paths, policies)
def test_a_route_for_an_accepted_path_is_spelt_as_the_path_is(raw: bytes, policy: Paths) -> None:
    path = accepted(raw, policy)
    assume(path is not None and not set(path) & set("*"))
    assert path is not None
    assert Pattern(path, policy).path == path
