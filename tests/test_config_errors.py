"""What somebody is told who made a mistake. Most cases stand in config_errors.md."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_gateway.config import GatewayConfig, PoolConfig, Route, Server, Upstream, Use, When
from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.loading import load, parse
from tests.sample import Plugin, told

CASE = re.compile(r"^## (.+?)\n\n```yaml\n(.*?\n)```\n\n```text\n(.*?\n)```$", re.MULTILINE | re.DOTALL)
CASES = {
    name: (text, problems)
    for name, text, problems in CASE.findall(Path(__file__).with_name("config_errors.md").read_text())
}


@pytest.mark.parametrize("case", CASES)
def test_everything_that_is_wrong_is_told_with_its_place(tmp_path: Path, case: str) -> None:
    text, problems = CASES[case]
    assert told(tmp_path, text) == problems.splitlines()


def test_a_document_without_a_file_is_told_without_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"server": {"workers": 0}, "components": ["helo"]}, [Plugin()])
    assert str(caught.value).splitlines() == [
        "server.workers: must be at least 1",
        "components[0]: no component is called 'helo' (did you mean 'hello'?)",
    ]


def test_json_and_toml_are_told_in_the_same_words(tmp_path: Path) -> None:
    json, toml = tmp_path / "gateway.json", tmp_path / "gateway.toml"
    json.write_text('{"server": {\n  "workers": 0},\n "components": [\n  {"ration": {"limt": 1}}]}')
    toml.write_text("[server]\nworkers = 0\n[[components]]\n[components.ration]\nlimt = 1\n")
    problems = [
        ("server.workers", "must be at least 1", 2, 2),
        ("components[0].ration.limit", "is missing", 4, 4),
        ("components[0].ration.limt", "unknown key", 4, 5),
    ]
    for path, line in ((json, 2), (toml, 3)):
        with pytest.raises(ConfigError) as caught:
            load(path, [Plugin()])
        assert [(p.where, p.what, p.line) for p in caught.value.problems] == [
            (problem[0], problem[1], problem[line]) for problem in problems
        ]


def test_a_key_of_toml_that_cannot_be_found_has_the_line_of_what_is_around_it(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        """
upstreams."a.b" = {asgi = "a:b", timeout = {total = 3}}
[[routes]]
name = 'one'
path = "/"
upstream = "a.b"
[[routes]]
name = "two"
path = "/two"
upstream = "c"
components = [
  "helo",
]
"""
    )
    with pytest.raises(ConfigError) as caught:
        load(path, [Plugin()])
    assert [(problem.where, problem.line) for problem in caught.value.problems] == [
        ("upstreams.a.b.timeout.total", 2),
        ("routes[1].upstream", 10),
        ("routes[1].components[0]", 11),
    ]


KEYS = sorted(
    {
        key
        for model in (Route, Server, Upstream, Use, When, Consumer, PoolConfig)
        for key in model.model_fields
    }
    | {"hello", "ration", "login", "broken", "bus", "limit", "channel", "tiers", "cost", "password", "realm"}
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*KEYS, "3s", "1KiB", "1/second", "http://a", "a:b", "/", "${A}", "${B}", "$${", "${"]),
)
documents = st.dictionaries(
    st.sampled_from(list(GatewayConfig.model_fields)),
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=30,
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents.filter(lambda document: "plugins" not in document))
def test_any_document_is_read_or_refused_with_reasons(document: dict[str, Any]) -> None:
    found: tuple[Problem, ...] = ()
    try:
        parse(document, [Plugin()], environ={"A": "c4nary"})
    except ConfigError as error:
        found = error.problems
    assert all(problem.what and problem.where for problem in found)
    assert "c4nary" not in str(ConfigError(found))
