import json
import os
from pathlib import Path
from types import MappingProxyType

import pytest

from asgi_gateway.config import GatewayConfig, Route, Upstream, Use
from asgi_gateway.errors import ConfigError, Problem
from asgi_gateway.loading import load, locate, parse
from asgi_gateway.loading.yaml12 import read_yaml
from asgi_gateway.plugins import Plugins, suggestion
from tests.sample import Hello, Plugin, Ration, refused, told, write

YAML = """
upstreams:
  orders: {targets: ["http://a:9001", {url: "http://b:9002", weight: 2}], timeout: {total: 3s}}
consumers: [{name: acme, keys: ["${ACME_KEY}"]}]
components: [hello]
routes:
  - name: orders
    path: /orders/{id}
    methods: [get, POST]
    host: app.example.com
    upstream: orders
    headers: {x-beta: "1"}
    components:
      - ration: {limit: 100/minute, mode: report, when: {method: [POST]}}
"""
TOML = """
components = ["hello"]
consumers = [{name = "acme", keys = ["${ACME_KEY}"]}]
[upstreams.orders]
targets = ["http://a:9001", {url = "http://b:9002", weight = 2}]
timeout.total = "3s"
[[routes]]
name = "orders"
path = "/orders/{id}"
methods = ["get", "POST"]
host = "app.example.com"
upstream = "orders"
headers = {x-beta = "1"}
[[routes.components]]
ration = {limit = "100/minute", mode = "report", when = {method = ["POST"]}}
"""
ENVIRON = {"ACME_KEY": "k-1"}


# The formats


def test_the_three_formats_say_the_same(tmp_path: Path) -> None:
    files = [
        write(tmp_path, "gateway.yaml", YAML),
        write(tmp_path, "gateway.YML", YAML),
        write(tmp_path, "gateway.json", json.dumps(read_yaml(YAML).data)),
        write(tmp_path, "gateway.toml", TOML),
    ]
    configs = [load(path, [Plugin()], environ=ENVIRON)[0] for path in files]
    assert all(config == configs[0] for config in configs)
    (route,) = configs[0].routes
    assert route.methods == ("GET", "POST")
    assert route.host == ("app.example.com",)
    assert route.headers == (("x-beta", "1"),)
    assert configs[0].upstreams["orders"].targets[0].url == "http://a:9001"
    assert configs[0].consumers[0].keys[0].get_secret_value() == "k-1"


def test_python_says_the_same_with_the_same_models(tmp_path: Path) -> None:
    loaded, _ = load(write(tmp_path, "gateway.yaml", YAML), [Plugin()], environ=ENVIRON)
    assert loaded == GatewayConfig(
        upstreams={
            "orders": Upstream(
                targets=["http://a:9001", {"url": "http://b:9002", "weight": 2}],
                timeout={"total": "3s"},
            )
        },
        consumers=[{"name": "acme", "keys": ["k-1"]}],
        components=[Hello()],
        routes=[
            Route(
                name="orders",
                path="/orders/{id}",
                methods=["GET", "POST"],
                host="app.example.com",
                upstream="orders",
                headers={"x-beta": "1"},
                components=[
                    Use(component=Ration(limit="100/minute"), mode="report", when={"method": ["POST"]})
                ],
            )
        ],
    )


def test_a_document_is_read_without_a_file() -> None:
    config, plugins = parse(read_yaml(YAML).data, [Plugin()], environ=ENVIRON)
    assert config.routes[0].components[0].component == Ration(limit="100/minute")
    assert plugins.components["hello"] is Hello


def test_a_document_may_hold_objects_and_other_mappings() -> None:
    document = MappingProxyType(
        {
            "upstreams": MappingProxyType({"orders": Upstream(targets=["http://a"])}),
            "routes": ({"name": "a", "path": "/", "upstream": "orders", "components": [Hello(), "hello"]},),
        }
    )
    config, _ = parse(document, [Plugin()])
    assert [use.component for use in config.routes[0].components] == [Hello(), Hello()]


def test_the_environment_of_the_process_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "k-2")
    config, _ = load(write(tmp_path, "gateway.yaml", YAML), [Plugin()])
    assert config.consumers[0].keys[0].get_secret_value() == "k-2"


# Files that are none


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.yaml", "", "the file is empty"),
        ("empty.json", " \n", "the file is empty"),
        ("comment.yaml", "# nothing\n", "must be a mapping (as in `routes: [...]`)"),
        ("list.yaml", "- 1\n", "1: must be a mapping (as in `routes: [...]`)"),
        ("list.json", "[1]", "1: must be a mapping (as in `routes: [...]`)"),
        ("latin.yaml", b"a: 1\nb: caf\xe9\n", "2: not UTF-8"),
        ("routes.ini", "[a]", "the name does not tell the format (it ends in .yaml, .yml, .json, .toml)"),
        ("gateway", "a: 1", "the name does not tell the format (it ends in .yaml, .yml, .json, .toml)"),
        (
            "half.json",
            '{"routes": [\n{"name": "a",',
            "2: not JSON: Expecting property name enclosed in double quotes",
        ),
        ("half.toml", 'a = 1\n[[routes]]\nname = "a', "3: not TOML: Unterminated string"),
        ("bad.toml", "a = 1\nb = \n", "2: not TOML: Invalid value"),
        ("twice.toml", "a = 1\na = 2\n", "2: not TOML: Cannot overwrite a value"),
        ("deep.json", "[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        ("deep.toml", "a = " + "[" * 100_000, "values are nested too deep"),
        ("twice.json", '{"a": 1,\n"a": 2}', "2: the key 'a' is there twice, first in line 1"),
        ("twice_tabs.json", '{"a": "\\ud83d\\ude00",\n"a": 2}', "the key 'a' is there twice"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    (problem,) = refused(write(tmp_path, name, content))
    assert problem.startswith(said)


def test_a_half_written_file_is_told(tmp_path: Path) -> None:
    (problem,) = told(tmp_path, YAML[:-4])
    assert problem == (
        "15: not YAML: while parsing a flow sequence, did not find expected ',' or ']' (it began in line 14)"
    )


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml") == ["cannot be read: No such file or directory"]
    assert refused(tmp_path) == ["cannot be read: Is a directory"]


def test_a_pipe_that_nobody_writes_into_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gateway.yaml")
    os.mkfifo(tmp_path / "secret")
    told = "cannot be read: it is a pipe or a device, not a file"
    assert refused(tmp_path / "gateway.yaml") == [told]
    document = f"""
consumers: [{{name: acme, keys: ["${{file:{tmp_path}/secret}}"]}}]
"""
    (problem,) = refused(write(tmp_path, "other.yaml", document))
    assert f"the file {tmp_path}/secret {told}" in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "gateway.yaml", YAML)
    path.chmod(0)
    assert refused(path) == ["cannot be read: Permission denied"]


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    config, _ = load(write(tmp_path, "gateway.json", b"\xef\xbb\xbf" + b'{"routes": []}'))
    assert config == GatewayConfig()


# Plugins


def test_the_plugins_section_is_read_first(tmp_path: Path) -> None:
    text = "routes: []\nplugins:\n  disable: [standrad]\ncomponents: [nobody]\nserver: {workers: '${NONE}'}\n"
    assert told(tmp_path, text) == [
        "2: plugins: no plugin is called 'standrad'" + installed("standrad"),
        "5: server.workers: the environment variable NONE is not set (set it, or write ${NONE:-default})",
    ]


def installed(name: str) -> str:
    hint = suggestion(name, Plugins.installed().names())
    return f" ({hint})" if hint else ""


def test_a_wrong_plugins_section_is_told_before_anything_is_imported(tmp_path: Path) -> None:
    text = "plugins: {disabel: [x], allow: standard}\ncomponents: [nobody]\n"
    assert told(tmp_path, text) == [
        "1: plugins.allow: must be a list",
        "1: plugins.disabel: unknown key (did you mean 'disable'?)",
    ]


# Problems that are found after a file was read


def test_problems_of_later_checks_get_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "gateway.yaml", YAML + "  - {name: b.c, path: /b, upstream: orders}\n")
    found = [
        Problem("a", "route orders"),
        Problem("b", "route orders: ration"),
        Problem("c", "route orders: ration: limit"),
        Problem("d", "route b.c"),
        Problem("e", "upstream orders"),
        Problem("f", "upstream nobody: hello"),
        Problem("g", "routes[0].components[0].ration.mode"),
        Problem("h", "upstreams.orders.timeout"),
        Problem("i", "components"),
        Problem("j", "something else"),
        Problem("k", "routes", file="other.yaml", line=7),
    ]
    located = locate(ConfigError(found), path).problems
    assert [problem.line for problem in located] == [7, 14, 14, 15, 3, 2, 14, 3, 5, 2, 7]
    assert [problem.what for problem in located] == list("abcdefghijk")
    assert {problem.file for problem in located} == {str(path), "other.yaml"}


def test_problems_stay_as_they_are_when_the_file_is_gone(tmp_path: Path) -> None:
    error = ConfigError(Problem("a", "route orders"))
    assert locate(error, tmp_path / "gone.yaml") is error
