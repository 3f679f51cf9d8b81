"""Which route serves a request is decided by what the docs say, and by nothing else (P18, P19)."""

import itertools
import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_gateway.errors import ConfigError
from asgi_gateway.gateway import Gateway
from asgi_gateway.live import Serving
from asgi_gateway.routing import Table
from tests.properties.profile import examples

Route = dict[str, Any]


@dataclass(frozen=True)
class Question:
    method: str
    host: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    query: str = ""

    @property
    def scope(self) -> dict[str, Any]:
        return {"headers": list(self.headers), "query_string": self.query.encode()}


def table(routes: list[Route]) -> Table[Serving]:
    """As a file with these routes has it."""
    document = {"upstreams": {"up": {"targets": ["http://127.0.0.1:9"]}}}
    listed = [{**route, "upstream": "up"} for route in routes]
    return Gateway.parse({**document, "routes": listed})._live.table


def decide(table: Table[Serving], asked: Question) -> tuple[str, dict[str, str], frozenset[str]]:
    found = table.match(asked.method, asked.host, asked.path, asked.scope)
    name, params = (found[0].name, found[1]) if found else ("", {})
    return name, params, table.allowed(asked.host, asked.path, asked.scope)


# A reader of the docs: every route is looked at, and the best one taken.


def split(path: str) -> list[str]:
    return path.split("/")[1:]


def match_path(pattern: str, path: str) -> tuple[list[int], dict[str, str]] | None:
    """How good each segment is (a literal before a variable before a wildcard), and the variables."""
    rest = pattern.endswith("/*")
    wanted = split(pattern.removesuffix("/*")) if pattern != "/*" else []
    given = split(path)
    params, quality = {}, []
    for index, part in enumerate(wanted):
        if index >= len(given):
            return None
        if part.startswith("{"):
            if not given[index]:
                return None
            params[part.strip("{}")] = given[index]
            quality.append(1)
        elif part == given[index]:
            quality.append(0)
        else:
            return None
    if rest:
        params["*"] = "/".join(given[len(wanted) :])
        quality.append(2)
    elif len(given) != len(wanted):
        return None
    return quality, params


def match_host(route: Route, host: str) -> tuple[int, int] | None:
    """Exact, then the longer wildcard, then none."""
    wanted = route.get("host", [])
    if not wanted:
        return 2, 0
    if host in wanted:
        return 0, 0
    above = [
        name for name in wanted if name.startswith("*.") and host.endswith(name[1:]) and host != name[1:]
    ]
    return (1, -max(map(len, above))) if above else None


def match_predicates(route: Route, asked: Question) -> bool:
    pairs = [pair.partition("=")[::2] for pair in asked.query.split("&")] if asked.query else []
    for name, value in route.get("headers", {}).items():
        if not any(key == name.encode() and value.encode() in (b"*", is_) for key, is_ in asked.headers):
            return False
    return all(
        any(key == name and value in ("*", is_) for key, is_ in pairs)
        for name, value in route.get("query", {}).items()
    )


def reference(routes: list[Route], asked: Question) -> tuple[str, dict[str, str], frozenset[str]]:
    fitting, methods = [], set[str]()
    for route in routes:
        path, host = match_path(route["path"], asked.path), match_host(route, asked.host)
        if path is None or host is None or not match_predicates(route, asked):
            continue
        served = route.get("methods", [])
        methods |= set(served)
        if served and asked.method not in served:
            continue
        values = [*route.get("headers", {}).values(), *route.get("query", {}).values()]
        exact = sum(value != "*" for value in values)
        rank = -route.get("priority", 0), host, -len(values), -exact, not served, route["name"]
        fitting.append((path[0], rank, route["name"], path[1]))
    name, params = min(fitting, key=lambda item: item[:2])[2:] if fitting else ("", {})
    return name, params, frozenset(methods)


# Few words, so that routes are in each other's way.

words = st.sampled_from(["a", "b", "a", "%C3%A9", "a:b"])
segments = st.lists(words | st.just("{}"), min_size=1, max_size=4)


@st.composite
def routes(draw: st.DrawFn) -> list[Route]:
    made: list[Route] = []
    for index in range(draw(st.integers(1, 12))):
        parts = [part if part != "{}" else f"{{v{at}}}" for at, part in enumerate(draw(segments))]
        end = draw(st.sampled_from(["", "", "/", "/*", "/*"]))
        path = draw(st.sampled_from(["/" + "/".join(parts) + end] * 6 + ["/*", "/"]))
        route: Route = {"name": f"r{(index * 7) % 12:02}", "path": path}
        optional = {
            "methods": st.lists(st.sampled_from(["GET", "PUT", "HEAD"]), min_size=1, max_size=2, unique=True),
            "host": st.lists(
                st.sampled_from(["b.a.test", "a.test", "*.a.test", "*.test", "*.b.a.test"]),
                min_size=1,
                max_size=2,
                unique=True,
            ),
            "headers": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "*"]), min_size=1),
            "query": st.dictionaries(st.sampled_from(["q", "p"]), st.sampled_from(["1", "*"]), min_size=1),
            "priority": st.sampled_from([0, 1, -1]),
        }
        for name, strategy in optional.items():
            if draw(st.integers(0, 3)) == 0:
                route[name] = draw(strategy)
        made.append(route)
    return made


def collide(one: Route, two: Route) -> bool:
    """Whether only their names could decide between two routes."""

    def shape(route: Route) -> list[str]:
        return ["{}" if part.startswith("{") else part for part in split(route["path"])]

    def meet(name: str) -> bool:
        mine, others = one.get(name), two.get(name)
        return mine is others is None or bool(mine and others and set(mine) & set(others))

    return (
        shape(one) == shape(two)
        and all(one.get(name, {}) == two.get(name, {}) for name in ("headers", "query"))
        and one.get("priority", 0) == two.get("priority", 0)
        and meet("host")
        and meet("methods")
    )


def without_collisions(listed: list[Route]) -> list[Route]:
    found: list[Route] = []
    for route in listed:
        if not any(collide(route, other) for other in found):
            found.append(route)
    return found


@examples(40)
@given(routes())
def test_a_file_is_refused_if_and_only_if_two_of_its_routes_collide(listed: list[Route]) -> None:
    assume(len(listed) > 1)
    if len(without_collisions(listed)) == len(listed):
        table(listed)
    else:
        with pytest.raises(ConfigError, match="mean the same requests"):
            table(listed)


questions = st.builds(
    Question,
    st.sampled_from(["GET", "PUT", "HEAD", "BREW"]),
    st.sampled_from(["b.a.test", "c.b.a.test", "a.test", "test", "x.test", "", "other", "127.0.0.1"]),
    st.lists(words | st.sampled_from(["c", ""]), max_size=5).map(lambda parts: "/" + "/".join(parts)),
    st.lists(st.sampled_from([(b"x", b"1"), (b"x", b"2"), (b"y", b"1"), (b"y", b"")]), max_size=2).map(tuple),
    st.sampled_from(["", "q=1", "q=2", "q=", "p=1&q=1", "q=2&q=1"]),
)


@examples(40)
@given(
    routes().map(without_collisions),
    st.lists(questions, min_size=20, max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_best_route_of_the_docs_serves_whatever_the_order_in_the_file(
    listed: list[Route], asked: list[Question], dice: random.Random
) -> None:
    expected = [reference(listed, question) for question in asked]
    for _ in range(3):
        built = table(listed)
        assert [decide(built, question) for question in asked] == expected
        dice.shuffle(listed)


def test_a_hundred_shuffles_of_a_file_decide_alike() -> None:
    dice = random.Random(19)
    options: list[Route] = [
        {},
        {"methods": ["GET"]},
        {"methods": ["PUT", "POST"]},
        {"host": ["a.test"]},
        {"host": ["*.test"], "headers": {"x": "1"}},
        {"query": {"q": "*"}, "priority": 1},
    ]
    paths = ["/a", "/a/{x}", "/a/*", "/{x}/b", "/*", "/a/b", "/{y}/{x}/*"]
    listed = [
        {"name": f"r{index}", "path": path, **more}
        for index, (path, more) in enumerate(itertools.product(paths, options))
    ]
    asked = [
        Question(method, host, path, headers, query)
        for method in ("GET", "PUT", "DELETE")
        for host in ("a.test", "b.test", "other")
        for path in ("/", "/a", "/a/", "/a/b", "/a/c", "/b/b", "/b/c/d", "/a/b/c/d")
        for headers in ((), ((b"x", b"1"),))
        for query in ("", "q=")
    ]
    expected = [reference(listed, question) for question in asked]
    for _ in range(100):
        dice.shuffle(listed)
        built = table(listed)
        assert [decide(built, question) for question in asked] == expected
