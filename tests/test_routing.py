import itertools
import random
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_gateway.config import GatewayConfig
from asgi_gateway.overlaps import conflicts
from asgi_gateway.paths import Ambiguous, canonical
from asgi_gateway.precedence import Place
from asgi_gateway.routing import Entry, Node, Pattern, Table

DOCS = Path(__file__).parent.parent / "docs" / "routing.md"


def entry(name: str, path: str, **options: Any) -> Entry[str]:
    options["methods"] = frozenset(options.get("methods", ()))
    return Entry(name=name, pattern=Pattern(path), payload=name, **options)


def request(query: str = "", **headers: str) -> dict[str, Any]:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"query_string": query.encode(), "headers": fields}


def served(
    table: Table[str], path: str, method: str = "GET", host: str = "h", scope: dict[str, Any] | None = None
) -> str:
    found = table.match(method, host, path, scope or request())
    return found[0].name if found else "none"


# Paths


@pytest.mark.parametrize(
    ("path", "name", "params"),
    [
        ("/orders", "exact", {}),
        ("/orders/new", "literal", {}),
        ("/orders/42", "variable", {"id": "42"}),
        ("/orders/a%20b", "variable", {"id": "a%20b"}),
        ("/orders/new/items", "deep", {"id": "new"}),
        ("/orders/42/items", "deep", {"id": "42"}),
        ("/orders/42/other", "rest", {"*": "42/other"}),
        ("/orders/", "rest", {"*": ""}),
        ("/orders/new/", "rest", {"*": "new/"}),
        ("/other", "any", {"*": "other"}),
        ("/", "any", {"*": ""}),
        ("/Orders", "any", {"*": "Orders"}),
        ("/v1/a/x", "left-literal", {"b": "x"}),
        ("/v1/z/x", "right-literal", {"a": "z"}),
    ],
)
def test_a_literal_goes_before_a_variable_before_a_wildcard(
    path: str, name: str, params: dict[str, str]
) -> None:
    table = Table(
        [
            entry("any", "/*"),
            entry("rest", "/orders/*"),
            entry("variable", "/orders/{id}"),
            entry("deep", "/orders/{id}/items"),
            entry("literal", "/orders/new"),
            entry("exact", "/orders"),
            entry("right-literal", "/v1/{a}/x"),
            entry("left-literal", "/v1/a/{b}"),
        ]
    )
    found = table.match("GET", "h", path, request())
    assert found is not None
    assert (found[0].payload, found[1]) == (name, params)


def test_a_wildcard_serves_its_trunk_too_unless_a_route_is_exact() -> None:
    files = entry("files", "/files/*")
    assert served(Table([files]), "/files") == "files"
    assert served(Table([files]), "/file") == "none"
    assert served(Table([files]), "/filesystem") == "none"
    assert served(Table([files, entry("exact", "/files")]), "/files") == "exact"
    assert served(Table([files, entry("exact", "/files")]), "/files/") == "files"
    assert served(Table([files, entry("variable", "/{name}")]), "/files") == "files"


def test_a_variable_takes_no_empty_segment() -> None:
    table = Table([entry("variable", "/a/{id}"), entry("middle", "/b/{id}/c"), entry("slash", "/c/{id}/")])
    assert served(table, "/a/") == "none"
    assert served(table, "/b//c") == "none"
    assert served(table, "/c//") == "none"
    assert served(table, "/c/1/") == "slash"
    assert served(table, "/c/1") == "none"


def test_routes_of_one_shape_keep_the_names_of_their_own_variables() -> None:
    table = Table([entry("get", "/a/{x}", methods={"GET"}), entry("put", "/a/{y}", methods={"PUT"})])
    found = [table.match(method, "h", "/a/1", request()) for method in ("GET", "PUT")]
    assert [match[1] for match in found if match] == [{"x": "1"}, {"y": "1"}]


def test_the_variables_of_one_request_are_not_those_of_the_next() -> None:
    table = Table([entry("exact", "/a")])
    first = table.match("GET", "h", "/a", request())
    assert first is not None
    first[1]["x"] = "changed"
    assert table.match("GET", "h", "/a", request()) == (first[0], {})


def test_a_path_that_fits_but_for_its_predicates_is_left_for_the_next_best() -> None:
    table = Table(
        [
            entry("literal", "/a/b/c", methods={"PUT"}),
            entry("left", "/a/{x}/c", hosts=("left",)),
            entry("right", "/a/b/{y}", query=(("q", "1"),)),
            entry("rest", "/a/*", headers=((b"x", b"1"),)),
            entry("any", "/*"),
        ]
    )
    path = "/a/b/c"
    assert served(table, path, "PUT", "left", request("q=1", x="1")) == "literal"
    assert served(table, path, "GET", "left", request("q=1", x="1")) == "right"
    assert served(table, path, "GET", "left", request("", x="1")) == "left"
    assert served(table, path, "GET", "h", request("", x="1")) == "rest"
    assert served(table, path, "GET", "h", request()) == "any"


def test_backtracking_goes_back_over_several_segments() -> None:
    table = Table([entry("one", "/a/b/c/d"), entry("two", "/{w}/b/{y}/e"), entry("three", "/a/{x}/c/f")])
    assert served(table, "/a/b/c/d") == "one"
    assert served(table, "/a/b/c/e") == "two"
    assert served(table, "/a/b/c/f") == "three"
    assert served(table, "/a/b/c/g") == "none"


class Counted(dict[str, Node[str]]):
    """The literals of a node; counts how often any of them is asked."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.asked += 1
        return super().get(key, default)


def count_nodes(node: Node[str]) -> int:
    """Counts what is below, and makes each node count its visits."""
    node.literals = Counted(node.literals)
    below = [*node.literals.values(), node.variable, node.rest]
    return 1 + sum(count_nodes(child) for child in below if child is not None)


def steps(table: Table[str], path: str) -> int:
    Counted.asked = 0
    assert served(table, path) == "none"
    return Counted.asked


def test_no_path_makes_the_search_visit_a_node_twice() -> None:
    """The worst table: at each of ten depths a literal and a variable, and the last segment never fits."""
    shapes = itertools.product(["a", "{%s}"], repeat=10)
    paths = ["/" + "/".join(part.replace("%s", f"v{i}") for i, part in enumerate(shape)) for shape in shapes]
    table = Table([entry(f"r{index}", f"{path}/end") for index, path in enumerate(paths)])
    nodes = count_nodes(table._root)
    assert nodes > 2**11
    worst = steps(table, "/a" * 10 + "/none")
    assert worst <= nodes
    assert steps(table, "/a" * 10 + "/none" * 2000) <= worst
    assert steps(table, "/a" * 4000) <= worst
    assert steps(table, "/b" * 10 + "/none") <= 12


def test_the_steps_do_not_grow_with_the_number_of_routes() -> None:
    def measured(many: int) -> list[int]:
        table = Table([entry(f"r{index}", f"/api/thing{index}/{{id}}/items") for index in range(many)])
        count_nodes(table._root)
        return [steps(table, path) for path in ("/api/thing1/7/none", "/api/none/7/items", "/none" * 20)]

    assert measured(10) == measured(1000)


def test_a_table_holds_very_deep_paths() -> None:
    table = Table([entry("deep", "/{x}" + "/a" * 3000)])
    assert served(table, "/1" + "/a" * 3000) == "deep"
    assert served(table, "/1" + "/a" * 2999) == "none"


# Predicates


def test_methods_are_compared_as_they_are_written() -> None:
    table = Table([entry("get", "/a", methods={"GET"}), entry("all", "/b")])
    assert served(table, "/a", "GET") == "get"
    assert [served(table, "/a", method) for method in ("get", "HEAD", "POST", "")] == ["none"] * 4
    assert [served(table, "/b", method) for method in ("get", "HEAD", "BREW")] == ["all"] * 3


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.com", "apex"),
        ("www.example.com", "www"),
        ("shop.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("x.eu.example.com", "longer"),
        ("x.y.eu.example.com", "longer"),
        ("eu.example.com", "wild"),
        ("example.org", "none"),
        ("notexample.com", "none"),
        (".example.com", "none"),
        ("com", "none"),
        ("", "none"),
        ("[::1]", "v6"),
        ("a." * 5000 + "example.com", "wild"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/x", "/v/1"])
def test_an_exact_host_goes_before_the_longer_wildcard(host: str, name: str, path: str) -> None:
    hosts = {
        "apex": "example.com",
        "www": "www.example.com",
        "wild": "*.example.com",
        "longer": "*.eu.example.com",
        "v6": "[::1]",
    }
    table = Table(
        entry(f"{name}{shape}", shape, hosts=(host,))
        for name, host in hosts.items()
        for shape in ("/", "/x", "/v/{id}")
    )
    assert served(table, path, host=host).partition("/")[0] == name


def test_a_route_without_host_takes_what_others_leave() -> None:
    table = Table(
        [
            entry("all", "/a"),
            entry("some", "/a", hosts=("one.example", "*.two.example"), methods={"GET"}),
            entry("get", "/a", methods={"GET"}),
        ]
    )
    assert served(table, "/a", "GET", "one.example") == "some"
    assert served(table, "/a", "GET", "x.two.example") == "some"
    assert served(table, "/a", "GET", "two.example") == "get"
    assert served(table, "/a", "PUT", "one.example") == "all"
    assert served(table, "/a", "PUT", "x.two.example") == "all"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, "plain"),
        ({"x_version": "2"}, "two"),
        ({"x_version": "3"}, "any"),
        ({"x_version": ""}, "any"),
        ({"x_version": "2", "x_beta": "1"}, "both"),
        ({"x_beta": "1"}, "plain"),
        ({"x_version": "2 "}, "any"),
    ],
)
def test_headers_decide_the_more_the_earlier(headers: dict[str, str], name: str) -> None:
    table = Table(
        [
            entry("any", "/a", headers=((b"x-version", b"*"),)),
            entry("both", "/a", headers=((b"x-version", b"2"), (b"x-beta", b"1"))),
            entry("plain", "/a"),
            entry("two", "/a", headers=((b"x-version", b"2"),)),
        ]
    )
    assert served(table, "/a", scope=request(**headers)) == name


def test_any_line_of_a_header_may_have_the_value() -> None:
    table = Table([entry("two", "/a", headers=((b"x", b"2"),))])
    lines = {"query_string": b"", "headers": [(b"x", b"1"), (b"x", b"2")]}
    assert served(table, "/a", scope=lines) == "two"
    assert served(table, "/a", scope={"query_string": b"", "headers": [(b"x", b"1, 2")]}) == "none"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("", "none"),
        ("v=1", "one"),
        ("v=%31", "one"),
        ("%76=1", "one"),
        ("v=2", "any"),
        ("v=", "any"),
        ("v", "any"),
        ("v=2&v=1", "one"),
        ("v=a+b", "space"),
        ("v=caf%C3%A9", "accent"),
        ("v=café", "accent"),
        ("v=%ff", "any"),
        ("w=v&x=1", "none"),
        ("w=1;v=1", "none"),
    ],
)
def test_query_parameters_are_decoded_before_they_are_compared(query: str, name: str) -> None:
    values = {"one": "1", "any": "*", "space": "a b", "accent": "café"}
    table = Table(entry(name, "/a", query=(("v", value),)) for name, value in values.items())
    assert served(table, "/a", scope=request(query)) == name


def test_priority_decides_among_routes_of_one_path_only() -> None:
    table = Table(
        [
            entry("low", "/a", hosts=("h",), headers=((b"x", b"1"),), methods={"GET"}),
            entry("high", "/a", priority=1),
            entry("lowest", "/b/c", priority=-1),
            entry("wild", "/b/*", priority=9),
        ]
    )
    assert served(table, "/a", scope=request(x="1")) == "high"
    assert served(table, "/b/c") == "lowest"


def test_the_whole_order_of_routes_of_one_path() -> None:
    options: list[dict[str, Any]] = [
        {"priority": 1},
        {"hosts": ("a.b.c",)},
        {"hosts": ("*.b.c",), "headers": ((b"x", b"1"),)},
        {"hosts": ("*.b.c",)},
        {"hosts": ("*.c",), "methods": {"GET"}},
        {"hosts": ("*.c",)},
        {"headers": ((b"x", b"1"),), "query": (("q", "1"),)},
        {"headers": ((b"x", b"1"), (b"y", b"*"))},
        {"headers": ((b"x", b"*"), (b"y", b"*"))},
        {"query": (("q", "1"),), "methods": {"GET"}},
        {"query": (("q", "1"),)},
        {"headers": ((b"x", b"1"),)},
        {"query": (("q", "*"),)},
        {"methods": {"GET"}},
        {},
    ]
    # Names run against the order; where all else is equal (10 and 11) they decide.
    names = [f"{99 - index}" for index in range(len(options))]
    names[10], names[11] = names[11], names[10]
    entries = [entry(name, "/a/{x}", **more) for name, more in zip(names, options, strict=True)]
    random.Random(1).shuffle(entries)
    order = Place(entries).order("a.b.c")
    assert [found.name for found in order.serving("GET")] == names


def test_the_order_in_the_file_decides_nothing() -> None:
    dice = random.Random(16)
    entries = [
        entry(f"r{index}", path, methods=methods, hosts=hosts, headers=headers)
        for index, (path, methods, hosts, headers) in enumerate(
            itertools.product(
                ["/a", "/a/{x}", "/a/*", "/{x}/b", "/*", "/a/b"],
                [(), ("GET",), ("POST", "PUT")],
                [(), ("h.example",), ("*.example",)],
                [(), ((b"x", b"1"),), ((b"y", b"*"),)],
            )
        )
    ]
    asked = [
        (path, method, host, scope)
        for path in ("/a", "/a/b", "/a/c", "/b/b", "/c/d/e", "/a/")
        for method in ("GET", "PUT", "DELETE")
        for host in ("h.example", "i.example", "other")
        for scope in (request(), request(x="1"), request(x="1", y="2"))
    ]
    decisions = set()
    for _ in range(100):
        dice.shuffle(entries)
        table = Table(entries)
        decisions.add(tuple(served(table, *question) for question in asked))
    assert len(decisions) == 1


# 405


def test_allowed_names_the_methods_of_all_routes_that_fit_otherwise() -> None:
    table = Table(
        [
            entry("get", "/a/b", methods={"GET"}),
            entry("put", "/a/{x}", methods={"PUT", "PATCH"}),
            entry("delete", "/a/*", methods={"DELETE"}, hosts=("h",)),
            entry("post", "/a/b", methods={"POST"}, headers=((b"x", b"1"),)),
        ]
    )
    assert table.match("OPTIONS", "h", "/a/b", request()) is None
    assert table.allowed("h", "/a/b", request()) == {"GET", "PUT", "PATCH", "DELETE"}
    assert table.allowed("other", "/a/b", request(x="1")) == {"GET", "PUT", "PATCH", "POST"}
    assert table.allowed("other", "/a/c", request()) == {"PUT", "PATCH"}
    assert table.allowed("h", "/nowhere", request()) == frozenset()


def test_an_empty_table_serves_nothing() -> None:
    table: Table[str] = Table([])
    assert served(table, "/") == "none"
    assert table.allowed("h", "/", request()) == frozenset()
    assert table.shadowed() == ()


# A slow matcher that is obviously right has to agree.


def fits_path(pattern: Pattern, path: str) -> tuple[int, ...] | None:
    """Whether a path fits, and how well: 0 a literal, 1 a variable, 2 the rest; smaller is better."""
    segments = path.split("/")[1:]
    wanted = pattern.segments
    if len(segments) < len(wanted) or (len(segments) > len(wanted) and not pattern.rest):
        return None
    for segment, literal in zip(segments, wanted, strict=False):
        if segment != literal and (literal is not None or not segment):
            return None
    return tuple(int(literal is None) for literal in wanted) + (2,) * pattern.rest


def closeness(found: Entry[str], host: str) -> tuple[int, int] | None:
    if not found.hosts:
        return 2, 0
    near = [(0, 0) for name in found.hosts if name == host]
    near += [(1, -len(name)) for name in found.hosts if name[0] == "*" and host.endswith(name[1:])]
    return min(near, default=None)


def fits_predicates(found: Entry[str], scope: dict[str, Any]) -> bool:
    query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
    return all(
        any(key == name and value in (b"*", other) for key, other in scope["headers"])
        for name, value in found.headers
    ) and all(
        any(key == name and value in ("*", other) for key, other in query) for name, value in found.query
    )


def choose(
    entries: list[Entry[str]], method: str, host: str, path: str, scope: dict[str, Any]
) -> Entry[str] | None:
    fitting = []
    for found in entries:
        quality, near = fits_path(found.pattern, path), closeness(found, host)
        if quality is None or near is None or not fits_predicates(found, scope):
            continue
        if found.methods and method not in found.methods:
            continue
        values = [value for _, value in (*found.headers, *found.query)]
        exact = [value for value in values if value not in ("*", b"*")]
        rank = (-found.priority, near, -len(values), -len(exact), not found.methods, found.name)
        fitting.append((quality, rank, found))
    return min(fitting, key=lambda item: item[:2])[2] if fitting else None


route_paths = st.tuples(
    st.lists(st.sampled_from(["a", "b", "{%d}", "{%d}"]), min_size=1, max_size=4),
    st.sampled_from(["", "/*", "/"]),
).map(
    lambda parts: (
        "/" + "/".join(part.replace("%d", f"v{i}") for i, part in enumerate(parts[0])) + parts[1]
        if parts[0]
        else parts[1]
    )
)
methods = st.frozensets(st.sampled_from(["GET", "PUT"]), max_size=2)
hosts = st.lists(st.sampled_from(["x.y.z", "y.z", "*.y.z", "*.z"]), max_size=2, unique=True).map(tuple)
header_pairs = st.lists(
    st.sampled_from([(b"h", b"1"), (b"h", b"*"), (b"i", b"1")]), max_size=2, unique=True
).map(tuple)
query_pairs = st.lists(st.sampled_from([("q", "1"), ("q", "*")]), max_size=1).map(tuple)
tables = st.lists(
    st.tuples(
        route_paths | st.just("/*") | st.just("/"),
        methods,
        hosts,
        header_pairs,
        query_pairs,
        st.sampled_from([0, 0, 0, 1]),
    ),
    max_size=14,
)
questions = st.tuples(
    st.sampled_from(["GET", "PUT", "BREW"]),
    st.sampled_from(["x.y.z", "w.y.z", "y.z", "q.z", "other"]),
    st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5).map(
        lambda parts: "/" + "/".join(parts)
    ),
    st.sampled_from([{}, {"h": "1"}, {"h": "2"}, {"h": "1", "i": "1"}]),
    st.sampled_from(["", "q=1", "q=2"]),
)


@settings(max_examples=500, deadline=None)
@given(tables, st.lists(questions, min_size=10, max_size=20))
def test_a_slow_and_obvious_matcher_agrees(
    described: list[tuple[Any, ...]], asked: list[tuple[Any, ...]]
) -> None:
    entries: list[Entry[str]] = []
    for index, (path, *options) in enumerate(described):
        names = ("methods", "hosts", "headers", "query", "priority")
        new = entry(f"r{index}", path, **dict(zip(names, options, strict=True)))
        if not list(conflicts([*entries, new])):
            entries.append(new)
    table = Table(entries)
    unreachable = {problem.where.removeprefix("route ") for problem in table.shadowed()}
    for method, host, path, headers, query in asked:
        scope = request(query, **headers)
        found, expected = table.match(method, host, path, scope), choose(entries, method, host, path, scope)
        assert (found[0] if found else None) is expected
        if found is not None:
            assert found[0].name not in unreachable
            assert_fills(found[0].pattern, found[1], path)


def assert_fills(pattern: Pattern, params: dict[str, str], path: str) -> None:
    """The variables, put back into the pattern, give the path."""
    text = pattern.text.removesuffix("/*") + ("/" + params["*"] if pattern.rest else "")
    filled = re.sub(r"\{(\w+)\}", lambda name: params[name[1]], text)
    assert filled == path or (pattern.rest and filled == path + "/")
    assert set(params) == set(pattern.variables)


# The page of the docs


def documented() -> tuple[GatewayConfig, list[list[str]]]:
    text = DOCS.read_text()
    (document,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    table = text.partition("| request | route | variables |\n|---|---|---|\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return GatewayConfig.model_validate(yaml.safe_load(document)), rows


def answer(config: GatewayConfig, question: str) -> tuple[str, str]:
    """The second and third column for the first one."""
    method, target, header = re.fullmatch(r"`(\w+) ([^`]+)`(?: with `([^`]+)`)?", question).groups()  # type: ignore[union-attr]
    host, path = re.fullmatch(r"(?://([^/]+))?(/.*)", target).groups()  # type: ignore[union-attr]
    path, _, query = path.partition("?")
    name, _, value = (header or "").partition(": ")
    scope = request(query, **({name: value} if name else {}))
    table = Table(
        entry(
            route.name,
            route.path,
            methods=route.methods,
            hosts=route.host,
            headers=tuple((name.encode(), value.encode()) for name, value in route.headers),
            query=route.query,
            priority=route.priority,
        )
        for route in config.routes
    )
    assert table.shadowed() == ()
    try:
        path = canonical(config.paths)(path.encode())
    except Ambiguous as error:
        return f"400, {error.reason}", ""
    if found := table.match(method, host or "h", path, scope):
        return found[0].name, ", ".join(f"{name}={value}" for name, value in found[1].items())
    allowed = table.allowed(host or "h", path, scope)
    return (f"405, Allow: {', '.join(sorted(allowed))}" if allowed else "404"), ""


def test_the_example_of_the_docs_decides_as_its_table_says() -> None:
    config, rows = documented()
    assert len(rows) > 15
    assert [[row[0], *answer(config, row[0])] for row in rows] == rows
