import random
from typing import Any
from urllib.parse import urlencode

import pytest

from asgi_gateway import predicates
from asgi_gateway.errors import ConfigError
from asgi_gateway.predicates import Lookup, Predicate, holding
from asgi_gateway.routing import Entry, Pattern, Table


def entry(name: str, path: str = "/a", **options: Any) -> Entry[None]:
    options["methods"] = frozenset(options.get("methods", ()))
    return Entry(name=name, pattern=Pattern(path), payload=None, **options)


def problems(*entries: Entry[None]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Table(entries)
    return [str(problem) for problem in caught.value.problems]


HINT = "(give one another method, host, header or query, or a higher priority)"
X1 = (b"x", b"1")


def test_two_routes_with_one_meaning_are_named_both() -> None:
    assert problems(entry("one", "/orders/{id}"), entry("two", "/orders/{number}")) == [
        "route two: routes 'one' (/orders/{id}) and 'two' (/orders/{number}) mean the same requests " + HINT
    ]


def test_all_conflicts_are_found_at_once_and_each_is_named_once() -> None:
    methods = {"GET", "PUT", "POST"}
    found = problems(
        entry("b", "/a", methods=methods),
        entry("a", "/%61", methods=methods),
        entry("d", "/b/*"),
        entry("c", "/b/*"),
        entry("fine", "/c"),
    )
    assert [text.partition(" mean")[0] for text in found] == [
        "route b: routes 'a' (/%61) and 'b' (/a)",
        "route d: routes 'c' (/b/*) and 'd' (/b/*)",
    ]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"methods": {"GET", "PUT"}}, {"methods": {"PUT", "POST"}}),
        ({"hosts": ("x.com", "y.com")}, {"hosts": ("y.com",)}),
        ({"hosts": ("*.x.com",)}, {"hosts": ("y.com", "*.x.com")}),
        ({"headers": (X1, (b"y", b"2"))}, {"headers": ((b"y", b"2"), X1)}),
        ({"query": (("q", "*"),)}, {"query": (("q", "*"),)}),
        ({"priority": 3}, {"priority": 3}),
    ],
)
def test_routes_that_only_their_names_tell_apart_conflict(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert len(problems(entry("one", **one), entry("two", **two))) == 1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"methods": {"GET"}}, {"methods": {"PUT"}}),
        ({"methods": {"GET"}}, {}),
        ({"hosts": ("x.com",)}, {"hosts": ("y.com",)}),
        ({"hosts": ("x.com",)}, {}),
        ({"hosts": ("a.x.com",)}, {"hosts": ("*.x.com",)}),
        ({"hosts": ("*.a.x.com",)}, {"hosts": ("*.x.com",)}),
        ({"headers": (X1,)}, {"headers": ((b"x", b"2"),)}),
        ({"headers": (X1,)}, {"headers": ((b"x", b"*"),)}),
        ({"headers": (X1,)}, {"query": (("x", "1"),)}),
        ({"headers": (X1,)}, {}),
        ({"path": "/a/"}, {}),
        ({"path": "/a/*"}, {"path": "/a/{x}"}),
    ],
)
def test_routes_that_something_tells_apart_live_together(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert Table([entry("one", **one), entry("two", **two)]).shadowed() == ()


def test_priority_ends_a_conflict_but_shadows_the_other() -> None:
    table = Table([entry("one"), entry("two", priority=1)])
    assert [str(problem) for problem in table.shadowed()] == [
        "route one: it is never reached: 'two' always goes first (take it away, or give it a higher priority)"
    ]


def test_several_routes_can_shadow_one_together() -> None:
    table = Table(
        [
            entry("both", methods={"GET", "PUT"}),
            entry("get", methods={"GET"}, priority=1),
            entry("put", methods={"PUT"}, priority=2),
        ]
    )
    assert [problem.what for problem in table.shadowed()] == [
        "it is never reached: 'get' or 'put' always goes first"
    ]


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ({}, {"methods": {"GET"}, "hosts": ("x.com",), "headers": (X1,), "query": (("q", "1"),)}),
        ({"methods": {"GET", "PUT"}}, {"methods": {"GET"}, "headers": (X1,)}),
        ({"hosts": ("*.x.com",)}, {"hosts": ("a.x.com", "*.b.x.com")}),
        ({"headers": (X1,)}, {"headers": (X1, (b"y", b"1"))}),
        ({"headers": ((b"x", b"*"),)}, {"headers": (X1,)}),
        ({"query": (("q", "*"),)}, {"query": (("q", "1"), ("r", "1"))}),
    ],
)
def test_a_route_above_that_asks_for_less_shadows(above: dict[str, Any], below: dict[str, Any]) -> None:
    table = Table([entry("above", "/a/{x}", priority=1, **above), entry("below", "/a/{y}", **below)])
    assert [problem.where for problem in table.shadowed()] == ["route below"]
    assert Table([entry("above", "/a/{x}", **above), entry("below", "/a/{y}", **below)]).shadowed() == ()


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ({"methods": {"GET"}}, {}),
        ({"methods": {"GET"}}, {"methods": {"GET", "PUT"}}),
        ({"hosts": ("*.x.com",)}, {"hosts": ("x.com",)}),
        ({"hosts": ("a.x.com",)}, {"hosts": ("*.x.com",)}),
        ({"hosts": ("x.com",)}, {}),
        ({"headers": (X1,)}, {"headers": ((b"x", b"*"),)}),
        ({"headers": (X1,)}, {"query": (("x", "1"),)}),
        ({"headers": (X1,)}, {}),
    ],
)
def test_a_route_above_that_asks_for_more_does_not_shadow(
    above: dict[str, Any], below: dict[str, Any]
) -> None:
    table = Table([entry("above", priority=1, **above), entry("below", **below)])
    assert table.shadowed() == ()


def test_a_host_without_predicates_hides_those_that_have_some() -> None:
    """An exact host goes before more headers, so that nothing is left on that host for the wildcard."""
    table = Table([entry("near", hosts=("a.x.com",)), entry("far", hosts=("*.x.com",), headers=(X1,))])
    assert table.shadowed() == ()
    assert table.match("GET", "a.x.com", "/a", {"headers": [X1], "query_string": b""})[0].name == "near"  # type: ignore[index]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.",
        "a.*.com",
        "*a.com",
        "**.com",
        "A.com",
        "a.com:80",
        "a.com/",
        "a..com",
        "a.com.",
        "café.com",
        "::1",
    ],
)
def test_a_host_that_no_request_has_is_refused(host: str) -> None:
    hint = "write app.example.com or *.example.com in lower case, without a port"
    assert problems(entry("one", hosts=(host,))) == [f"route one: host: {host!r} is not a host ({hint})"]


@pytest.mark.parametrize(
    "host", ["localhost", "a.com", "*.a.com", "127.0.0.1", "[::1]", "xn--caf-dma.com", "a_b.com"]
)
def test_a_host_that_a_request_may_have_is_taken(host: str) -> None:
    assert Table([entry("one", hosts=(host,))]).match("GET", host, "/a", {}) is not None


def always_fits(one: Entry[None], two: Entry[None]) -> bool:
    """Whether the predicates of `one` hold wherever those of `two` do, as one would say it."""
    for wanted, given, anything in ((one.headers, two.headers, b"*"), (one.query, two.query, "*")):
        for name, value in wanted:
            if not any(name == other and value in (said, anything) for other, said in given):
                return False
    return True


def test_the_first_that_always_fits_is_found_among_any() -> None:
    dice = random.Random(7)
    for _ in range(300):
        entries = [
            entry(
                f"route-{number}",
                headers=tuple(
                    (name, dice.choice((b"1", b"2", b"*"))) for name in (b"x", b"y") if dice.random() < 0.5
                ),
                query=tuple((name, dice.choice(("1", "*"))) for name in ("q", "r") if dice.random() < 0.4),
            )
            for number in range(8)
        ]
        first, there = Lookup(entries), list[Entry[None]]()
        for one in entries:
            expected = next((other for other in there if always_fits(other, one)), None)
            assert first.first(holding(one.headers, one.query)) is expected
            if expected is None:
                first.add(one)
                there.append(one)


def test_many_routes_at_one_path_are_not_compared_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def asked(one: predicates.Asking) -> frozenset[Predicate]:
        looks.append(one)
        return told(one)

    told = predicates.predicates
    monkeypatch.setattr(predicates, "predicates", asked)
    many = 300
    Table([entry(f"route-{number}", headers=((b"x", b"%d" % number),)) for number in range(many)]).shadowed()
    assert many <= len(looks) < 20 * many


def test_a_request_finds_its_route_among_many_at_one_path() -> None:
    dice = random.Random(9)
    for _ in range(60):
        entries = [
            entry(
                f"route-{number:02}",
                methods=dice.choice(((), ("GET",), ("PUT",))),
                headers=tuple(
                    (name, dice.choice((b"1", b"2", b"3", b"*")))
                    for name in (b"x", b"y")
                    if dice.random() < 0.6
                ),
                query=tuple(
                    (name, dice.choice(("1", "2", "*"))) for name in ("q", "r") if dice.random() < 0.5
                ),
                priority=number,
            )
            for number in range(30)
        ]
        table = Table(entries)
        for _ in range(20):
            headers = [(dice.choice((b"x", b"y")), dice.choice((b"1", b"2", b"4"))) for _ in range(2)]
            query = [(dice.choice("qr"), dice.choice("12")) for _ in range(dice.randrange(3))]
            asking = entry("request", headers=tuple(headers), query=tuple(query))
            there = [
                one for one in reversed(entries) if not one.methods or "GET" in one.methods
            ]  # by priority
            expected = next((one for one in there if always_fits(one, asking)), None)
            scope = {"type": "http", "headers": headers, "query_string": urlencode(query).encode()}
            found = table.match("GET", "localhost", "/a", scope)
            assert (found[0] if found else None) is expected


def test_the_methods_of_many_routes_at_one_path_are_told() -> None:
    table = Table(
        [
            entry(f"{method}-{number}", methods=(method,), headers=((b"x", b"%d" % number),))
            for method in ("PUT", "POST")
            for number in range(50)
        ]
    )
    scope = {"type": "http", "headers": [(b"x", b"7")], "query_string": b""}
    assert table.match("GET", "localhost", "/a", scope) is None
    assert table.allowed("localhost", "/a", scope) == {"PUT", "POST"}
