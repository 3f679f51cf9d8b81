import re
from collections.abc import Callable

import pytest

from asgi_gateway import paths, patterns
from asgi_gateway.config import Paths
from asgi_gateway.patterns import Pattern


def test_an_exact_path_has_no_variables() -> None:
    pattern = Pattern("/orders/new")
    assert (pattern.path, pattern.segments, pattern.variables, pattern.rest) == (
        "/orders/new",
        ("orders", "new"),
        (),
        False,
    )
    assert repr(pattern) == "Pattern('/orders/new')"


def test_variables_stand_for_segments() -> None:
    pattern = Pattern("/orders/{id}/items/{item}")
    assert (pattern.path, pattern.segments) == ("", ("orders", None, "items", None))
    assert pattern.variables == ("id", "item")
    assert pattern.params(["", "orders", "a%2Fb", "items", "7"]) == {"id": "a%2Fb", "item": "7"}


@pytest.mark.parametrize(
    ("path", "rest"), [("/files/7", ""), ("/files/7/", ""), ("/files/7/a", "a"), ("/files/7/a//b/", "a//b/")]
)
def test_a_wildcard_takes_any_rest(path: str, rest: str) -> None:
    pattern = Pattern("/files/{id}/*")
    assert (pattern.segments, pattern.rest, pattern.variables) == (("files", None), True, ("id", "*"))
    assert pattern.params(path.split("/")) == {"id": "7", "*": rest}


def test_a_wildcard_may_stand_alone() -> None:
    assert Pattern("/*").shape == ((), True)
    assert Pattern("/").shape == (("",), False)
    assert Pattern("/").path == "/"


def test_the_shape_does_not_depend_on_names() -> None:
    assert Pattern("/a/{id}").shape == Pattern("/a/{number}").shape
    shapes = {Pattern(text).shape for text in ("/a/{x}", "/a/x", "/a/*", "/a/{x}/*", "/a/{x}/", "/a", "/a/")}
    assert len(shapes) == 7


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/café", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%61dmin", "/admin"),
        ("/a b", "/a%20b"),
        ("/100%25", "/100%25"),
        ("/a:b", "/a:b"),
        ("/%2A", "/*"),
        ("/%7Bid%7D", "/%7Bid%7D"),
    ],
)
def test_literals_are_spelt_as_requests_are(text: str, path: str) -> None:
    assert Pattern(text).path == path
    assert Pattern(text + "/{id}").segments == (*path.split("/")[1:], None)
    assert Pattern(text + "/*").segments == tuple(path.split("/")[1:])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "begins with a slash"),
        ("orders", "begins with a slash"),
        ("{id}", "begins with a slash"),
        ("*", "only at the end, after a slash"),
        ("/a*", "only at the end, after a slash"),
        ("/*/a", "only at the end, after a slash"),
        ("/*/*", "only at the end, after a slash"),
        ("/a-{id}", "a name that stands for a whole segment, as in /orders/{id}"),
        ("/{id}.json", "whole segment"),
        ("/{}", "whole segment"),
        ("/{a b}", "whole segment"),
        ("/{1}", "whole segment"),
        ("/{*}", "whole segment"),
        ("/{a}{b}", "whole segment"),
        ("/a}", "%7D"),
        ("/{id}/x/{id}", "two variables have the same name"),
        ("/a?b=c", "query: {name: value}"),
        ("/a//b", "paths.double_slash"),
        ("//*", "paths.double_slash"),
        ("/a/../b", "paths.dot_segments"),
        ("/{id}/%2e%2E", "paths.dot_segments"),
        ("/a%2Fb", "paths.encoded_slash"),
        ("/a;b", "paths.semicolon"),
        ("/a\\b", "paths.backslash"),
        ("/a%0ab", "control character"),
        ("/a%zz", "two hexadecimal digits"),
    ],
)
def test_a_path_that_no_route_can_have_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        Pattern(text)


def test_a_route_may_hold_what_the_policy_keeps() -> None:
    keep = Paths(double_slash="keep", encoded_slash="keep", semicolon="keep", backslash="keep")
    assert Pattern("/a%2fb//{id}/x", keep).segments == ("a%2Fb", "", None, "x")
    assert Pattern("/a;b\\c", keep).path == "/a;b%5Cc"
    assert Pattern("//*", keep).shape == (("",), True)


@pytest.mark.parametrize("text", ["/a/../b", "/a//b", "/a%2Fb"])
def test_a_route_holds_nothing_that_the_policy_takes_away(text: str) -> None:
    changed = Paths(dot_segments="resolve", double_slash="merge", encoded_slash="decode")
    with pytest.raises(ValueError, match="matches no request"):
        Pattern(text, changed)


def test_the_spelling_of_a_policy_is_found_once_for_all_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def canonical(policy: Paths) -> Callable[[bytes], str]:
        found.append(policy)
        return paths.canonical(policy)

    monkeypatch.setattr(patterns, "canonical", canonical)
    patterns.speller.cache_clear()
    for number in range(100):
        Pattern(f"/route-{number}/{{id}}", Paths(semicolon="keep"))
    assert len(found) == 1
