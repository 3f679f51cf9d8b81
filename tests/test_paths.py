import itertools
import re
import string
from urllib.parse import unquote_to_bytes, urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_gateway.config import Paths
from asgi_gateway.paths import Ambiguous, Template, canonical, decode, encode, strip_root

KEEP = Paths(double_slash="keep", encoded_slash="keep", backslash="keep", semicolon="keep")
EASY = Paths(
    dot_segments="resolve", double_slash="merge", encoded_slash="decode", backslash="keep", semicolon="keep"
)
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

plain = ["a", "admin", "b42", "~x", ".well-known", "...", "a.b", "@:+="]
# fmt: off
tricky = [
    "/", "/", "/", ".", "..", "%2e", "%2E%2e", ".%2e", "%2f", "%2F", "\\", "%5c", ";", "%3b", ";x=1", "%",
    "%25", "%252e", "%252F", "%zz", "%4", "%61", "%41", "%7e", "%3a", "%C3%A9", "é", "%ff", "\xff", "%c0%af",
    "%e0%80%af", "%00", "%0d%0a", "%1f", "%7f", "\r\n", "\x00", "#", "%23", "%3F", "?", "%20", "|", "{",
]
# fmt: on
raw_paths = st.lists(st.sampled_from(plain + tricky), max_size=9).map(
    lambda parts: b"/" + "".join(parts).encode("latin-1")
)


def accepted(raw: bytes, policy: Paths) -> str | None:
    try:
        return canonical(policy)(raw)
    except Ambiguous:
        return None


def refusal(raw: bytes, policy: Paths | None = None) -> Ambiguous:
    with pytest.raises(Ambiguous) as caught:
        canonical(policy or Paths())(raw)
    return caught.value


def decoded(path: bytes) -> list[bytes]:
    return [unquote_to_bytes(segment) for segment in path.split(b"/")]


def read_carelessly(path: bytes) -> list[bytes]:
    """What a server sees that decodes first, cuts parameters off, and takes every slash for a slash."""
    parts = [re.sub(rb";.*", b"", part) for part in re.split(rb"[/\\]+", unquote_to_bytes(path))]
    found: list[bytes] = []
    for part in parts[1:]:
        if part == b"..":
            del found[-1:]
        elif part != b".":
            found.append(part)
    return [b"", *found]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/orders/42", "/orders/42"),
        (b"/orders/", "/orders/"),
        (b"/%61dmin", "/admin"),
        (b"/a%3Ab", "/a:b"),
        (b"/%7euser", "/~user"),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/.../x", "/.../x"),
        (b"/..a/b..", "/..a/b.."),
        (b"/caf%c3%a9", "/caf%C3%A9"),
        ("/café".encode(), "/caf%C3%A9"),
        (b"/%ff", "/%FF"),
        (b"/\xff", "/%FF"),
        (b"/100%25", "/100%25"),
        (b"/%252e%252e", "/%252e%252e"),
        (b"/%252Fa", "/%252Fa"),
        (b"/a b", "/a%20b"),
        (b"/a%20b", "/a%20b"),
        (b"/a%3Fb", "/a%3Fb"),
        (b"/a#b", "/a%23b"),
        (b"/%22<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
        (b"/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        (b"/%21%24%26%27%28%29%2A%2b%2c%3d%3A%40", "/!$&'()*+,=:@"),
    ],
)
def test_every_spelling_has_one_form(raw: bytes, path: str) -> None:
    assert canonical(Paths())(raw) == path


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not_absolute"),
        (b"*", "not_absolute"),
        (b"orders", "not_absolute"),
        (b"%2Forders", "not_absolute"),
        (b"http://h/", "not_absolute"),
        (b"/%", "bad_encoding"),
        (b"/%4", "bad_encoding"),
        (b"/%zz", "bad_encoding"),
        (b"/%u002f", "bad_encoding"),
        (b"/a%\xff\xff", "bad_encoding"),
        (b"/%c0%af", "overlong_encoding"),
        (b"/%C1%9c", "overlong_encoding"),
        (b"/%c0%2e", "overlong_encoding"),
        (b"/\xc0\xae", "overlong_encoding"),
        (b"/%e0%80%af", "overlong_encoding"),
        (b"/%f0%80%80%af", "overlong_encoding"),
        (b"/%f8%80%80%80%af", "overlong_encoding"),
        (b"/%fc%80%80%80%80%af", "overlong_encoding"),
        (b"/a%00", "control_character"),
        (b"/a%0d%0aHost:%20evil", "control_character"),
        (b"/a\r\nb", "control_character"),
        (b"/a\x00", "control_character"),
        (b"/a\tb", "control_character"),
        (b"/a%7F", "control_character"),
    ],
)
def test_some_paths_are_refused_whatever_the_policy(raw: bytes, reason: str) -> None:
    for policy in ALL_POLICIES:
        assert refusal(raw, policy).reason == reason


@pytest.mark.parametrize(
    ("raw", "reason", "key"),
    [
        (b"/a//b", "double_slash", "paths.double_slash"),
        (b"//a", "double_slash", "paths.double_slash"),
        (b"/a//", "double_slash", "paths.double_slash"),
        (b"/a/../b", "dot_segment", "paths.dot_segments"),
        (b"/a/.", "dot_segment", "paths.dot_segments"),
        (b"/%2e%2E/b", "dot_segment", "paths.dot_segments"),
        (b"/a%2fb", "encoded_slash", "paths.encoded_slash"),
        (b"/a\\b", "backslash", "paths.backslash"),
        (b"/a%5cb", "backslash", "paths.backslash"),
        (b"/a;x=1", "semicolon", "paths.semicolon"),
        (b"/a%3bx", "semicolon", "paths.semicolon"),
    ],
)
def test_the_default_refuses_what_is_ambiguous_and_names_the_key(raw: bytes, reason: str, key: str) -> None:
    found = refusal(raw)
    assert found.reason == reason
    assert key in found.detail
    assert str(found) == f"{reason}: {found.detail}"


@pytest.mark.parametrize(
    ("policy", "raw", "path"),
    [
        ({"dot_segments": "resolve"}, b"/a/b/../c", "/a/c"),
        ({"dot_segments": "resolve"}, b"/a/./b", "/a/b"),
        ({"dot_segments": "resolve"}, b"/a/b/..", "/a/"),
        ({"dot_segments": "resolve"}, b"/a/.", "/a/"),
        ({"dot_segments": "resolve"}, b"/a/..", "/"),
        ({"dot_segments": "resolve"}, b"/a/%2e%2E/b", "/b"),
        ({"double_slash": "merge"}, b"//a///b//", "/a/b/"),
        ({"double_slash": "merge"}, b"//", "/"),
        ({"double_slash": "keep"}, b"/a//b/", "/a//b/"),
        ({"encoded_slash": "keep"}, b"/a%2fb", "/a%2Fb"),
        ({"encoded_slash": "decode"}, b"/a%2fb", "/a/b"),
        ({"encoded_slash": "decode"}, b"/a%252fb", "/a%252fb"),
        ({"backslash": "keep"}, b"/a\\b%5cc", "/a%5Cb%5Cc"),
        ({"semicolon": "keep"}, b"/a;x=1/b", "/a;x=1/b"),
        ({"semicolon": "keep"}, b"/a%3Bx", "/a;x"),
        ({"encoded_slash": "decode", "dot_segments": "resolve"}, b"/a/b%2f..%2fc", "/a/c"),
        ({"encoded_slash": "decode", "dot_segments": "resolve"}, b"/a%2f%2e%2e/b", "/b"),
        ({"encoded_slash": "decode", "double_slash": "merge"}, b"/a%2f/b", "/a/b"),
        ({"double_slash": "merge", "dot_segments": "resolve"}, b"/a//../b", "/b"),
        ({"double_slash": "keep", "dot_segments": "resolve"}, b"/a//../b", "/a/b"),
    ],
)
def test_a_policy_says_what_becomes_of_the_ambiguous(policy: dict[str, str], raw: bytes, path: str) -> None:
    view = canonical(Paths.model_validate(policy))
    assert view(raw) == path
    assert view(path.encode()) == path


@pytest.mark.parametrize(
    ("policy", "raw", "reason"),
    [
        ({"encoded_slash": "decode"}, b"/a%2f%2fb", "double_slash"),
        ({"encoded_slash": "decode"}, b"/a%2f..%2fb", "dot_segment"),
        ({"encoded_slash": "decode"}, b"/a/%2e%2e%2fb", "dot_segment"),
        ({"double_slash": "merge"}, b"/a//../b", "dot_segment"),
        ({"dot_segments": "resolve"}, b"/a//../b", "double_slash"),
    ],
)
def test_what_one_policy_lets_through_another_still_sees(
    policy: dict[str, str], raw: bytes, reason: str
) -> None:
    assert refusal(raw, Paths.model_validate(policy)).reason == reason


@pytest.mark.parametrize("raw", [b"/..", b"/../a", b"/a/../../b", b"/%2e%2e/a", b"/a/..%2f..%2fb"])
def test_resolving_never_climbs_above_the_root(raw: bytes) -> None:
    found = refusal(raw, EASY)
    assert (found.reason, found.detail) == ("dot_segment", "the path climbs above its root")


@pytest.mark.parametrize(
    "raw",
    [
        b"/a/..;/b",
        b"/..;x=1",
        b"/.;",
        b"/a%2f..",
        b"/..%2fa",
        b"/a/..%5c..%5cb",
        b"/x\\..;y",
        b"/%2e%2e%3b/b",
    ],
)
def test_dots_that_hide_behind_something_kept_are_refused(raw: bytes) -> None:
    for dots in ("reject", "resolve"):
        assert refusal(raw, KEEP.model_copy(update={"dot_segments": dots})).reason == "dot_segment"


# fmt: off
SPELLINGS = [
    "/admin/users", "/%61dmin/users", "/admin/%75sers", "/admin%2fusers", "/admin%2Fusers", "/admin//users",
    "//admin/users", "///admin/users", "/./admin/users", "/admin/./users", "/x/../admin/users",
    "/admin/x/../users", "/%2e/admin/users", "/x/%2e%2e/admin/users", "/x/.%2e/admin/users",
    "/x/%2e./admin/users", "/x/%2E%2E/admin/users", "/x%2f..%2fadmin/users", "/x/..%2fadmin/users",
    r"/admin\users", "/admin%5cusers", r"/\admin/users", r"/x\..\admin/users", "/x/..%5cadmin/users",
    "/admin;/users", "/admin;x=1/users", "/;/admin/users", "/x/..;/admin/users",
    "/admin/users;jsessionid=1", "/admin%3b/users", "/admin%00/users", "/admin/users%00",
    "/admin/users%00.html", "/admin%0d%0a/users", "/admin%c0%afusers", "/admin%c1%9cusers",
    "/x/%c0%ae%c0%ae/admin/users", "/admin%e0%80%afusers", "/admin%f0%80%80%afusers", "/%u0061dmin/users",
    "/admin/users%", "/admin/users%2", "/admin%u2215users", "/x/%uff0e%uff0e/admin/users",
    "/%2fadmin/users", "/%5cadmin/users", "/../admin/users", "/..//admin/users", "/x/..//admin/users",
]
# fmt: on
RELAXED = EASY.model_copy(update={"backslash": "reject", "semicolon": "reject"})


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("policy", [Paths(), RELAXED], ids=["default", "relaxed"])
def test_no_spelling_gets_around_a_protected_path(spelling: str, policy: Paths) -> None:
    assert accepted(spelling.encode(), policy) in (None, "/admin/users")


@settings(max_examples=10_000, deadline=None)
@given(raw_paths, st.sampled_from(ALL_POLICIES))
def test_the_canonical_path_is_its_own_canonical_path(raw: bytes, policy: Paths) -> None:
    path = accepted(raw, policy)
    if path is not None:
        assert canonical(policy)(path.encode("ascii")) == path
        assert re.fullmatch(r"(/([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-F]{2})*)+", re.sub("%25..", "", path))
        assert re.search(rb"[\x00-\x1f\x7f]", unquote_to_bytes(path)) is None


@settings(max_examples=500, deadline=None)
@given(raw_paths)
def test_an_origin_decodes_the_same_segments_from_the_canonical_path(raw: bytes) -> None:
    path = accepted(raw, KEEP)
    if path is not None:
        assert decoded(path.encode()) == decoded(raw)


@settings(max_examples=500, deadline=None)
@given(raw_paths)
def test_a_careless_origin_reads_an_accepted_path_as_a_careful_one_does(raw: bytes) -> None:
    path = accepted(raw, Paths())
    if path is not None:
        assert read_carelessly(raw) == read_carelessly(path.encode()) == decoded(path.encode())


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), min_size=1, max_size=8))
def test_resolving_agrees_with_the_rfc(segments: list[str]) -> None:
    raw = "/" + "/".join(segments)
    path = accepted(raw.encode(), EASY)
    if path is not None:
        assert path == urljoin("http://h/", re.sub("/+", "/", raw)).removeprefix("http://h")


def test_every_plain_byte_takes_the_short_way_to_the_same_result() -> None:
    for policy in (Paths(), KEEP):
        view = canonical(policy)
        for sign in string.ascii_letters + string.digits + "-_~!$&'()*+,=:@":
            assert view(f"/{sign}/x".encode()) == view(f"/%{ord(sign):02x}/x".encode()) == f"/{sign}/x"


@pytest.mark.parametrize(
    ("path", "root", "left"),
    [
        ("/api/orders", "/api", "/orders"),
        ("/api/orders", "/api/", "/orders"),
        ("/api/", "/api", "/"),
        ("/api", "/api", "/"),
        ("/apis", "/api", "/apis"),
        ("/other", "/api", "/other"),
        ("/orders", "", "/orders"),
        ("/orders", "/", "/orders"),
        ("/caf%C3%A9/x", "/café", "/x"),
        ("/a%20b/x", "/a b", "/x"),
        ("/a%25b/x", "/a%b", "/x"),
        ("/a:b/x", "/a:b", "/x"),
        ("/a/b/c", "/a/b", "/c"),
        ("/x", "/\udcff", "/x"),
    ],
)
def test_the_root_is_cut_at_a_border_of_segments(path: str, root: str, left: str) -> None:
    assert strip_root(path, root) == left


def test_a_variable_is_decoded_once() -> None:
    assert decode("a%20b") == "a b"
    assert decode("caf%C3%A9") == "café"
    assert decode("%252e") == "%2e"
    assert decode("a+b") == "a+b"


def test_a_variable_that_is_not_utf_8_can_still_be_encoded() -> None:
    assert decode("a%FFb") == "a\ufffdb"
    assert decode("a%FFb").encode()


@settings(max_examples=500, deadline=None)
@given(raw_paths.filter(lambda raw: accepted(raw, KEEP) is not None))
def test_no_variable_holds_a_control_character(raw: bytes) -> None:
    path = accepted(raw, KEEP) or ""
    assert not any(ord(sign) < 32 or ord(sign) == 127 for sign in decode(path))


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("a", "a"),
        ("a b", "a%20b"),
        ("a/b", "a%2Fb"),
        ("a?b=c&d#e", "a%3Fb%3Dc%26d%23e"),
        ("é", "%C3%A9"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("a.b", "a.b"),
        ("...", "..."),
        ("a;b", "a%3Bb"),
    ],
)
def test_text_becomes_one_segment(text: str, segment: str) -> None:
    assert encode(text) == segment
    assert decode(segment) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "double_slash"),
        (".", "dot_segment"),
        ("..", "dot_segment"),
        ("../admin", "dot_segment"),
        ("a/../b", "dot_segment"),
        ("a\\..", "dot_segment"),
        ("..;x", "dot_segment"),
        ("a\r\nb", "control_character"),
        ("a\x00", "control_character"),
        ("\udcff", "bad_encoding"),
    ],
)
def test_text_that_is_more_or_less_than_one_segment_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        encode(text)
    assert caught.value.reason == reason


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=8) | st.lists(st.sampled_from([*"./\\;?#% \r", "a"])).map("".join))
def test_no_value_adds_a_segment_or_a_query(text: str) -> None:
    try:
        path = f"/x/{encode(text)}/y"
    except Ambiguous:
        return
    assert re.fullmatch(r"/x/[A-Za-z0-9\-._~%]+/y", path)
    assert canonical(KEEP)(path.encode()).count("/") == 3


@pytest.mark.parametrize(
    ("text", "variables", "values", "path"),
    [
        ("/v2", (), {}, "/v2"),
        ("/", (), {}, "/"),
        ("/{id}", ("id",), {"id": "42"}, "/42"),
        ("/v2/{id}/x/{*}", ("id", "*"), {"id": "42", "*": "a/b/"}, "/v2/42/x/a/b/"),
        ("/x/{*}", ("*",), {"*": ""}, "/x/"),
        ("/v2/{id}.json", ("id",), {"id": "42"}, "/v2/42.json"),
        ("/{b}/{a}/{b}", ("b", "a", "b"), {"a": "1", "b": "2"}, "/2/1/2"),
        ("/x/{id}", ("id",), {"id": "%252e%3F%C3%A9"}, "/x/%252e%3F%C3%A9"),
        ("/caf\u00e9/a b/%2f/%61/{id}", ("id",), {"id": "1"}, "/caf%C3%A9/a%20b/%2F/a/1"),
        ("/%7Bid%7D", (), {}, "/%7Bid%7D"),
    ],
)
def test_a_template_is_filled(
    text: str, variables: tuple[str, ...], values: dict[str, str], path: str
) -> None:
    template = Template(text)
    assert template.variables == variables
    assert template.fill({**values, "unused": "x"}) == path
    assert canonical(KEEP)(path.encode()) == path
    assert repr(template) == f"Template({text!r})"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "not absolute"),
        ("v2", "not absolute"),
        ("{*}", "after a slash"),
        ("/a/{*}/b", "only at the end"),
        ("/a{*}", "after a slash"),
        ("/{*}/{*}", "only at the end"),
        ("/{a b}", "is not a variable"),
        ("/{}", "is not a variable"),
        ("/{1a}", "is not a variable"),
        ("/{a/b}", "%7B for '{'"),
        ("/a}", "%7D for '}'"),
        ("/a/*", "write {name} or {*}"),
        ("/a?b={c}", "%3F for '?'"),
        ("/a#b", "%23"),
        ("/a//b", "double slash"),
        ("/a/../b", "dot segment"),
        ("/a/%2e%2e/b", "dot segment"),
        ("/..{id}", "dot segment"),
        ("/{a}.{b}", "dot segment"),
        ("/%zz", "bad encoding"),
        ("/a%{x}41", "bad encoding"),
        ("/a%00", "control character"),
        ("/a\\b", "backslash"),
    ],
)
def test_a_template_that_makes_no_plain_path_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        Template(text)


@settings(max_examples=500, deadline=None)
@given(raw_paths)
def test_a_filled_template_is_canonical(raw: bytes) -> None:
    path = accepted(raw, KEEP.model_copy(update={"double_slash": "reject"}))
    if path is not None:
        first, _, rest = path[1:].partition("/")
        filled = Template("/v2/x{id}/{*}").fill({"id": first, "*": rest})
        assert canonical(KEEP)(filled.encode()) == filled
