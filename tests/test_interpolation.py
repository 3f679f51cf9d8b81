from pathlib import Path

import pytest
from pydantic import ValidationError, model_validator

from asgi_gateway.config import GatewayConfig
from asgi_gateway.consumers import Consumer
from asgi_gateway.errors import ConfigError
from asgi_gateway.loading import load, parse
from tests.sample import Hello, Offer, Plugin, told, write

TIME = "(write it with a unit, as in 250ms, 3s, 5m or 1h)"
SECRET = "c4nary-Value"
HIDDEN = "is not accepted; why is not shown, because it may tell what"


def filled(text: str, environ: dict[str, str]) -> str:
    config, _ = parse({"consumers": [{"name": "a", "keys": [text]}]}, environ=environ)
    return config.consumers[0].keys[0].get_secret_value()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("<${A}-${B}>", "<one-two>"),
        ("${NONE:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${A:-else}", "one"),
        ("x${NONE:-}", "x"),
        ("x${EMPTY}", "x"),
        ("${NONE:-a:b-c/d}", "a:b-c/d"),
        ("$${A}", "${A}"),
        ("$A {A} $ {A} $$", "$A {A} $ {A} $$"),
        ("$$${A}", "$${A}"),
        ("${TRICK}", "${A}"),
    ],
)
def test_variables_are_filled_in(text: str, value: str) -> None:
    assert filled(text, {"A": "one", "B": "two", "EMPTY": "", "TRICK": "${A}"}) == value


@pytest.mark.parametrize(
    ("content", "value"), [("s3", "s3"), ("s3\n", "s3"), ("s3\r\n", "s3"), ("s3\n\n", "s3\n"), ("ß\n", "ß")]
)
def test_a_secret_file_is_filled_in_without_its_last_line_end(
    tmp_path: Path, content: str, value: str
) -> None:
    path = write(tmp_path, "secret", content)
    assert filled(f"${{file:{path}}}", {}) == value


def test_only_strings_are_filled_in_and_keys_are_not(tmp_path: Path) -> None:
    text = (
        "routes:\n- {name: a, path: /, upstream: b, headers: {'${K}': '${V}'}}\nupstreams: {b: {asgi: 'a:b'}}"
    )
    config, _ = load(write(tmp_path, "gateway.yaml", text), environ={"V": "v"})
    assert config.routes[0].headers == (("${K}", "v"),)


def test_what_is_filled_in_may_be_a_number_or_a_switch(tmp_path: Path) -> None:
    text = "server: {workers: '${WORKERS}', grace: '${GRACE}'}\nupstreams: {b: {asgi: 'a:b'}}\n"
    text += "routes: [{name: a, path: /, upstream: b, enabled: '${ON}'}]"
    config, _ = load(
        write(tmp_path, "gateway.yaml", text), environ={"WORKERS": "4", "GRACE": "5s", "ON": "false"}
    )
    assert (config.server.workers, config.server.grace, config.routes[0].enabled) == (4, 5.0, False)


def test_everything_that_cannot_be_filled_in_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    latin, big = write(tmp_path, "latin", b"\xe9"), write(tmp_path, "big", "x" * 1024 * 1024 + "y")
    text = f"""
consumers:
  - name: acme
    keys:
      - ${{ACME_KEY}}
      - ${{file:/nowhere}}
      - ${{file:{tmp_path}}}
      - ${{file:{latin}}}
      - ${{file:{big}}}
      - "${{"
      - ${{two words}}
      - ${{}}
      - ${{1ST}}
server: {{workers: "${{WORKERS}}"}}
"""
    hint = "(write ${NAME}, ${NAME:-default} or ${file:/path}; $${ is a plain ${)"
    mounted = "(is the secret mounted?)"
    assert told(tmp_path, text) == [
        "5: consumers[0].keys[0]: the environment variable ACME_KEY is not set"
        " (set it, or write ${ACME_KEY:-default})",
        f"6: consumers[0].keys[1]: the file /nowhere cannot be read: No such file or directory {mounted}",
        f"7: consumers[0].keys[2]: the file {tmp_path} cannot be read: Is a directory {mounted}",
        f"8: consumers[0].keys[3]: the file {latin} is not UTF-8 (a secret is text)",
        f"9: consumers[0].keys[4]: the file {big} has more than 1,048,576 bytes (is it the right one?)",
        f"10: consumers[0].keys[5]: a ${{ that refers to nothing {hint}",
        f"11: consumers[0].keys[6]: a ${{ that refers to nothing {hint}",
        f"12: consumers[0].keys[7]: a ${{ that refers to nothing {hint}",
        f"13: consumers[0].keys[8]: a ${{ that refers to nothing {hint}",
        "14: server.workers: the environment variable WORKERS is not set"
        " (set it, or write ${WORKERS:-default})",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server: {grace: '${S}'}", f"1: server.grace: '${{S}}' is not a time {TIME}"),
        ("server: {grace: '${S}s'}", f"1: server.grace: '${{S}}s' is not a time {TIME}"),
        (
            "server: {listen: '${S}'}",
            "1: server.listen: '${S}' is not an address (write host:port, [::1]:port or unix:/path)",
        ),
        ("server: {workers: '${S}'}", "1: server.workers: must be a whole number"),
        ("server: '${S}'", "1: server: must be a mapping"),
        ("paths: {semicolon: '${S}'}", "1: paths.semicolon: must be 'reject' or 'keep'"),
        (
            "upstreams: {a: {targets: ['${S}']}}",
            "1: upstreams.a.targets[0]: '${S}' is not a target: write http://host:port, https://host:port"
            " or unix:/path",
        ),
        (
            "upstreams: {a: {targets: ['http://${S}/x']}}",
            "1: upstreams.a.targets[0]: 'http://${S}/x': a target has no path;"
            " say strip_prefix or rewrite on the route",
        ),
        (
            "upstreams: {a: {targets: ['http://u:${S}@h/x']}}",
            "1: upstreams.a.targets[0]: a target holds no user and password"
            " (set the header with a component)",
        ),
        (
            "upstreams: {a: {asgi: 'a:b'}}\nroutes: [{name: x, path: /, upstream: '${S}'}]",
            "2: routes[0].upstream: no upstream is called '${S}'",
        ),
        ("components: ['${S}']", "1: components[0]: no component is called '${S}'"),
        (
            "consumers: [{name: a, keys: ['${S}']}, {name: b, keys: ['${S}']}]",
            "1: consumers[1].keys[0]: the same key as consumers[0]",
        ),
        (
            "components: [login: {password: '${S}', realm: 'a ${S}'}]",
            f"1: components[0].login.realm: {HIDDEN} 'a ${{S}}' stands for",
        ),
        ("components: [hello: '${S}']", "1: components[0].hello: must be a mapping (its options)"),
    ],
)
def test_what_was_filled_in_is_never_shown(tmp_path: Path, text: str, problem: str) -> None:
    assert told(tmp_path, text, {"S": SECRET}) == [problem]


def test_what_a_file_holds_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    text = f"server: {{grace: '${{file:{secret}}}'}}"
    assert told(tmp_path, text) == [f"1: server.grace: '${{file:{secret}}}' is not a time {TIME}"]


def test_a_secret_is_never_shown_by_a_component_that_shows_its_options(tmp_path: Path) -> None:
    text = "components: [login: {password: '${S}'}]"
    assert told(tmp_path, text, {"S": "hunter2"}) == [
        f"1: components[0].login.password: {HIDDEN} '${{S}}' stands for"
    ]


def test_a_secret_is_never_shown_by_a_field_beside_it(tmp_path: Path) -> None:
    text = "components: [login: {password: '${S}', realm: leak}, login: {password: plain, realm: two words}]"
    assert told(tmp_path, text, {"S": SECRET}) == [
        f"1: components[0].login.realm: {HIDDEN} '${{S}}' stands for",
        "1: components[1].login.realm: the realm two words is more than one word",
    ]


def test_a_validator_that_looks_at_everything_shows_nothing_that_was_filled_in(tmp_path: Path) -> None:
    class Gossip(Hello, name="gossip"):
        """Tells everything."""

        @model_validator(mode="after")
        def tell(self) -> "Gossip":
            raise ValueError(f"{self.greeting.upper()} is not polite")

    text = "components: [gossip: {greeting: 'x ${S}'}, gossip: {greeting: hey}]"
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, [Plugin(), Offer(Gossip)], environ={"S": SECRET})
    assert [problem.what for problem in caught.value.problems] == [
        f"{HIDDEN} 'x ${{S}}' stands for",
        "HEY is not polite",
    ]
    assert SECRET not in repr(caught.getrepr(showlocals=False))


def test_secrets_are_not_shown_by_the_models_themselves() -> None:
    for broken in ({"consumers": [{"name": "a", "keys": SECRET}]}, {"server": {"listen": 7, "x": SECRET}}):
        with pytest.raises(ValidationError) as caught:
            GatewayConfig.model_validate(broken)
        assert SECRET not in str(caught.value)
    config = GatewayConfig(consumers=[Consumer(name="a", keys=[SECRET])])
    assert SECRET not in repr(config) + str(config.model_dump()) + config.model_dump_json()
