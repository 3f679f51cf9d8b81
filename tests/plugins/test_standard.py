import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asgi_gateway_contrib
import asgi_gateway_plugins
from asgi_gateway.asgi import Message
from asgi_gateway.gateway import Gateway
from asgi_gateway.stage import Stage
from tests.plugins.kit import CALLER, Upstreams, document

EDITS = {"headers": {"request": {"set": {"x-a": "{consumer}"}}, "response": {"set": {"x-b": "{request_id}"}}}}

GUARDS: list[Any] = [
    {"body_limit": {}},
    {"csrf": {}},
    {"user_agent": {"deny": ["bot"]}},
    {"referer": {"allow": ["gateway.test"], "allow_missing": True}},
    {"maintenance": {}},
    {"ip_filter": {"allow": ["203.0.113.0/24"]}},
    {"cors": {"origins": ["https://app.example.com"]}},
    {"security_headers": {}},
]

TRANSFORMS: list[Any] = [
    {"compress": {"min_size": "0B"}},
    "envelope",
    "decompress",
    {"validate": {"query": {"properties": {"page": {"type": "integer"}}}}},
    {"rewrite": {"path": "/v2", "query": {"set": {"page": "1"}}}},
    {"redirect": {"to": "/elsewhere", "when": {"path": "/never"}}},
    {"respond": {"when": {"path": "/never"}}},
]


PROTECTION: list[Any] = [
    {"fallback": {"answer": {"body": "{}"}}},
    "retry",
    "breaker",
    {"bulkhead": {"in_flight": 100}},
    {"fault": {"abort": 503, "abort_percent": 0}},
]


def everything(file: Path) -> dict[str, Any]:
    """A gateway with every component, several of them twice."""
    declared = document(
        {"canary": {"upstream": "next", "percent": 50, "by": "cookie:who", "force_header": "x-go"}},
        {"mirror": {"upstream": "next", "compare": {}}},
        EDITS,
        {"rate_limit": {"limits": ["1000000/second", "1000000/minute"], "headers": "both"}},
        {"rate_limit": {"limit": "1/hour", "by": "consumer", "mode": "report"}},
        {"concurrency": {"limit": 1000}},
        {"quota": {"limit": 1000000}},
        {"early_rate_limit": {"limit": "1000000/minute"}},
        {"key_auth": {"query": ["key"], "cookies": ["key"]}},
        {"cache": {}},
        {"idempotency": {}},
        {"middleware": {"cls": "tests.plugins.test_middleware:Mark"}},
        *GUARDS,
        *TRANSFORMS,
        components=["request_id", {"access_log": {"file": str(file)}}, {"errors": {"upstream": ["5xx"]}}],
        consumers=[{"name": "acme", "keys": ["k"]}],
    )
    for upstream in declared["upstreams"].values():
        upstream["components"] = [EDITS, *PROTECTION]
    return declared


async def ask(gateway: Gateway) -> int:
    """One request without a client around it; its status."""
    sent: list[Message] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"gateway.test"), (b"x-api-key", b"k"), (b"accept-encoding", b"gzip")],
        "client": (CALLER, 50_000),
        "server": ("gateway.test", 80),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await gateway(scope, receive, send)
    status: int = sent[0]["status"]
    return status


async def test_no_component_leaves_cyclic_garbage(upstreams: Upstreams, tmp_path: Path) -> None:
    upstreams.answers = [(b"content-type", b"application/json")]
    gateway = Gateway.parse(everything(tmp_path / "access.log"), plugins=[upstreams])
    async with gateway.lifespan():
        assert await ask(gateway) == 200
        upstreams.seen.clear()
        gc.collect()
        gc.disable()
        try:
            for _ in range(200):
                assert await ask(gateway) == 200
                upstreams.seen.clear()
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_they_stand_in_the_order_of_their_stages(upstreams: Upstreams, tmp_path: Path) -> None:
    plan = Gateway.parse(everything(tmp_path / "access.log"), plugins=[upstreams]).plan[0]
    assert plan.chain == (
        "request_id",
        "access_log",
        "security_headers",
        "errors",
        "cors",
        "ip_filter",
        "maintenance",
        "early_rate_limit",
        "user_agent",
        "referer",
        "csrf",
        "body_limit",
        "key_auth",
        "rate_limit",
        "rate_limit [report]",
        "concurrency",
        "quota",
        "compress",
        "envelope",
        "redirect [when]",
        "decompress",
        "validate",
        "respond [when]",
        "headers",
        "middleware",
        "rewrite",
        "mirror",
        "canary",
        "idempotency",
        "cache",
    )
    assert plan.upstream_chain == ("headers", "fallback", "retry", "breaker", "bulkhead", "fault")


def test_what_guards_serves_websocket_and_may_refuse() -> None:
    for kind in (*asgi_gateway_plugins.gateway_components(), *asgi_gateway_contrib.gateway_components()):
        if kind.stage in (Stage.GUARD, Stage.AUTH, Stage.LIMIT):
            assert "websocket" in kind.serves
            assert kind.refuses


def test_importing_them_is_cheap() -> None:
    modules = "import sys, asgi_gateway_plugins, asgi_gateway_contrib"
    heavy = {
        "limits",
        "msgspec",
        "httpx",
        "redis",
        "http_message_signatures",
        "cryptography",
        "brotli",
        "backports.zstd",
        "jsonschema_rs",
    }
    code = f"{modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


FAILING: list[tuple[list[Any], int]] = [
    ([{"retry": {"back_off": "0s", "budget": {"minimum": 10_000}}}, {"fault": {"abort": 503}}], 503),
    ([{"retry": {"back_off": "0s", "budget": {"minimum": 10_000}}}, {"fault": {"abort": "reset"}}], 502),
    ([{"breaker": {"minimum_calls": 10_000}}, {"fault": {"abort": 503}}], 503),
    ([{"breaker": {"minimum_calls": 10_000}}, {"fault": {"abort": "reset"}}], 502),
    ([{"breaker": {"failures": 1}}, {"fault": {"abort": 503}}], 503),
    ([{"fallback": {"answer": {}}}, {"fault": {"abort": 503}}], 200),
    ([{"fallback": {"answer": {}}}, {"fault": {"abort": "reset"}}], 200),
    ([{"fallback": {"upstream": "next"}}, {"fault": {"abort": "reset"}}], 200),
]


@pytest.mark.parametrize(("chain", "status"), FAILING, ids=[str(number) for number in range(len(FAILING))])
async def test_failures_leave_no_cyclic_garbage(upstreams: Upstreams, chain: list[Any], status: int) -> None:
    declared = document()
    declared["upstreams"]["main"]["components"] = chain
    gateway = Gateway.parse(declared, plugins=[upstreams])
    async with gateway.lifespan():
        assert await ask(gateway) == status
        await ask(gateway)
        upstreams.seen.clear()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await ask(gateway)
                upstreams.seen.clear()
            assert gc.collect() == 0
        finally:
            gc.enable()
