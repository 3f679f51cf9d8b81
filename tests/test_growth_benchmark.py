"""The measurement of growth runs from end to end; its figures are not judged here."""

import math
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shutil import which
from threading import Thread

import pytest

from benchmarks import growth
from benchmarks.__main__ import read_options
from benchmarks.growth.dimension import Dimension
from benchmarks.growth.idle import idle
from benchmarks.growth.routes import ROUTES
from benchmarks.growth.trend import MEMORY, Trend
from benchmarks.growth.turns import calls, in_turns
from benchmarks.measure import Effort
from benchmarks.process import NotInstalled, NotRunning

SMALL = Effort(seconds=1, rounds=1, connections=2)
WITH_SOCKETS = pytest.mark.skipif(not (which("wrk") and which("nginx")), reason="needs wrk and nginx")


def run(*arguments: str) -> tuple[list[str], bool]:
    goals, complete = growth.main(read_options(["growth", *arguments]), SMALL)
    return [goal.text.partition(":")[0] for goal in goals], complete


def test_a_cost_that_stays_is_flat() -> None:
    trend = Trend("a match", [10, 1000], [2.0, 2.4], "route")
    assert trend.verdict == "a match: flat, 1.20 x from 10 to 1,000"
    assert trend.goal.met


def test_a_cost_that_grows_without_a_reason_is_told_and_misses_its_goal() -> None:
    trend = Trend("a match", [10, 1000], [2.0, 200.0], "route")
    assert trend.verdict == "a match: grows 100.00 x from 10 to 1,000, 0.2 us per route, and need not"
    assert not trend.goal.met


def test_what_grows_as_it_has_to_has_its_reason_and_meets_its_goal() -> None:
    trend = Trend("compile", [0, 10, 20], [5.0, 15.0, 25.0], "route", "ms", "each is built once")
    assert trend.verdict.startswith("compile: grows 5.00 x from 0 to 20, 1 ms per route, 1.67 x for twice")
    assert trend.verdict.endswith(": each is built once")
    assert trend.goal.met


def test_what_only_reaches_into_more_memory_has_no_cost_of_one_more() -> None:
    trend = Trend("a decision", [1, 1000], [1.0, 2.0], "key", reason="memory", most=MEMORY)
    assert trend.verdict == "a decision: grows 2.00 x from 1 to 1,000, 1.07 x for twice the size: memory"
    assert trend.goal.met


def test_what_grows_faster_than_its_size_misses_its_goal() -> None:
    trend = Trend("compile", [10, 100, 1000], [1.0, 100.0, 10_000.0], "route", "ms", "each is built once")
    assert trend.doubled == pytest.approx(4.0)
    assert not trend.goal.met


def test_a_cost_that_could_not_be_measured_has_no_verdict() -> None:
    trend = Trend("a request", [1, 2], [math.nan, math.nan], "worker")
    assert trend.verdict == "a request: not measured"
    assert not trend.goal.met


def test_sizes_are_cut_but_two_stay() -> None:
    assert list(ROUTES.up_to(None)) == list(ROUTES.sizes)
    assert list(ROUTES.up_to(1)) == [10, 1000]
    assert list(ROUTES.up_to(10_000)) == [10, 1000, 10_000]


def test_what_is_not_there_is_named() -> None:
    assert [one.name for one in growth.choose("cache, routes")] == ["routes", "cache"]
    with pytest.raises(NotRunning, match="weather"):
        growth.choose("routes,weather")


async def test_works_are_measured_in_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []

    async def work(name: str) -> float:
        order.append(name)
        return float(len(order))

    def named(name: str) -> growth.turns.Work:
        return lambda: work(name)

    assert await in_turns({"a": named("a"), "b": named("b")}, 3) == {"a": 5.0, "b": 6.0}
    assert "".join(order) == "abababab"


def test_a_call_has_a_cost() -> None:
    assert calls(len, [("abc",)] * 10) >= 0.0


def test_what_is_measured_in_the_process_has_a_table_and_a_verdict_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (growth.cache, growth.components, growth.limiter, growth.targets, growth.variants):
        monkeypatch.setattr(module, "TURNS", 1)
    names = ["routes", "variants", "components", "limiter", "cache", "targets"]
    goals, complete = run("--only", ",".join(names), "--most", "10")
    assert complete
    assert list(dict.fromkeys(goals)) == names
    printed = capsys.readouterr().out
    assert printed.count("verdict: ") == len(goals)
    assert "not measured" not in printed


@WITH_SOCKETS
def test_what_needs_sockets_is_measured_over_them(capsys: pytest.CaptureFixture[str]) -> None:
    goals, complete = run("--only", "bodies", "--most", "1")
    assert complete
    assert goals == ["bodies"]
    assert "16,384" in capsys.readouterr().out


def test_an_idle_connection_is_one_that_was_answered() -> None:
    asked = []

    class Upstream(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if len(asked) < 3 else 503)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"yes")

        def log_request(self, code: object = "-", size: object = "-") -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            with idle(server.server_port, 2):
                assert asked == ["/", "/"]
            with pytest.raises(NotRunning, match="503"), idle(server.server_port, 1):
                pass
        finally:
            server.shutdown()
            thread.join()


def test_what_cannot_run_is_told_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(problem: NotRunning) -> Dimension:
        def measure(sizes: object, effort: object) -> growth.Growth:
            raise problem

        return Dimension("weather", "clouds", (1, 2), measure)

    monkeypatch.setattr(growth, "DIMENSIONS", (fails(NotInstalled("no sky")),))
    assert run() == ([], True)
    monkeypatch.setattr(growth, "DIMENSIONS", (fails(NotRunning("it rains")),))
    assert run() == ([], False)
    printed = capsys.readouterr().out
    assert "not measured: no sky" in printed
    assert "not measured: it rains" in printed
