"""`python -m benchmarks chain`: what components add to the plain proxy."""

import argparse
import math
from collections.abc import Mapping, Sequence

from .bench import bench
from .goals import Goal
from .load import Request
from .measure import Effort, Result, Subject, notes, run_rounds
from .peers import UPSTREAM, Caddy, GatewayPeer
from .process import NotInstalled
from .proxy import start_all
from .table import number, render, times

PLAIN, TOGETHER = "plain proxy", "request_id + access_log + key_auth + rate_limit"
PROTECTED = "retry + breaker"
WORKING = "the working chain"
WORKING_PARTS = (
    "request_id",
    "access_log",
    "ip_filter",
    "cors",
    "key_auth",
    "rate_limit",
    "breaker",
    "retry",
    "timeout",  # an option of the route
)
"""What many a route has in production, asked by a page. There is no component for metrics to stand in it."""
TIMEOUT = "10s"
PEER = "caddy"
"""A plain proxy in Go: the working chain is held against it."""
KEY = "benchmark-key"
SECRET = "0123456789abcdef0123456789abcdef"
COLUMNS = (
    "chain",
    "requests/s",
    "CPU us/request",
    "+- %",
    "added us",
    "CPU, x plain proxy",
    "p99 ms",
    "errors",
)

STANDARD: Mapping[str, Mapping[str, object]] = {
    "request_id": {},
    "access_log": {},
    "early_rate_limit": {"limit": "100000000/minute"},
    "key_auth": {},
    "acl": {"groups": ["benchmarks"]},
    "basic_auth": {},
    "any_of": {"of": ["basic_auth", "key_auth"]},
    "all_of": {"of": ["key_auth", {"acl": {"groups": ["benchmarks"]}}]},
    "jwt_auth": {"keys": [{"algorithm": "HS256", "secret": SECRET}], "audience": ["orders"]},
    "http_signature": {"nonce": False, "max_age": "36500d", "components": ["@method", "@query"]},
    "forward_auth": {"url": UPSTREAM},
    "rate_limit": {"limit": "100000000/minute", "by": "consumer"},
    "quota": {"limit": 1000000000},
    "concurrency": {"limit": 1000000, "by": "consumer"},
    "errors": {"format": "envelope", "upstream": ["5xx"]},
    "headers": {"request": {"set": {"x-version": "1"}}, "response": {"set": {"x-version": "1"}}},
    "compress": {},
    "envelope": {},
    "decompress": {},
    "validate": {"query": {"properties": {"page": {"type": "integer"}}}},
    "rewrite": {"path": "/v2", "query": {"set": {"page": "1"}}},
    "redirect": {"to": "/elsewhere"},
    "respond": {"body": "{}"},
    "canary": {"upstream": "canary", "percent": 50, "by": "header:x-api-key"},
    "mirror": {"upstream": "canary", "percent": 0},
    "cache": {"ttl": "1h"},
    "idempotency": {"methods": ["GET"]},
    "ip_filter": {
        "deny": [f"10.{a}.{b}.0/25" for a in range(50) for b in range(100)],
        "allow": ["127.0.0.0/8"],
    },
    "cors": {"origins": ["https://app.example.com"], "credentials": True},
    "body_limit": {},
    "user_agent": {"deny": ["(?i)scrapy"]},
    "referer": {"allow": ["app.example.com"], "allow_missing": True},
    "csrf": {},
    "security_headers": {},
    "maintenance": {},
    "middleware": {"cls": "starlette.middleware.cors:CORSMiddleware", "options": {"allow_origins": ["*"]}},
}
"""Every component that is measured, with its options: a new one is a line here. What needs another request
each time, or a service of its own, is measured by `components` alone.
"""


CONSUMER: Mapping[str, object] = {
    "name": "benchmark",
    "keys": [KEY],
    "groups": ["benchmarks"],
    "subjects": ["benchmark"],
    "basic": [{"username": "benchmark", "password": "benchmark"}],
    "hmac": [{"id": "benchmark", "secret": SECRET}],
    "certificates": ["ab" * 32],
}
"""Who asks."""
ON_UPSTREAMS: Mapping[str, object] = {
    "fallback": {"answer": {"body": "{}"}},
    "retry": {"attempts": 3},
    "breaker": {},
    "bulkhead": {"in_flight": 1000},
    "fault": {"abort": 503, "abort_percent": 0},
}
"""The same for those that stand on an upstream."""


NEEDS: Mapping[str, Sequence[str]] = {"acl": ("key_auth",)}
"""What has to stand beside a component so that requests pass it."""
LOGIN = "Basic YmVuY2htYXJrOmJlbmNobWFyaw=="
TOKEN = (
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJiZW5jaG1hcmsiLCJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkI"
    "joib3JkZXJzIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUifQ.VFWg08w-TG6FAp6LImW9QTOd"
    "YAnzJsQO-8q9LY-rUi0"
)
"""A token of 2026 to 2100, signed with SECRET."""
SIGNED = '("@method" "@query");created=1790000000;keyid="benchmark"'
SIGNATURE = "Rzf11xpI/H/qY0MiCNFvFPWZIjko+kvDBK7xgwTDvug="
"""Of a GET without a query, by SECRET."""
HEADERS: Mapping[str, Mapping[str, str]] = {
    "basic_auth": {"authorization": LOGIN},
    "jwt_auth": {"authorization": f"Bearer {TOKEN}"},
    "http_signature": {"signature-input": f"sig={SIGNED}", "signature": f"sig=:{SIGNATURE}:"},
    "compress": {"accept-encoding": "gzip"},
    WORKING: {"origin": "https://app.example.com"},
}
"""What the requests to a chain have beside a key."""


def headers_of(name: str) -> dict[str, str]:
    """The fields of the requests to a chain."""
    return {"x-api-key": KEY, **HEADERS.get(name, {})}


def chains() -> dict[str, Sequence[str]]:
    """The components of each chain, by the name in the table: none, each alone, some together."""
    return {
        PLAIN: (),
        **{name: (*NEEDS.get(name, ()), name) for name in STANDARD},
        TOGETHER: TOGETHER.split(" + "),
        **{name: (name,) for name in ON_UPSTREAMS},
        PROTECTED: PROTECTED.split(" + "),
        WORKING: WORKING_PARTS,
    }


def document() -> dict[str, object]:
    """One gateway with a route and an upstream for each chain."""
    routes, upstreams = [], {}
    for index, chain in enumerate(chains().values()):
        upstream = f"origin-{index}"
        on_route = [{name: STANDARD[name]} for name in chain if name in STANDARD]
        on_upstream = [{name: ON_UPSTREAMS[name]} for name in chain if name in ON_UPSTREAMS]
        upstreams[upstream] = {"components": on_upstream}
        route: dict[str, object] = {"timeout": TIMEOUT} if "timeout" in chain else {}
        route |= {"name": f"route-{index}", "path": f"/{index}", "upstream": upstream, "components": on_route}
        routes.append(route)
    return {"routes": routes, "upstreams": upstreams, "consumers": [CONSUMER]}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="a part of a name is enough")


def row(result: Result, plain: Result) -> list[str]:
    ratio = result.cpu_ratio(plain)
    return [
        result.name,
        number(result.rate),
        number(result.cpu_us, 1),
        number(result.spread * 100),
        "-" if result is plain else number((ratio - 1) * plain.cpu_us, 1),
        times(ratio),
        number(result.median(lambda one: one.report.p99_ms), 2),
        number(result.errors),
    ]


def goals(results: Mapping[str, Result]) -> list[Goal]:
    def cpu(name: str, base: str, bound: float) -> Goal:
        here, unit = results.get(name), results.get(base)
        ratio = here.cpu_ratio(unit) if here and unit and not here.errors else math.nan
        return Goal(f"CPU per request of {name} over {base}", ratio, bound)

    plain, protected = results[PLAIN], results.get(PROTECTED)
    ratio = protected.cpu_ratio(plain) if protected and not protected.errors else math.nan
    return [
        cpu(TOGETHER, PLAIN, 1.8),
        Goal(f"us of CPU that {PROTECTED} add", (ratio - 1) * plain.cpu_us, 6.0, unit="us"),
        cpu(WORKING, PLAIN, 1.55),
        cpu(WORKING, PEER, 1.0),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything that is installed ran."""
    wanted = options.only.split(",")
    with bench() as run:
        upstream = run.start_upstream()
        process = run.start(GatewayPeer(document=document()), upstream, "/0")
        subjects = [
            Subject(name, process, Request(process.port, f"/{index}", headers_of(name)))
            for index, name in enumerate(chains())
            if name == PLAIN or any(part in name for part in wanted)
        ]
        beside, absent = start_all(run, [Caddy()], upstream)
        results = run_rounds([*subjects, *beside], upstream, run.cores, effort)
    rows = [row(result, results[PLAIN]) for result in results.values()]
    print(render(COLUMNS, [*rows, *([name, str(problem)] for name, problem in absent.items())]))
    for note in notes(list(results.values())):
        print(f"note: {note}")
    return goals(results), all(isinstance(reason, NotInstalled) for reason in absent.values())
