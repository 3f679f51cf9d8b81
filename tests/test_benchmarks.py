"""The benchmarks' own arithmetic; figures are not judged here, because other work shares the machine."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from asgi_gateway.gateway import Gateway
from benchmarks import bodies, chain, components, connections, reload, routing, start, websocket
from benchmarks.__main__ import read_options
from benchmarks.bench import bench
from benchmarks.cases import cases
from benchmarks.flame import draw, fold, parts
from benchmarks.goals import Goal
from benchmarks.load import Report, parse_report
from benchmarks.machine import machine, optimized
from benchmarks.measure import Effort, Result, Round, notes
from benchmarks.peers import GatewayPeer, Peer, Place, all_peers
from benchmarks.peers.aiohttp_proxy import AiohttpProxy
from benchmarks.peers.fastify import Fastify
from benchmarks.peers.granian import GatewayUnderGranian, Granian
from benchmarks.peers.nginx import NginxStore
from benchmarks.process import NotRunning, read_processes, read_stat, tree_ticks
from benchmarks.proxy import choose
from benchmarks.table import render

over_sockets = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or which("wrk") is None, reason="wrk and two CPU cores are needed"
)


def one_round(cpu_us: float, rate: int = 1000, load_share: float = 0.5, noise_share: float = 0.0) -> Round:
    return Round(Report(rate, 1.0, 1.0, 2.0), cpu_us * rate / 1e6, load_share, noise_share)


def result(*cpu_us: float) -> Result:
    return Result("subject", tuple(one_round(cost) for cost in cpu_us))


def test_the_report_of_the_load_is_read_with_its_units() -> None:
    line = {"requests": 1000, "duration_us": 2e6, "p50_us": 600, "p99_us": 12170, "failed": 3, "refused": 7}
    report = parse_report(f"Running 1s test\n1000 requests in 2.00s, 1.00MB read\n{json.dumps(line)}\n")
    assert report == Report(requests=1000, seconds=2.0, p50_ms=0.6, p99_ms=12.17, failed=3, refused=7)
    assert report.errors == 10
    assert report.rate == 496.5


def test_a_load_that_reports_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no report"):
        parse_report("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_process_name_with_spaces_and_brackets_does_not_shift_the_fields() -> None:
    fields = "7 1 1 0 -1 4194304 101 0 0 0 30 12 0 0 20 0 1 0 125923"
    assert read_stat(f"42 (a) b (c) S {fields}") == (7, 42)


def test_the_cpu_time_of_a_tree_counts_all_descendants_and_nobody_else() -> None:
    processes = {10: (1, 5), 11: (10, 7), 12: (11, 9), 20: (1, 100)}
    assert tree_ticks(10, processes) == 21
    assert tree_ticks(99, processes) == 0


def test_the_running_processes_are_found_with_their_parents() -> None:
    parent, ticks = read_processes()[os.getpid()]
    assert parent == os.getppid()
    assert ticks >= 0


def test_a_ratio_is_the_median_over_neighbouring_rounds() -> None:
    # The second half ran on a machine that was half as fast: every pair has the same ratio nevertheless.
    assert result(20, 20, 40, 40).cpu_ratio(result(10, 10, 20, 20)) == pytest.approx(2.0)
    assert result(10, 11, 30).cpu_us == pytest.approx(11)
    assert result(10, 10, 12).spread == pytest.approx(0.1)


def test_a_round_too_short_for_the_clock_gives_no_ratio() -> None:
    assert math.isnan(result(20, 20).cpu_ratio(result(10, 0)))


def test_a_round_without_an_answer_has_no_cost() -> None:
    empty = Round(Report(0, 1.0, 0.0, 0.0, failed=64), 0.5, 0.1, 0.0)
    assert math.isnan(empty.cpu_us)
    assert empty.report.rate == 0.0


def test_a_saturated_load_and_a_noisy_machine_are_told() -> None:
    fast = Result("fast", (one_round(10, load_share=0.99),))
    noisy = Result("noisy", (one_round(10, noise_share=0.3),))
    told = notes([fast, noisy, result(10)])
    assert [line for line in told if "load core saturated for fast" in line]
    assert [line for line in told if "for noisy" in line]
    assert notes([result(10)]) == []


def test_a_goal_that_was_not_measured_is_not_met() -> None:
    assert Goal("cost", 2.2, 2.2).met
    assert not Goal("cost", 2.3, 2.2).met
    assert Goal("speed", 20.0, 20.0, "at least").met
    unknown = Goal("cost", math.nan, 2.2)
    assert not unknown.met
    assert "not measured" in str(unknown)


def test_a_subject_without_figures_has_its_reason_in_the_table() -> None:
    lines = render(
        ["subject", "a ms", "b us"], [["one", "1", "22"], ["other", "not installed (apt-get ...)"]]
    )
    assert lines.splitlines()[2:] == ["one         1    22", "other    not installed (apt-get ...)"]


def test_an_unknown_subject_is_named() -> None:
    assert [peer.name for peer in choose("nginx,envoy", all_peers())] == ["nginx", "envoy"]
    with pytest.raises(NotRunning, match="nothing-like-it"):
        choose("nginx,nothing-like-it", all_peers())


def test_the_measurement_of_routing_finds_every_route_it_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    options = read_options(["routing", "--routes", "30,3,9", "--in-process"])
    goals, complete = routing.main(options, Effort(seconds=1, rounds=2, connections=1))
    assert complete
    assert [goal.bound for goal in goals] == [1.5]
    sizes = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert sizes == ["3", "9", "30"]


async def test_every_component_that_is_measured_lets_its_requests_pass() -> None:
    for case in cases():
        quick = replace(case, different=min(case.different, 20), warm=20)
        cost = await components.measure(quick, batches=2, batch=5)
        assert cost.refused == 0, case.name


def test_the_measurement_of_components_prints_a_row_and_holds_it_against_its_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = read_options(["components", "--only", "acl,csrf", "--batches", "2"])
    goals, complete = components.main(options, Effort(seconds=1, rounds=2, connections=1))
    assert complete
    assert [goal.bound for goal in goals] == [2.0]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["acl", "csrf"]


def test_one_size_of_a_table_compares_nothing() -> None:
    with pytest.raises(NotRunning, match="two sizes"):
        routing.main(read_options(["routing", "--routes", "30", "--in-process"]), Effort(1, 1, 1))


@pytest.mark.parametrize("document", [chain.document(), reload.document(20, 3), routing.document(20)])
def test_the_gateway_accepts_the_configurations_that_are_measured(
    document: dict[str, object], tmp_path: Path
) -> None:
    peer = GatewayPeer(document=document)
    peer.command("python", Place(tmp_path, port=1, upstream=2, body_bytes=3))
    gateway = Gateway.load(tmp_path / "gateway.json")
    assert len(gateway.plan) == len(gateway.config.routes)


STACKS = """\
<module> (app.py);run (asyncio/runners.py);serve (/home/me/asgi_gateway/gateway.py:17) 60
<module> (app.py);run (asyncio/runners.py);serve (/home/me/asgi_gateway/gateway.py:17);<listcomp> (x.py) 40
<module> (app.py);load (/home/me/asgi_gateway/loading.py) 7
"""


def test_a_flame_graph_counts_what_is_below_a_call_and_names_nobodys_folders() -> None:
    root = fold(STACKS.splitlines(), "asyncio/runners.py run")
    assert root.samples == 100
    serve = root.calls["asgi_gateway/gateway.py serve"]
    assert (serve.samples, serve.depth()) == (100, 2)
    assert serve.calls["x.py <listcomp>"].samples == 40
    assert sorted(parts(root).values()) == [0, 0, 0, 0, 0, 40, 60]
    picture = draw(root, "a & b")
    assert "a &amp; b" in picture
    assert "<title>x.py &lt;listcomp&gt;: 40.0%</title>" in picture
    assert "home" not in picture


def test_the_machine_is_told_with_how_python_was_built() -> None:
    assert machine().startswith("machine: Python 3.")
    assert "\n" not in machine()
    assert optimized("'--enable-optimizations' '--with-lto'", "-O3") == "PGO"
    assert optimized("'--enable-shared'", "-O3 -fprofile-use") == "PGO"
    assert optimized("'--enable-shared' '--with-wheel-pkg-dir=/usr/share/python-wheels/'", "-O2").startswith(
        "PGO "
    )
    assert optimized("'--enable-shared'", "-O3") == "no PGO"


@over_sockets
@pytest.mark.parametrize(
    "peer", [AiohttpProxy(), Fastify(), GatewayUnderGranian(), Granian()], ids=lambda peer: peer.name
)
def test_a_peer_answers(peer: Peer) -> None:
    if peer.find() is None:
        pytest.skip(f"not installed ({peer.install})")
    with bench(body_bytes=100) as run:
        run.start(peer, run.start_upstream())


@over_sockets
def test_many_connections_are_measured_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    options = read_options(["connections", "--only", "asgi-gateway"])
    assert options.connections == 1000
    goals, complete = connections.main(options, Effort(seconds=1, rounds=1, connections=20))
    assert complete
    assert [goal.met for goal in goals[:1]] == [True]
    assert math.isnan(goals[-1].value)
    assert "asgi-gateway" in capsys.readouterr().out


@over_sockets
@pytest.mark.skipif(NginxStore([1]).find() is None, reason="nginx is needed")
def test_big_bodies_are_measured_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    options = read_options(["bodies", "--mib", "1", "--only", "asgi-gateway"])
    goals, complete = bodies.main(options, Effort(seconds=0.1, rounds=1, connections=2))
    assert complete
    assert [goal.bound for goal in goals] == [0.5, 0.5]
    answer, upload = (row.split() for row in capsys.readouterr().out.splitlines()[2:4])
    assert answer[:4] == ["1", "MiB", "answer:", "asgi-gateway"]
    assert upload[:4] == ["1", "MiB", "upload:", "asgi-gateway"]
    assert answer[-1] == upload[-1] == "0"


@over_sockets
def test_messages_of_websockets_are_measured_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    options = read_options(["websocket", "--messages", "100", "--only", "asgi-gateway,echo"])
    goals, complete = websocket.main(options, Effort(seconds=0.2, rounds=1, connections=2))
    assert complete
    assert not math.isnan(goals[-1].value)
    assert [row.split()[-1] for row in capsys.readouterr().out.splitlines()[2:4]] == ["0", "0"]


@over_sockets
def test_the_start_is_measured_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    goals, complete = start.main(read_options(["start"]), Effort(seconds=1, rounds=1, connections=1))
    assert complete
    assert [goal.bound for goal in goals] == [250, 150, 1000, 80]
    assert all(goal.value > 0 for goal in goals)
    assert start.FIRST in capsys.readouterr().out


@over_sockets
def test_the_working_chain_is_measured_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    options = read_options(["chain", "--only", chain.WORKING])
    goals, _ = chain.main(options, Effort(seconds=1, rounds=1, connections=2))
    assert [goal.bound for goal in goals if chain.WORKING in goal.text] == [1.55, 1.0]
    plain, working = capsys.readouterr().out.splitlines()[2:4]
    assert plain.startswith(chain.PLAIN)
    assert working.startswith(chain.WORKING)
    assert plain.split()[-1] == working.split()[-1] == "0"
