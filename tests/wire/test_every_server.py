"""The same requests whichever server parses them: what is ambiguous or too large goes no further."""

import time
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from tests.wire import http2
from tests.wire.ambiguous import BAD, CHUNKED, GOOD, NOT_SPOKEN, cases, hosted
from tests.wire.foreign import NAMES, Server, servers
from tests.wire.spelled import PROTECTED, careless, spellings
from tests.wire.talking import Told, talk, talk_all

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOREIGN = NAMES[1:]
H11 = {
    "chunk_extension_with_cr",
    "folded_field",
    "lengths_that_agree",
    "length_as_list",
    "method_in_lower_case",
    "target_with_fragment",
    "trailer_with_length",
    "trailer_with_coding",
    "trailer_with_bare_lf",
    "trailer_folded",
}
BARE_LF = {"bare_lf_ends_fields", "bare_lf_ends_head"}
ABSOLUTE = {"host_disagrees_with_target", "target_with_user", "target_of_another_scheme"}

TAKEN: dict[str, set[str]] = {
    "h11": H11 | BARE_LF | {"folded_coding"},
    "httptools": ABSOLUTE | {"target_with_fragment"},
    "granian": ABSOLUTE
    | BARE_LF
    | {
        "chunk_size_with_space",
        "chunked_and_length",
        "host_missing_beside_target",
        "length_and_chunked",
        "lengths_that_agree",
        "method_in_lower_case",
        "target_with_fragment",
        "trailer_with_bare_lf",
        "trailer_with_coding",
        "trailer_with_length",
    },
    "hypercorn": H11 | BARE_LF | {"folded_coding"},
}
"""What another server puts right itself: the gateway sees nothing odd in it, nor does the upstream."""

SECOND: dict[str, set[str]] = {
    "h11": {"bare_lf_ends_head", "folded_coding"},
    "httptools": set(),
    "granian": {"bare_lf_ends_head"},
    "hypercorn": {"bare_lf_ends_head", "folded_coding"},
}
"""Where such a server, and all that come after it, see a second request in the rest."""

REFUSED: dict[str, set[str]] = {
    "h11": {"empty_lines_before", "target_absolute"},
    "httptools": set(),
    "granian": {"host_missing_in_http_10"},
    "hypercorn": {"empty_lines_before", "target_absolute"},
}
"""What is odd and valid, and does not get through there."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mapping[str, Server]]:
    async with servers(tmp_path_factory.mktemp("servers")) as started:
        yield started


def seen(server: Server, path: str, names: Mapping[str, bytes]) -> set[str]:
    """The cases of which a request with this path came to the upstream."""
    targets = b" ".join(server.strict.targets) + b" "
    ends = (b" ", b"%", b"#", b"?")
    return {name for name in names if any(f"{path}-{name}".encode() + end in targets for end in ends)}


async def test_our_own_server_refuses_whatever_is_ambiguous(started: Mapping[str, Server]) -> None:
    own, bad = started["own"], dict(cases(BAD))
    told = await talk_all(own.port, [[data] for data in bad.values()])
    got = {name: (each.statuses, each.refused) for name, each in zip(bad, told, strict=True)}
    assert got == {name: ([505 if name in NOT_SPOKEN else 400], True) for name in bad}
    assert set(own.strict.targets) <= {b"/last"}
    assert len(bad) > 100


async def test_our_own_server_refuses_it_also_byte_by_byte(started: Mapping[str, Server]) -> None:
    own, bad = started["own"], dict(cases(BAD))
    told = await talk_all(own.port, [[bytes((byte,)) for byte in data] for data in bad.values()])
    got = {name: (each.statuses, each.refused) for name, each in zip(bad, told, strict=True)}
    assert got == {name: ([505 if name in NOT_SPOKEN else 400], True) for name in bad}
    assert set(own.strict.targets) <= {b"/last"}


async def test_what_is_odd_and_valid_gets_through(started: Mapping[str, Server]) -> None:
    for name, server in started.items():
        good = dict(cases(GOOD))
        await talk_all(server.port, [[data] for data in good.values()])
        assert set(good) - seen(server, "/x", good) == REFUSED.get(name, set())
        assert server.strict.breaches == []


@pytest.mark.parametrize("name", FOREIGN)
async def test_behind_another_server_an_upstream_sees_nothing_ambiguous(
    name: str, started: Mapping[str, Server]
) -> None:
    server, bad = started[name], dict(cases(BAD))
    told = await talk_all(server.port, [[data] for data in bad.values()])
    assert seen(server, "/x", bad) == TAKEN[name]
    assert seen(server, "/smuggled", bad) == SECOND[name]
    assert server.strict.breaches == []
    for case, each in zip(bad, told, strict=True):
        assert case in TAKEN[name] or 200 not in each.statuses, f"{case}: {each}"


HTTP_2: dict[str, set[str]] = {
    "granian": {"plain", "cookies", "host_beside_authority", "method_in_lower_case", "path_with_fragment"},
    "hypercorn": {"plain", "cookies", "method_in_lower_case", "path_with_fragment", "path_with_space"},
}
"""What gets through over HTTP/2."""


@pytest.mark.parametrize("name", HTTP_2)
async def test_what_comes_by_http_2_is_one_request_in_http_1(
    name: str, started: Mapping[str, Server]
) -> None:
    server, asked = started[name], dict(http2.cases())
    statuses = {case: await http2.ask(server.port, fields) for case, fields in asked.items()}
    assert seen(server, "/x", dict.fromkeys(asked, b"")) == HTTP_2[name]
    assert not any(b"/smuggled " in target for target in server.strict.targets)
    assert {case for case, status in statuses.items() if status == 200} == HTTP_2[name]
    assert not any(status >= 500 for status in statuses.values())
    assert server.strict.breaches == []


@pytest.mark.parametrize("name", NAMES)
async def test_no_spelling_of_a_protected_path_gets_through_without_a_key(
    name: str, started: Mapping[str, Server]
) -> None:
    server, tried = started[name], sorted(set(spellings()))
    lines = [b"GET " + target.encode("latin-1") + b" HTTP/1.1" for target in tried]
    told = await talk_all(server.port, [[hosted(b" gw.test", line=line)] for line in lines])
    for pattern in PROTECTED.values():
        assert [target for target in server.strict.targets if pattern.fullmatch(careless(target))] == []
    assert server.strict.breaches == []
    statuses = dict(zip(tried, (each.statuses for each in told), strict=True))
    assert statuses["/admin"] == statuses["/secret"] == [401]
    keyed = hosted(b" gw.test\r\nX-Api-Key: k-1", line=b"GET /secret HTTP/1.1")
    assert (await talk(server.port, keyed)).statuses == [200]


LARGE = {
    "field": hosted(b" gw.test\r\nX: " + b"a" * 80_000),
    "fields": hosted(b" gw.test" + b"".join(b"\r\nX-%d: %b" % (n, b"a" * 700) for n in range(100))),
    "number": hosted(b" gw.test" + b"\r\nX: a" * 200),
    "path": hosted(b" gw.test", line=b"GET /x" + b"a" * 17_000 + b" HTTP/1.1"),
    "query": hosted(b" gw.test", line=b"GET /x?" + b"a" * 17_000 + b" HTTP/1.1"),
}
ENDLESS = {
    "url": b"GET /x" + b"a" * 8_000_000,
    "field": b"GET /x HTTP/1.1\r\nHost: gw.test\r\nX: " + b"a" * 8_000_000,
    "fields": b"GET /x HTTP/1.1\r\nHost: gw.test\r\n" + b"X: a\r\n" * 1_000_000,
    "extension": CHUNKED + b"5;" + b"a" * 8_000_000,
    "trailer": CHUNKED + b"0\r\nX: " + b"a" * 8_000_000,
    "trailers": CHUNKED + b"0\r\n" + b"X: a\r\n" * 1_000_000,
}
BOUNDED = [name for name in NAMES if name != "httptools"]
"""uvicorn on httptools reads a head of any size before anybody is asked."""


async def ask(server: Server, data: bytes) -> tuple[Told, float]:
    """What it says, and the shortest time of three in which it does: a busy machine is not its fault."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        told = await talk(server.port, data)
        times.append(time.monotonic() - began)
    return told, min(times)


@pytest.mark.parametrize("name", NAMES)
async def test_a_head_that_is_too_large_is_refused_at_once(name: str, started: Mapping[str, Server]) -> None:
    server = started[name]
    for kind, data in LARGE.items():
        told, took = await ask(server, data)
        wanted = [414 if kind in ("path", "query") else 431]
        # h11 has bounds of its own, which depend on how the bytes come in.
        assert told.statuses == wanted or (name != "own" and told.statuses in ([400], [431], [])), kind
        assert took < 0.1, kind
    assert not any(target.startswith(b"/x" + b"a" * 100) for target in server.strict.targets)


@pytest.mark.parametrize("name", BOUNDED)
async def test_what_never_ends_is_refused_and_costs_no_memory(
    name: str, started: Mapping[str, Server]
) -> None:
    server = started[name]
    await talk(server.port, ENDLESS["field"])
    before, reached = server.memory, len(server.strict.requests)
    for kind, data in ENDLESS.items():
        told, took = await ask(server, data)
        assert told.end in ("closed", "reset"), kind
        assert took < 1, kind
        if name == "own":
            assert (told.statuses, told.refused) == ([414 if kind == "url" else 431], True), kind
    assert server.memory - before < 8 * 1024 * 1024
    assert len(server.strict.requests) == reached
