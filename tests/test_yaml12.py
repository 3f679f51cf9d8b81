from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.loading import load, parse
from asgi_gateway.loading.yaml12 import read_yaml
from tests.sample import Plugin, refused, told, write


def plain(text: str) -> Any:
    return read_yaml(text).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("22:22", "22:22"),
        ("2026-01-01", "2026-01-01"),
        ("0777", 777),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("-5", -5),
        ("+5", 5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.2.3", "1.2.3"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("-", None),
        ("~", None),
        ("null", None),
        ("", None),
        ("Null", None),
        ("nothing", "nothing"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!int 1", 1),
        ("!!float 1", 1.0),
        ("!!null null", None),
        ("=", "="),
    ],
)
def test_scalars_have_the_types_of_yaml_1_2(text: str, value: object) -> None:
    found = plain(f"a: {text}" if text != "-" else "a:")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "3: the key 'a' is there twice, first in line 1"),
        ("a: {b: 1,\n b: 2}", "2: the key 'b' is there twice, first in line 1"),
        ("404: x", "1: 404 is not a string (every key is one: put it in quotes)"),
        ("a: {true: x}", "1: true is not a string (every key is one: put it in quotes)"),
        ("? [a]\n: x", "1: this is not a string (every key is one: put it in quotes)"),
        ("a: 1\n<<: {b: 1}", "2: YAML 1.2 has no merge keys (share components with `policies`)"),
        ("a: !!python/object:os.system {}", "1: the tag !!python/object:os.system means nothing here"),
        ("a: !secret x", "1: the tag !secret means nothing here"),
        ("a: !!int x", "1: the tag !!int means nothing here"),
        ("a: !!set {x}", "1: the tag !!set means nothing here"),
        ("a: 1\n---\nb: 1", "2: a second document begins here (a configuration is one document)"),
        ("a: *b", "1: nothing is anchored as &b (a value that begins with * needs quotes)"),
        ("a: &b [1, *b]", "1: an alias stands inside of what it stands for"),
        ("a: \x07", "1: not YAML: control characters are not allowed"),
        (
            "a: 1\n\tb: 2",
            "2: not YAML: while scanning a plain scalar, found a tab character that violates indentation",
        ),
        ("a: b: c", "1: not YAML: mapping values are not allowed in this context"),
        ("%YAML 2.0\n---\na: 1", "1: not YAML: found incompatible YAML document"),
        ("- " * 5000, "1: values are nested more than 100 deep"),
        ("[" * 5000, "1: values are nested more than 100 deep"),
    ],
)
def test_yaml_is_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = told(tmp_path, text)
    assert problem.startswith(said)


def test_all_duplicate_keys_are_told_at_once(tmp_path: Path) -> None:
    text = "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n5: 1\n"
    assert told(tmp_path, text) == [
        "4: the key 'c' is there twice, first in line 3",
        "5: the key 'a' is there twice, first in line 1",
        "6: 5 is not a string (every key is one: put it in quotes)",
    ]


def test_aliases_stand_for_what_was_anchored() -> None:
    assert plain("a: &x [1, {b: &y 2}]\nc: *x\nd: *y") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": 2}


def test_a_billion_laughs_are_not_laughed(tmp_path: Path) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert told(tmp_path, "\n".join(lines)) == ["5: aliases stand for more than 100,000 values"]


def test_aliases_cannot_nest_deeper_than_anything_else(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} {'[' * 30}*a{n - 1}{']' * 30}" for n in range(1, 10)]
    assert told(tmp_path, "\n".join(lines)) == ["5: values are nested more than 100 deep"]


def test_deep_json_and_documents_are_refused(tmp_path: Path) -> None:
    text = '{"probes": ' + "[" * 200 + "]" * 200 + "}"
    (problem,) = refused(write(tmp_path, "gateway.json", text))
    assert problem == "probes: values are nested more than 100 deep"
    document: dict[str, Any] = {}
    document["probes"] = document
    with pytest.raises(ConfigError, match="probes: values are nested more than 100 deep"):
        parse(document)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: .nan"),
        ("b.yaml", "a: -.inf"),
        ("c.yaml", "a: 1e999"),
        ("d.json", '{"a": NaN}'),
        ("e.toml", "a = inf"),
    ],
)
def test_numbers_are_finite(tmp_path: Path, name: str, text: str) -> None:
    assert refused(write(tmp_path, name, text))[0] == "1: a: must be a finite number"


def test_a_number_without_end_is_no_number(tmp_path: Path) -> None:
    assert plain("a: " + "9" * 5000) == {"a": "9" * 5000}
    (problem,) = refused(write(tmp_path, "gateway.json", '{"a": ' + "9" * 5000 + "}"))
    assert problem.startswith("not JSON: Exceeds the limit")


def test_two_thousand_routes_are_read(tmp_path: Path) -> None:
    entry = "- {{name: r{0}, path: '/{0}', upstream: a, components: [hello, ration: {{limit: 5/second}}]}}\n"
    text = "upstreams: {a: {asgi: 'a:b'}}\nroutes:\n" + "".join(entry.format(n) for n in range(2000))
    config, _ = load(write(tmp_path, "gateway.yaml", text), [Plugin()])
    assert len(config.routes) == 2000
    assert config.routes[1999].name == "r1999"


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,?<~0.1 \n\t", max_size=60))
def test_any_text_is_yaml_or_refused_with_reasons(text: str) -> None:
    found: tuple[Problem, ...] = ()
    try:
        read_yaml(text)
    except ConfigError as error:
        found = error.problems
    assert all(problem.line for problem in found)
