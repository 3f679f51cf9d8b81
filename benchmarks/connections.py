"""`python -m benchmarks connections`: many callers at once, each with a small body both ways."""

import argparse
import math
from collections.abc import Mapping, Sequence

from .bench import bench
from .goals import Goal
from .load import Request
from .measure import Effort, Result, run_rounds
from .peers import Answer, Caddy, Envoy, GatewayPeer, HAProxy, Nginx, Peer
from .process import NotInstalled
from .proxy import GATEWAY, add_only, choose, show, start_all


def all_peers() -> Sequence[Peer]:
    """Those that bear so many connections."""
    return (GatewayPeer(), Answer(), Nginx(), HAProxy(), Envoy(), Caddy())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(connections=1000)
    add_only(parser, all_peers())
    parser.add_argument(
        "--body-bytes", type=int, default=1024, help="size of request and answer (default: %(default)s)"
    )


def goals(results: Mapping[str, Result]) -> list[Goal]:
    gateway, envoy = results.get(GATEWAY), results.get("envoy")
    errors, p99, rate = math.nan, math.nan, math.nan
    if gateway:
        errors, rate = float(gateway.errors), gateway.rate
        p99 = gateway.median(lambda one: one.report.p99_ms)
    ratio = gateway.rate_ratio(envoy) if gateway and envoy else math.nan
    return [
        Goal(f"failed requests of {GATEWAY}", errors, 0, unit="requests"),
        Goal(f"p99 of {GATEWAY}", p99, 250, unit="ms"),
        Goal(f"requests/s of {GATEWAY} on its core", rate, 10_000, "at least", unit="requests/s"),
        Goal(f"requests/s of {GATEWAY} over envoy", ratio, 1, "at least"),
    ]


def main(options: argparse.Namespace, effort: Effort) -> tuple[list[Goal], bool]:
    """Print the table. The goals, and whether everything that is installed ran."""
    size = options.body_bytes
    peers = choose(options.only, all_peers())
    with bench(size) as run:
        upstream = run.start_upstream()
        subjects, absent = start_all(
            run, peers, upstream, lambda port: Request(port, method="POST", body_bytes=size)
        )
        results = run_rounds(subjects, upstream, run.cores, effort)
    show(peers, results, absent)
    return goals(results), all(isinstance(reason, NotInstalled) for reason in absent.values())
