"""What is held until the loop has turned."""

import asyncio

import pytest

from asgi_gateway.turn import Turn


class Line:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.written = error, 0

    def flush(self) -> None:
        if self.error is not None:
            raise self.error
        self.written += 1


async def test_everything_goes_out_once_when_the_loop_has_turned() -> None:
    turn = Turn.of(asyncio.get_running_loop())
    first, second = Line(), Line()
    turn.add(first)
    turn.add(second)
    assert (first.written, second.written) == (0, 0)
    await asyncio.sleep(0)
    assert (first.written, second.written) == (1, 1)
    turn.add(second)
    await asyncio.sleep(0)
    assert (first.written, second.written) == (1, 2)


async def test_what_cannot_be_written_keeps_back_no_other(caplog: pytest.LogCaptureFixture) -> None:
    turn, good = Turn.of(asyncio.get_running_loop()), Line()
    turn.add(Line(RuntimeError("closed")))
    turn.add(good)
    await asyncio.sleep(0)
    assert good.written == 1
    assert "could not be written" in caplog.text


def test_a_loop_that_ended_before_it_turned_holds_up_no_other() -> None:
    async def adds(line: Line) -> None:
        turn = Turn.of(asyncio.get_running_loop())
        assert turn is Turn.of(asyncio.get_running_loop())
        turn.add(line)

    async def turns(line: Line) -> None:
        await adds(line)
        await asyncio.sleep(0)

    lost, written = Line(), Line()
    asyncio.run(adds(lost))
    asyncio.run(turns(written))
    assert written.written == 1
