"""How do many share one socket? Told without a server: the test says what the socket brings."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import pytest

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.wire import CommandError, Wire
from tests.redis.opened import outcome, until

TIMEOUT_S = 0.05


class FakeSocket(asyncio.Transport):
    """Remembers what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.is_aborted = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class World:
    """A wire on a socket, and how it ended."""

    def __init__(self, in_flight_max: int = 10, command_timeout_s: float = 60) -> None:
        self.failures: Counter[str] = Counter()
        self.lost: list[str] = []
        self.socket = FakeSocket()
        self.wire = Wire(
            "fake",
            in_flight_max=in_flight_max,
            command_timeout_s=command_timeout_s,
            failures=self.failures,
            on_lost=lambda _wire, reason: self.lost.append(reason),
        )
        self.wire.connection_made(self.socket)

    def ask(self, *words: bytes) -> asyncio.Future[Any]:
        return self.wire.ask(words)


async def test_commands_of_one_turn_leave_in_one_write() -> None:
    world = World()
    world.ask(b"GET", b"a")
    world.wire.tell((b"GET", b"b"))
    assert world.socket.writes == []
    await asyncio.sleep(0)
    world.ask(b"GET", b"c")
    await asyncio.sleep(0)

    assert [written.count(b"GET") for written in world.socket.writes] == [2, 1]


async def test_replies_go_to_their_callers_in_turn_however_they_are_cut() -> None:
    world = World()
    asked = [world.ask(b"GET", name) for name in (b"a", b"b", b"c")]
    for byte in b"$1\r\nA\r\n*2\r\n:1\r\n$-1\r\n$1\r\nC\r\n":
        world.wire.data_received(bytes([byte]))

    assert await asyncio.gather(*asked) == [b"A", [1, None], b"C"]


async def test_a_cancelled_caller_takes_no_reply_of_another() -> None:
    world = World()
    asked = [world.ask(b"GET", name) for name in (b"a", b"b", b"c")]
    asked[1].cancel()
    world.wire.data_received(b"+A\r\n+B\r\n+C\r\n")

    assert [await asked[0], await asked[2]] == [b"A", b"C"]


async def test_a_word_that_cannot_be_sent_disturbs_nobody() -> None:
    world = World()
    with pytest.raises(TypeError):
        world.wire.ask((b"GET", None))  # type: ignore[arg-type]
    asked = world.ask(b"GET", b"a")
    world.wire.data_received(b"+A\r\n")

    assert await asked == b"A"


async def test_more_than_the_bound_in_flight_is_refused() -> None:
    world = World(in_flight_max=2)
    asked = [world.ask(b"GET", b"a") for _ in range(3)]
    assert "2 commands wait" in str(await outcome(asked[2]))

    world.wire.data_received(b"+A\r\n")
    assert not world.ask(b"GET", b"a").done()
    assert world.failures == {"full": 1}


async def test_while_the_socket_takes_nothing_calls_are_refused() -> None:
    world = World()
    world.wire.pause_writing()
    assert "takes nothing" in str(await outcome(world.ask(b"GET", b"a")))

    world.wire.resume_writing()
    assert not world.ask(b"GET", b"a").done()


@pytest.mark.parametrize("bytes_of_no_sense", [b"hello\r\n", b"+unasked\r\n+unasked\r\n"])
async def test_what_makes_no_sense_ends_the_wire(bytes_of_no_sense: bytes) -> None:
    world = World()
    asked = [world.ask(b"GET", b"a")]
    world.wire.data_received(bytes_of_no_sense)

    await outcome(asked[0])
    assert world.socket.is_aborted
    assert isinstance(await outcome(world.ask(b"GET", b"a")), StoreDownError)
    assert len(world.lost) == 1


async def test_when_it_ends_all_who_wait_get_an_error_of_their_own() -> None:
    world = World()
    asked = [world.ask(b"GET", b"a") for _ in range(3)]
    world.wire.connection_lost(None)
    errors = [await outcome(future) for future in asked]

    assert all(isinstance(error, StoreDownError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert world.failures == {"lost": 3}
    assert world.lost == ["it closed the connection"]


async def test_one_late_reply_ends_the_wire() -> None:
    world = World(command_timeout_s=TIMEOUT_S)
    early = world.ask(b"GET", b"a")
    late = world.ask(b"GET", b"b")
    world.wire.data_received(b"+A\r\n")
    await until(lambda: not world.wire.is_open)

    assert await early == b"A"
    assert "no reply in 50 ms" in str(await outcome(late))
    assert world.failures == {"timeout": 1, "lost": 1}


async def test_replies_in_time_end_nothing() -> None:
    world = World(command_timeout_s=TIMEOUT_S)
    for _ in range(15):
        asked = world.ask(b"GET", b"a")
        await asyncio.sleep(TIMEOUT_S / 5)
        world.wire.data_received(b"+A\r\n")
        assert await asked == b"A"

    assert world.wire.is_open


async def test_a_refusal_is_an_error_of_its_caller_only() -> None:
    world = World()
    asked = [world.ask(b"GET", name) for name in (b"a", b"b")]
    world.wire.data_received(b"-ERR no\r\n+B\r\n")

    assert isinstance(await outcome(asked[0]), CommandError)
    assert await asked[1] == b"B"


async def test_an_error_nobody_takes_is_no_complaint_of_the_loop() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    world = World()
    world.ask(b"GET", b"a")
    world.wire.end("test")
    world.ask(b"GET", b"b")
    await asyncio.sleep(0)
    gc.collect()

    assert complaints == []
