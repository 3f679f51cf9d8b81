"""The connections to one target, whatever callers, targets and time do to them (P27, P31, P32)."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_gateway.asgi import Message, Receive
from asgi_gateway.call import Call, closed
from asgi_gateway.clock import Clock
from asgi_gateway.errors import CallerLeft, UpstreamError
from asgi_gateway.origin import Origin
from asgi_gateway.ticker import Ticker
from asgi_gateway.transport.connections import Http1
from asgi_gateway.transport.http1 import Connection
from tests.properties.pipes import TURNS, Loop, Pipe
from tests.properties.profile import examples

REQUEST = re.compile(rb"(?:GET|POST) /([0-9]+) HTTP/1\.1\r\n")
MOST = 12
"""Callers at one time."""
numbers = st.integers(0, MOST - 1)


class Pool(Http1):
    """Connections that stand when the test says so; who waits is written down."""

    def __init__(self, loop: Loop, *, max_connections: int, max_waiting: int) -> None:
        super().__init__(
            Origin.read("http://127.0.0.1:1"),
            max_connections=max_connections,
            max_waiting=max_waiting,
            wait=1.0,
            keep_alive=30.0,
            clock=Clock(loop.time),
        )
        self.opening: list[asyncio.Future[None]] = []
        self.pipes: list[Pipe] = []
        self.queued: list[Call] = []

    async def _open(self, call: Call) -> Connection:
        loop = asyncio.get_running_loop()
        call.phase, call.limit = "connect", self.now() + call.timeouts.connect
        opening = loop.create_future()
        self.opening.append(opening)
        try:
            await opening
        finally:
            self.opening.remove(opening)
        connection = Connection(self, loop)
        self.pipes.append(pipe := Pipe(loop, connection))
        try:
            await asyncio.sleep(0)
        except BaseException:
            pipe.close()
            raise
        return connection

    async def _queue(self, call: Call) -> Connection | None:
        if len(self._waiting) < self._max_waiting:
            self.queued.append(call)
        try:
            given = await super()._queue(call)
            assert self.queued[0] is call, "somebody who came later goes first"
            return given
        finally:
            if call in self.queued:
                self.queued.remove(call)


@dataclass(eq=False)
class Caller:
    number: int
    method: str
    ticker: Ticker
    task: asyncio.Task[None] | None = None
    outcome: str = ""
    body: asyncio.Queue[Message] | None = None
    uploaded: bool = False
    """Whether nothing more comes for `body`."""

    @property
    def receive(self) -> Receive | None:
        return None if self.body is None else self.body.get

    def say(self, message: Message) -> None:
        assert self.body is not None
        self.body.put_nowait(message)
        self.uploaded = not message.get("more_body", False)

    async def run(self, pool: Pool, deadline: float) -> None:
        """What boundary and proxy do around a transport."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        head = b"%b /%d HTTP/1.1\r\nhost: a\r\n\r\n" % (self.method.encode(), self.number)
        call = Call("u", closed, loop.time(), deadline, task)
        self.ticker.add(call, loop)
        try:
            answer = await pool.send(self.method, head, self.receive, call)
            try:
                body, complete = answer.take(), answer.complete
                while not complete:
                    body += await answer.read()
                    complete = answer.complete
                    body += answer.take()
            finally:
                answer.close()
            assert body == b"for %d" % self.number, "the answer is somebody else's"
            self.outcome = "answered"
        except UpstreamError as error:
            self.outcome = error.reason
        except CallerLeft:
            self.outcome = "left"
        except asyncio.CancelledError:
            if call.expired and not task.uncancel():
                self.outcome = "total_timeout"
                return
            self.outcome = "cancelled"
            raise
        finally:
            self.ticker.discard(call)
            call.close()


@dataclass
class Far:
    """The other end of a connection."""

    answered: int = 0
    begun: bool = False
    """Whether the answer to the last request has begun."""


class Connections(RuleBasedStateMachine):
    """Anything may happen at any moment, also between two turns of the loop."""

    @initialize(connections=st.integers(1, 3), waiting=st.integers(0, 4))
    def begin(self, connections: int, waiting: int) -> None:
        self.loop = Loop()
        self.ticker = Ticker(Clock(self.loop.time))
        self.pool = Pool(self.loop, max_connections=connections, max_waiting=waiting)
        self.most = connections
        self.callers: list[Caller] = []
        self.far: dict[Pipe, Far] = {}
        self.count = 0
        self.closed = False

    # What there is

    @property
    def active(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.task is not None and not caller.task.done()]

    @property
    def open(self) -> list[Pipe]:
        return [pipe for pipe in self.pool.pipes if not pipe.closing]

    def other_end(self, pipe: Pipe) -> Far:
        return self.far.setdefault(pipe, Far())

    def asked(self, pipe: Pipe) -> bytes | None:
        """The request on this connection that has no whole answer yet."""
        numbers = REQUEST.findall(bytes(pipe.written))[self.other_end(pipe).answered :]
        assert len(numbers) <= 1, "two requests share a connection"
        return numbers[0] if numbers else None

    def pick(self, among: list[Pipe], number: int) -> Pipe | None:
        return among[number % len(among)] if among else None

    def busy(self) -> list[Pipe]:
        return [pipe for pipe in self.open if self.asked(pipe) is not None]

    # What callers do

    @precondition(lambda self: len(self.active) < MOST and not self.closed)
    @rule(
        method=st.sampled_from(["GET", "GET", "POST"]),
        uploads=st.sampled_from([False, False, True]),
        patience=st.sampled_from([0.5, 5.0, 100.0, 100.0]),
    )
    def ask(self, method: str, uploads: bool, patience: float) -> None:
        caller = Caller(self.count, method, self.ticker)
        self.count += 1
        if uploads:
            caller.body = asyncio.Queue()
        caller.task = self.loop.create_task(caller.run(self.pool, self.loop.now + patience))
        self.callers.append(caller)

    @precondition(lambda self: self.active)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        caller = self.active[number % len(self.active)]
        assert caller.task is not None
        caller.task.cancel()

    @rule(number=numbers, kind=st.sampled_from(["more", "last", "last", "disconnect"]))
    def upload(self, number: int, kind: str) -> None:
        uploading = [caller for caller in self.active if caller.body is not None and not caller.uploaded]
        if not uploading:
            return
        if kind == "disconnect":
            message = {"type": "http.disconnect"}
        else:
            message = {"type": "http.request", "body": b"body", "more_body": kind == "more"}
        uploading[number % len(uploading)].say(message)

    # What the target does

    @rule(number=numbers, works=st.sampled_from([True, True, True, False]))
    def connect(self, number: int, works: bool) -> None:
        opening = [future for future in self.pool.opening if not future.done()]
        if not opening:
            return
        future = opening[number % len(opening)]
        if works:
            future.set_result(None)
        else:
            future.set_exception(ConnectionRefusedError(111, "Connection refused"))

    @rule(number=numbers, closes=st.sampled_from([False, False, True]), kind=st.integers(0, 3))
    def answer(self, number: int, closes: bool, kind: int) -> None:
        """Say a whole answer, its beginning, or its rest; the connection may end with it."""
        pipe = self.pick([pipe for pipe in self.busy() if not pipe.paused], number)
        if pipe is None:
            return
        far, asked = self.other_end(pipe), self.asked(pipe)
        body = b"for %b" % asked
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(body)
        if far.begun:
            data = body[2:]
        else:
            data = head + (b"connection: close\r\n" if closes else b"") + b"\r\n" + body
            if kind == 0:
                data = data[: -len(body) + 2]
        far.begun = kind == 0 and not far.begun
        far.answered += not far.begun
        pipe.say(data)
        if closes and not far.begun:
            pipe.leave()

    @rule(number=numbers, how=st.sampled_from(["leaves", "resets", "babbles"]))
    def misbehave(self, number: int, how: str) -> None:
        pipe = self.pick(self.open, number)
        if pipe is None:
            return
        if how == "leaves":
            pipe.leave()
        elif how == "resets":
            pipe.reset()
        elif self.asked(pipe) is None:
            pipe.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")

    @rule(number=numbers, clogged=st.booleans())
    def clog(self, number: int, clogged: bool) -> None:
        """The target stops or goes on reading."""
        pipe = self.pick(self.open, number)
        if pipe is not None and pipe.clogged is not clogged:
            pipe.clog(clogged)

    # What time does

    @rule(times=st.integers(1, 3))
    def turn(self, times: int) -> None:
        self.loop.turn(times)

    @rule()
    def settle(self) -> None:
        self.loop.turn(TURNS)

    @rule(seconds=st.sampled_from([0.03, 0.4, 1.0, 2.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.loop.now += seconds

    @precondition(lambda self: len(self.callers) > 3 and not self.closed)
    @rule(really=st.integers(0, 3))
    def close(self, really: int) -> None:
        """The configuration has no such target any more."""
        if not really:
            self.closed = True
            self.loop.run_until_complete(self.pool.aclose())

    # What always holds

    @invariant()
    def connections_are_bounded(self) -> None:
        pool = self.pool
        assert len(pool._all) + pool._connecting <= self.most
        assert pool._connecting >= 0
        assert len(self.open) <= self.most
        assert set(pool._idle) <= pool._all

    @invariant()
    def nobody_waits_beside_room(self) -> None:
        pool = self.pool
        if any(not waiter.done() for waiter in pool._waiting):
            assert not pool._idle
            assert len(pool._all) + pool._connecting == self.most

    @invariant()
    def a_connection_serves_one_request_at_a_time(self) -> None:
        for pipe in self.pool.pipes:
            self.asked(pipe)

    @invariant()
    def what_is_not_idempotent_is_sent_once(self) -> None:
        sent = [number for pipe in self.pool.pipes for number in REQUEST.findall(bytes(pipe.written))]
        for caller in self.callers:
            if caller.method == "POST" or caller.body is not None:
                assert sent.count(b"%d" % caller.number) <= 1

    @invariant()
    def nothing_is_logged(self) -> None:
        assert not self.loop.errors

    # The end

    def teardown(self) -> None:
        try:
            self.come_to_rest()
            if not self.closed:
                self.every_slot_is_free()
            self.loop.now += 31
            self.loop.turn(TURNS)
            assert not self.open, "what was idle for too long is still open"
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.turn(TURNS)
            self.loop.close()

    def come_to_rest(self) -> None:
        """The target answers everything; everybody has to end."""
        for pipe in self.open:
            if pipe.clogged:
                pipe.clog(False)
        for _ in range(4 * MOST):
            self.loop.turn(TURNS)
            if not self.active:
                break
            self.connect(0, True)
            self.upload(0, "last")
            self.answer(0, False, 1)
        assert not self.active, "somebody waits for nothing"
        self.nothing_is_logged()
        pool = self.pool
        assert (pool._connecting, len(pool._waiting), pool.queued, pool.opening) == (0, 0, [], [])
        assert pool._all == set(pool._idle)
        assert {pipe.get_protocol() for pipe in self.open} == pool._all
        assert not asyncio.all_tasks(self.loop)
        assert len(self.ticker) == 0

    def every_slot_is_free(self) -> None:
        before = len(self.callers)
        for _ in range(self.most):
            self.ask("GET", False, 100.0)
        self.loop.turn(TURNS)
        while self.pool.opening:
            self.connect(0, True)
            self.loop.turn(TURNS)
        assert len(self.busy()) == self.most
        while self.busy():
            self.answer(0, False, 1)
        self.loop.turn(TURNS)
        assert {caller.outcome for caller in self.callers[before:]} == {"answered"}


Connections.TestCase.settings = examples(200, stateful_step_count=50)
test_whatever_happens_connections_are_bounded_fair_and_not_lost = Connections.TestCase


# What the machine found once


@pytest.fixture
def story() -> Iterator[Connections]:
    """One connection, told by hand; the end is the same."""
    machine = Connections()
    machine.begin(1, 1)
    yield machine
    machine.teardown()


def test_a_target_that_hangs_up_at_once_costs_no_slot_and_no_time(story: Connections) -> None:
    story.ask("GET", False, 100.0)
    story.settle()
    story.connect(0, True)
    story.turn(1)
    story.misbehave(0, "leaves")
    story.settle()
    assert story.callers[0].outcome == "connect_failed"


def test_a_connection_lost_as_it_is_passed_on_is_not_used(story: Connections) -> None:
    story.ask("GET", False, 100.0)
    story.settle()
    story.connect(0, True)
    story.settle()
    story.ask("POST", False, 100.0)
    story.settle()
    story.answer(0, False, 1)
    story.misbehave(0, "leaves")
    story.settle()
    story.connect(0, True)
    story.settle()
    story.answer(0, False, 1)
    story.settle()
    assert [caller.outcome for caller in story.callers] == ["answered", "answered"]


def test_a_caller_who_is_slow_with_its_body_holds_no_connection(story: Connections) -> None:
    story.ask("POST", True, 100.0)
    story.settle()
    assert not story.pool.opening
    story.ask("GET", False, 100.0)
    story.settle()
    story.connect(0, True)
    story.settle()
    story.answer(0, False, 1)
    story.settle()
    # A whole answer to nothing, when a request could be about to be sent.
    story.misbehave(0, "babbles")
    assert not story.open


def test_closing_ends_who_waits_and_who_is_served(story: Connections) -> None:
    story.ask("POST", False, 100.0)
    story.settle()
    story.connect(0, True)
    story.settle()
    story.ask("GET", False, 100.0)
    story.settle()
    story.close(0)
    story.settle()
    assert [caller.outcome for caller in story.callers] == ["reset", "no_target"]


def test_closing_while_somebody_connects_keeps_count(story: Connections) -> None:
    story.ask("GET", False, 100.0)
    story.settle()
    story.close(0)
    story.connect(0, True)
    story.settle()
    story.answer(0, False, 1)
    story.settle()
    assert story.callers[0].outcome == "answered"
