"""A cookie that brings callers back, and leads to nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_gateway.asgi import Message, Scope
from asgi_gateway.call import CALL
from asgi_gateway.exchange import EXCHANGE
from asgi_gateway.upstream import Pool, Target
from tests.upstream.kit import pool, request, targets


def asked(made: Pool, scope: Scope, started: bool = True, avoid: Sequence[Target] = ()) -> tuple[Target, str]:
    """Who is asked, and the cookie that the caller gets."""
    call = scope[CALL]
    target = made.pick(scope, avoid)
    call.attempts.append(target)
    call.status = 200 if started else 0
    message: Message = {"type": "http.response.start", "status": 200, "headers": []}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope[EXCHANGE]._send = send
    scope[EXCHANGE].send(message).close()
    lines = [value.decode() for name, value in message["headers"] if name == b"set-cookie"]
    assert len(lines) <= 1
    return target, "".join(lines)


def value(line: str) -> str:
    return line.partition("; ")[0]


def test_a_cookie_brings_a_caller_back() -> None:
    made = pool(these := targets(5), sticky={}, balancer="random")
    for _ in range(20):
        target, line = asked(made, request())
        name, _, text = value(line).partition("=")
        assert (name, len(text)) == ("sticky_up", 32)
        assert line.partition("; ")[2] == "Path=/; HttpOnly; SameSite=Lax"
        assert {asked(made, request("", ("cookie", f"a=b; {value(line)}"))) for _ in range(10)} == {
            (target, "")
        }
    assert target in these


def test_options_of_the_cookie_are_kept() -> None:
    made = pool(targets(2), sticky={"cookie": "where", "max_age": "1h"})
    _, line = asked(made, request(scheme="https"))
    assert line.startswith("where=")
    assert line.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")


def test_other_processes_and_a_reload_read_the_same_cookie_other_secrets_do_not() -> None:
    target, line = asked(pool(targets(3), sticky={"secret": "s"}), request())
    scope = ("", ("cookie", value(line)))
    again, none = asked(pool(targets(3), sticky={"secret": "s"}, seed=9), request(*scope))
    assert (again.name, none) == (target.name, "")
    _, other = asked(pool(targets(3), sticky={"secret": "t"}), request(*scope))
    assert other


@pytest.mark.parametrize(
    "forged",
    ["", "x", "http://10.0.0.1:80", "10.0.0.1:80", "0", "../..", "a" * 5000, "http://169.254.169.254"],
    ids=["empty", "x", "url", "address", "number", "path", "long", "metadata"],
)
def test_a_cookie_cannot_name_anything(forged: str) -> None:
    made = pool(these := targets(3), sticky={})
    target, line = asked(made, request("", ("cookie", f"sticky_up={forged}")))
    assert target in these
    assert line


@given(forged=st.text(st.characters(codec="latin-1", exclude_characters=";"), max_size=64))
def test_whatever_a_cookie_says_a_target_of_the_pool_is_asked(forged: str) -> None:
    these = targets(3)
    scope = request()
    scope["headers"] = [(b"cookie", b"sticky_up=" + forged.encode("latin-1"))]
    assert asked(pool(these, sticky={}), scope)[0] in these


def test_who_is_not_well_loses_its_callers_and_they_are_told() -> None:
    made = pool(these := targets(3), sticky={})
    target, line = asked(made, request())
    target.mark(healthy=False)
    other, moved = asked(made, request("", ("cookie", value(line))))
    assert (other is not target, bool(moved)) == (True, True)
    for each in these:
        each.mark(healthy=False)
    assert asked(made, request("", ("cookie", value(line))))[0] is target


def test_a_target_of_weight_0_keeps_its_callers_and_gets_no_new_ones() -> None:
    these = targets(2)
    _, line = asked(pool(these[:1], sticky={}), request())
    made = pool(these, [0, 1], sticky={})
    assert {asked(made, request("", ("cookie", value(line))))[0] for _ in range(5)} == {these[0]}
    assert {asked(made, request())[0] for _ in range(5)} == {these[1]}


def test_the_cookie_names_who_answered_in_the_end() -> None:
    made = pool(targets(3), sticky={})
    first, line = asked(made, request())
    scope = request("", ("cookie", value(line)))
    assert made.pick(scope) is first
    scope[CALL].attempts.append(first)
    second, moved = asked(made, scope, avoid=scope[CALL].attempts)
    assert second is not first
    assert asked(made, request("", ("cookie", value(moved)))) == (second, "")


def test_nobody_is_told_about_a_call_that_did_not_answer() -> None:
    assert asked(pool(targets(3), sticky={}), request(), started=False)[1] == ""


@pytest.mark.parametrize("balancer", ["consistent_hash", "least_requests", "p2c_ewma"])
def test_any_balancer_picks_the_first_target(balancer: str) -> None:
    made: Any = pool(targets(4), sticky={}, balancer=balancer)
    target, line = asked(made, request("203.0.113.7"))
    assert asked(made, request("203.0.113.99", ("cookie", value(line)))) == (target, "")
