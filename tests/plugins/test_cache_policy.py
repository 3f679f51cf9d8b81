"""What RFC 9111 says about keeping and using answers, as tables over the functions that decide it."""

import time
from typing import Any

import pytest

from asgi_gateway_plugins.cache.directives import (
    MOST_SECONDS,
    date,
    directives,
    names_tag,
    seconds,
)
from asgi_gateway_plugins.cache.policy import (
    NOTHING,
    Asked,
    Rules,
    Term,
    chosen,
    conditional,
    has_not_changed,
    term,
    unconditional,
    updated,
    varying,
)

NOW = 1_700_000_000.0
DATE = b"Tue, 14 Nov 2023 22:13:20 GMT"
MINUTE_AGO = b"Tue, 14 Nov 2023 22:12:20 GMT"
HOUR_AGO = b"Tue, 14 Nov 2023 21:13:20 GMT"
IN_AN_HOUR = b"Tue, 14 Nov 2023 23:13:20 GMT"
TAG = (b"etag", b'"a"')
DEFAULT = Rules()


def fields(*lines: str) -> list[tuple[bytes, bytes]]:
    """`name: value` as fields."""
    pairs = [line.partition(":") for line in lines]
    return [(name.encode().lower(), value.strip().encode("latin-1")) for name, _, value in pairs]


def judged(*lines: str, status: int = 200, asked: Asked = NOTHING, **rules: Any) -> Term | None:
    return term(status, fields(*lines), asked, Rules(**rules), now=NOW)


# Cache-Control and its malformed forms (RFC 9111 5.2)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("max-age=60", {b"max-age": b"60"}),
        ("Max-Age=60", {b"max-age": b"60"}),
        ("max-age=60, public", {b"max-age": b"60", b"public": None}),
        ("max-age=60,public", {b"max-age": b"60", b"public": None}),
        (" max-age=60 ,\tpublic ", {b"max-age": b"60", b"public": None}),
        (",, max-age=60,,", {b"max-age": b"60"}),
        ('max-age="60"', {b"max-age": b"60"}),
        ("max-age='60'", {b"max-age": b"'60'"}),
        ("max-age=", {b"max-age": b""}),
        ("max-age", {b"max-age": None}),
        ("max-age =60", {}),
        ("max-age= 60", {b"max-age": b" 60"}),
        ("max-age=60 s", {b"max-age": b"60 s"}),
        ("max-age=60; no-store", {b"max-age": b"60; no-store"}),
        ("max-age=1, max-age=60", {b"max-age": b"1"}),
        ('ext="max-age=60", max-age=1', {b"ext": b"max-age=60", b"max-age": b"1"}),
        ('ext="a, no-store", max-age=1', {b"ext": b"a, no-store", b"max-age": b"1"}),
        ('ext="a\\", no-store", max-age=1', {b"ext": b'a", no-store', b"max-age": b"1"}),
        ('no-cache="set-cookie, a"', {b"no-cache": b"set-cookie, a"}),
        ('private="a', {b"no-store": None, b"private": b'"a'}),
        ('ext="a, max-age=60', {b"no-store": None, b"ext": b'"a, max-age=60'}),
        ('"no-store"', {}),
        ("nO-sToRe", {b"no-store": None}),
        ("(max-age=60)", {}),
        ("", {}),
        (",", {}),
        ("=60", {}),
        ("max-age==60", {b"max-age": b"=60"}),
    ],
)
def test_directives_are_read(value: str, said: dict[bytes, bytes | None]) -> None:
    assert directives([(b"cache-control", value.encode())]) == said


def test_all_lines_of_a_field_count_together() -> None:
    assert directives(fields("cache-control: max-age=1", "cache-control: no-store")) == {
        b"max-age": b"1",
        b"no-store": None,
    }


@pytest.mark.parametrize(
    "value",
    [b'"' * 60_000, b'a="\\"' * 12_000, b"," * 60_000, b'="' * 30_000],
    ids=["quotes", "escapes", "commas", "open"],
)
def test_reading_takes_no_longer_than_the_text_is(value: bytes) -> None:
    began = time.process_time()
    directives([(b"cache-control", value)])
    # Far more, if the time grew with the square of the length.
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("argument", "many"),
    [
        (b"0", 0),
        (b"60", 60),
        (b"0060", 60),
        (b"2147483647", MOST_SECONDS),
        (b"2147483648", MOST_SECONDS),
        (b"99999999999999999999999", MOST_SECONDS),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1a", None),
        (b"", None),
        (b" 1", None),
        ("\u0661".encode(), None),
        (None, None),
    ],
)
def test_seconds_are_whole_numbers(argument: bytes | None, many: int | None) -> None:
    assert seconds(argument) == many


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (DATE, NOW),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        (b"Sun Nov  6 08:49:37 1994", 784111777.0),
        (b"SUN, 06 NOV 1994 08:49:37 gmt", 784111777.0),
        (b"Sun, 06 Nov 1994 08:49:60 GMT", 784111799.0),
        (b"Sun, 6 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
        (b"Sun, 06 Nov 1994 8:49:37 GMT", None),
        (b"Sun, 31 Feb 1994 08:49:37 GMT", None),
        (b"Sun, 06 Foo 1994 08:49:37 GMT", None),
        (b"Sun 06 Nov 1994 08:49:37 GMT", None),
        (b"0", None),
        (b"-1", None),
        (b"", None),
    ],
)
def test_dates_have_three_forms(text: bytes, moment: float | None) -> None:
    assert date(text) == moment


@pytest.mark.parametrize(
    ("listed", "tag", "named"),
    [
        (b'"a"', b'"a"', True),
        (b'"a"', b'"b"', False),
        (b'W/"a"', b'"a"', True),
        (b'"a"', b'W/"a"', True),
        (b'"b", "a"', b'"a"', True),
        (b'"b", W/"a", "c"', b'"a"', True),
        (b'"a,b"', b'"a,b"', True),
        (b'"a,b"', b'"a"', False),
        (b"*", b'"a"', True),
        (b"*", b"", True),
        (b"a", b"a", True),
        (b"a", b'"a"', False),
        (b'"a', b'"a"', False),
        (b'"a"', b"", False),
        (b'""', b'""', True),
    ],
)
def test_entity_tags_are_compared_weakly(listed: bytes, tag: bytes, named: bool) -> None:
    assert names_tag(listed, tag) is named


# What is kept, and for how long (RFC 9111 3 and 4.2)


@pytest.mark.parametrize(
    ("lines", "lifetime"),
    [
        (["cache-control: max-age=60"], 60),
        (["cache-control: s-maxage=30, max-age=60"], 30),
        (["cache-control: max-age=60, s-maxage=30"], 30),
        (["cache-control: max-age=60", "cache-control: s-maxage=30"], 30),
        (["cache-control: max-age=0, s-maxage=30"], 30),
        (["cache-control: max-age=60", "expires: 0"], 60),
        (["cache-control: max-age=60", f"expires: {HOUR_AGO.decode()}"], 60),
        ([f"expires: {IN_AN_HOUR.decode()}", f"date: {DATE.decode()}"], 3600),
        ([f"expires: {IN_AN_HOUR.decode()}"], 3600),
        ([f"expires: {IN_AN_HOUR.decode()}", "date: nonsense"], 3600),
        ([f"expires: {DATE.decode()}", f"date: {MINUTE_AGO.decode()}", 'etag: "a"'], 60),
        ([f"expires: {IN_AN_HOUR.decode()}", "cache-control: max-age=60"], 60),
        ([f"expires: {IN_AN_HOUR.decode()}", "cache-control: max-age=0", 'etag: "a"'], 0),
        ([f"expires: {IN_AN_HOUR.decode()}", "cache-control: max-age=x", 'etag: "a"'], 0),
        ([f"expires: {IN_AN_HOUR.decode()}", "cache-control: public"], 3600),
        (["cache-control: max-age=60, must-revalidate"], 60),
        (["cache-control: max-age=60, immutable, ext=1"], 60),
        (["cache-control: max-age=99999999999"], MOST_SECONDS),
        (["cache-control: no-cache, max-age=60", 'etag: "a"'], 0),
        (['cache-control: no-cache="a", max-age=60', 'etag: "a"'], 0),
        (["cache-control: max-age=60, max-age=1"], 60),
        (["cache-control: no-store, must-understand, max-age=60"], 60),
        (["expires: 0", 'etag: "a"'], 0),
        (["expires: soon", f"last-modified: {HOUR_AGO.decode()}"], 0),
    ],
)
def test_the_origin_says_how_long(lines: list[str], lifetime: float) -> None:
    found = judged(*lines)
    assert found is not None
    assert found.lifetime == lifetime


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["cache-control: no-store"],
        ["cache-control: no-store, max-age=60"],
        ["cache-control: private, max-age=60"],
        ['cache-control: private="a", max-age=60'],
        ["cache-control: max-age=0"],
        ["cache-control: max-age=-60"],
        ["cache-control: max-age=6.0"],
        ["cache-control: max-age='60'"],
        ["cache-control: no-cache"],
        ["cache-control: max-age=60", "vary: *"],
        ["cache-control: max-age=60", "vary: accept, *"],
        ["cache-control: max-age=60", "vary: accept", "vary: *"],
        ["cache-control: max-age=60", "set-cookie: a=b"],
        ["cache-control: max-age=60", "age: 60"],
        ["cache-control: max-age=60", "age: 61"],
        ["cache-control: max-age=60", "age: x"],
        ["cache-control: max-age=60", "age: -1"],
        ["cache-control: max-age=60", "age: 0", "age: 100"],
        ["cache-control: max-age=60", "age: 100, 0"],
        ["cache-control: max-age=60", f"date: {HOUR_AGO.decode()}"],
        ["expires: 0"],
        [f"expires: {HOUR_AGO.decode()}"],
        [f"expires: {DATE.decode()}", f"date: {DATE.decode()}"],
        ['cache-control: ext="a, max-age=60'],
    ],
)
def test_what_is_not_kept(lines: list[str]) -> None:
    assert judged(*lines) is None


@pytest.mark.parametrize(
    ("status", "kept"),
    [
        (200, True),
        (201, True),
        (203, True),
        (204, True),
        (206, False),
        (299, True),
        (301, True),
        (302, True),
        (304, False),
        (307, True),
        (308, True),
        (400, True),
        (404, True),
        (410, True),
        (499, True),
        (500, False),
        (503, False),
        (504, False),
        (599, False),
    ],
)
def test_statuses_that_say_for_how_long(status: int, kept: bool) -> None:
    assert (judged("cache-control: max-age=60", status=status) is not None) is kept


def test_errors_are_kept_where_that_is_allowed() -> None:
    assert judged("cache-control: max-age=60", status=503, errors=True) is not None
    assert judged(status=503, errors=True, ttl=60.0) is None
    assert judged("cache-control: public", status=501, errors=True, ttl=60.0) is not None


@pytest.mark.parametrize(
    ("status", "kept"), [(200, True), (404, True), (405, True), (201, False), (302, False), (403, False)]
)
def test_ttl_is_for_statuses_that_may_be_kept_without_a_word(status: int, kept: bool) -> None:
    found = judged(status=status, ttl=30.0)
    assert (found is not None) is kept
    if found is not None:
        assert (found.lifetime, found.guessed) == (30, True)


@pytest.mark.parametrize(
    "lines", [["cache-control: no-store"], ["cache-control: private"], ["set-cookie: a=b"], ["vary: *"]]
)
def test_ttl_overrules_nobody(lines: list[str]) -> None:
    assert judged(*lines, ttl=30.0) is None


def test_ttl_is_not_for_those_who_may_be_somebody() -> None:
    cookie, login = Asked(cookie=True), Asked(authorization=True)
    assert judged(asked=cookie, ttl=30.0) is None
    assert judged(asked=login, ttl=30.0) is None
    assert judged(asked=cookie, ttl=30.0, shared=True) is not None
    assert judged(asked=login, ttl=30.0, shared=True) is None
    assert judged("cache-control: max-age=5", asked=cookie) is not None


def test_what_changed_long_ago_may_be_guessed_to_last() -> None:
    lines = [f"last-modified: {HOUR_AGO.decode()}", f"date: {DATE.decode()}"]
    found = judged(*lines, heuristic=0.1)
    assert found is not None
    assert found.lifetime == 360
    without = judged(*lines)
    assert without is not None
    assert without.lifetime == 0
    future = judged(f"last-modified: {IN_AN_HOUR.decode()}", heuristic=0.1)
    assert future is not None
    assert future.lifetime == 0


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("max-age=60", False),
        ("public, max-age=60", True),
        ("s-maxage=60", True),
        ("max-age=60, must-revalidate", True),
        ("max-age=60, proxy-revalidate", False),
        ("private, max-age=60", False),
    ],
)
def test_callers_with_authorization_share_only_what_allows_it(said: str, kept: bool) -> None:
    found = judged(f"cache-control: {said}", asked=Asked(authorization=True))
    assert (found is not None) is kept
    if found is not None:
        assert found.open_to_all


@pytest.mark.parametrize(("status", "kept"), [(200, True), (404, True), (299, False), (499, False)])
def test_must_understand_keeps_what_is_understood(status: int, kept: bool) -> None:
    found = judged("cache-control: must-understand, no-store, max-age=60", status=status)
    assert (found is not None) is kept


def test_no_store_of_the_caller_counts() -> None:
    assert judged("cache-control: max-age=60", asked=Asked({b"no-store": None})) is None


# Age (RFC 9111 4.2.3)


@pytest.mark.parametrize(
    ("lines", "delay", "age"),
    [
        ([], 0.0, 0),
        ([], 3.0, 3),
        (["age: 10"], 0.0, 10),
        (["age: 10"], 3.0, 13),
        (["age: 0, 50"], 0.0, 0),
        ([f"date: {MINUTE_AGO.decode()}"], 0.0, 60),
        ([f"date: {MINUTE_AGO.decode()}", "age: 10"], 0.0, 60),
        ([f"date: {MINUTE_AGO.decode()}", "age: 100"], 2.0, 102),
        ([f"date: {IN_AN_HOUR.decode()}"], 0.0, 0),
        (["date: nonsense", "age: 5"], 0.0, 5),
    ],
)
def test_an_answer_is_as_old_as_it_says_at_least(lines: list[str], delay: float, age: float) -> None:
    found = term(200, fields("cache-control: max-age=600", *lines), NOTHING, DEFAULT, now=NOW, delay=delay)
    assert found is not None
    assert found.age == age


# Stale (RFC 9111 4.2.4, RFC 5861)


@pytest.mark.parametrize(
    ("said", "while_revalidate", "if_error", "strict"),
    [
        ("max-age=60", 5, 7, False),
        ("max-age=60, stale-while-revalidate=30", 30, 7, False),
        ("max-age=60, stale-if-error=30", 5, 30, False),
        ("max-age=60, stale-while-revalidate=0", 0, 7, False),
        ("max-age=60, stale-while-revalidate=x", 0, 7, False),
        ("max-age=60, must-revalidate", 0, 0, True),
        ("max-age=60, proxy-revalidate", 0, 0, True),
        ("max-age=60, must-revalidate, stale-while-revalidate=30", 0, 0, True),
        ("s-maxage=60", 0, 0, True),
        ("s-maxage=60, stale-while-revalidate=30", 30, 0, True),
        ("s-maxage=60, stale-if-error=30", 0, 30, True),
    ],
)
def test_how_long_an_answer_may_be_used_stale(
    said: str, while_revalidate: float, if_error: float, strict: bool
) -> None:
    found = judged(f"cache-control: {said}", while_revalidate=5.0, if_error=7.0)
    assert found is not None
    assert (found.while_revalidate, found.if_error, found.strict) == (while_revalidate, if_error, strict)


# What callers ask for (RFC 9111 5.2.1)


@pytest.mark.parametrize(
    ("said", "age", "left", "taken"),
    [
        ("", 10, 50, True),
        ("", 70, -10, False),
        ("no-cache", 10, 50, False),
        ("max-age=20", 10, 50, True),
        ("max-age=5", 10, 50, False),
        ("max-age=0", 0, 60, False),
        ("max-age=x", 0, 60, False),
        ("min-fresh=40", 10, 50, True),
        ("min-fresh=60", 10, 50, False),
        ("max-stale", 70, -10, True),
        ("max-stale=20", 70, -10, True),
        ("max-stale=5", 70, -10, False),
        ("max-stale=x", 70, -10, False),
        ("max-stale, max-age=60", 70, -10, False),
        ("only-if-cached", 10, 50, True),
        ("only-if-cached", 70, -10, False),
        ("no-transform, ext=1", 10, 50, True),
    ],
)
def test_what_callers_take(said: str, age: float, left: float, taken: bool) -> None:
    asked = Asked.of(fields(f"cache-control: {said}"))
    assert asked.takes(age, left, Term(60, 0)) is taken


def test_nobody_takes_stale_what_must_not_be() -> None:
    assert not Asked.of(fields("cache-control: max-stale")).takes(70, -10, Term(60, 0, strict=True))


def test_pragma_is_an_old_word_for_no_cache() -> None:
    assert Asked.of(fields("pragma: no-cache")).validates
    assert not Asked.of(fields("pragma: other")).validates
    assert not Asked.of(fields("pragma: no-cache", "cache-control: max-age=5")).validates
    assert not Asked.of(fields("pragma: no-cache"), obeyed=False).validates


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("range: bytes=0-1", True),
        ("if-range: x", True),
        ('if-match: "a"', True),
        (f"if-unmodified-since: {DATE.decode()}", True),
        ("cache-control: no-store", True),
        ('if-none-match: "a"', False),
        ("cookie: a=b", False),
    ],
)
def test_some_requests_are_for_the_origin_alone(line: str, passes: bool) -> None:
    assert Asked.of(fields(line)).passes is passes


# Validation (RFC 9111 4.3)


def test_what_is_kept_is_asked_about_by_its_validators() -> None:
    kept = fields('etag: W/"a"', f"last-modified: {HOUR_AGO.decode()}")
    asked = fields("accept: x", 'if-none-match: "own"', f"if-modified-since: {DATE.decode()}")
    assert conditional(asked, kept) == fields(
        "accept: x", 'if-none-match: W/"a"', f"if-modified-since: {HOUR_AGO.decode()}"
    )
    assert conditional(asked, []) == unconditional(asked) == fields("accept: x")


@pytest.mark.parametrize(
    ("kept", "asked", "unchanged"),
    [
        (['etag: "a"'], ['if-none-match: "a"'], True),
        (['etag: "a"'], ['if-none-match: W/"a"'], True),
        (['etag: "a"'], ['if-none-match: "b"'], False),
        (['etag: "a"'], ['if-none-match: "b"', 'if-none-match: "a"'], True),
        ([], ['if-none-match: "a"'], False),
        ([], ["if-none-match: *"], True),
        ([f"last-modified: {HOUR_AGO.decode()}"], [f"if-modified-since: {HOUR_AGO.decode()}"], True),
        ([f"last-modified: {HOUR_AGO.decode()}"], [f"if-modified-since: {DATE.decode()}"], True),
        ([f"last-modified: {DATE.decode()}"], [f"if-modified-since: {HOUR_AGO.decode()}"], False),
        ([f"last-modified: {HOUR_AGO.decode()}"], ["if-modified-since: nonsense"], False),
        ([f"date: {HOUR_AGO.decode()}"], [f"if-modified-since: {DATE.decode()}"], True),
        ([], [f"if-modified-since: {DATE.decode()}"], False),
        (
            ['etag: "a"', f"last-modified: {HOUR_AGO.decode()}"],
            ['if-none-match: "b"', f"if-modified-since: {DATE.decode()}"],
            False,
        ),
    ],
)
def test_callers_are_told_that_they_have_it(kept: list[str], asked: list[str], unchanged: bool) -> None:
    assert has_not_changed(200, fields(*kept), Asked.of(fields(*asked))) is unchanged


def test_only_a_success_can_be_unchanged() -> None:
    assert not has_not_changed(404, [TAG], Asked.of(fields('if-none-match: "a"')))


def test_a_304_updates_what_is_kept() -> None:
    kept = fields("a: 1", "a: 2", "b: 1", "content-length: 5", "content-encoding: gzip", 'etag: "a"')
    fresh = fields("a: 3", "content-length: 0", "content-encoding: br", 'etag: "b"', "set-cookie: x=y")
    assert updated(kept, fresh) == fields(
        "b: 1", "content-length: 5", "content-encoding: gzip", 'etag: "a"', "a: 3"
    )


# Vary (RFC 9111 4.1)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], ()),
        (["vary: Accept"], (b"accept",)),
        (["vary: b, a,, b"], (b"a", b"b")),
        (["vary: b", "vary: A"], (b"a", b"b")),
        (["content-encoding: gzip"], (b"accept-encoding",)),
        (["content-encoding: gzip", "vary: a, accept-encoding"], (b"a", b"accept-encoding")),
    ],
)
def test_the_fields_that_chose_an_answer(lines: list[str], names: tuple[bytes, ...]) -> None:
    assert varying(fields(*lines)) == names


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (["foo: 1"], ["foo: 1"], True),
        (["foo: 1"], ["foo: 2"], False),
        (["foo: 1"], [], False),
        ([], [], True),
        (["foo:"], [], False),
        (["foo: 1, 2"], ["foo: 1", "foo: 2"], True),
        (["foo: 1,2"], ["foo: 1 ,  2"], True),
        (["foo: 1, 2"], ["foo: 2, 1"], False),
        (["foo: a"], ["foo: A"], False),
        (["accept-encoding: gzip, br"], ["accept-encoding: BR,gzip"], True),
        (["accept-encoding: gzip"], ["accept-encoding: br"], False),
        (["accept-encoding: gzip;q=1"], ["accept-encoding: gzip; q=1"], True),
        (["accept-language: en, de"], ["accept-language: EN,De"], True),
        (["accept-language: en, de"], ["accept-language: de, en"], False),
        (["foo: 1", "other: 1"], ["foo: 1", "other: 2"], True),
    ],
)
def test_requests_that_choose_the_same(one: list[str], other: list[str], same: bool) -> None:
    by = (b"accept-encoding", b"accept-language", b"foo")
    assert (chosen(by, fields(*one)) == chosen(by, fields(*other))) is same
