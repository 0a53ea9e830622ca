"""What do callers of one server get, while it is well, slow, gone and back? On either event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from dragoman.embedded import EmbeddedValkey, single_valkey
from dragoman.store.interface import StoreDownError
from dragoman.store.redis.connection import CommandError
from tests.redis.opened import ADD, COPY, ECHO, not_open, opened, outcome, until, until_it_answers


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"], autouse=True)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        yield runner


async def test_commands_and_scripts_are_answered(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url) as servers:
        await servers.call(b"greeting", "SET", b"greeting", "hello")
        await servers.call(b"count", "DEL", b"count")

        assert await servers.call(b"greeting", b"GET", b"greeting") == b"hello"
        assert await servers.run(ADD, [b"count"], [2]) == 2
        assert await servers.run(COPY, [b"greeting", b"nothing"], []) == [b"hello", None]
        assert await servers.run(ECHO, [b"any"], [1.5]) == b"1.5"
        assert await servers.everywhere("PING") == [b"PONG"]


async def test_thousands_who_ask_and_give_up_get_only_their_own_replies(valkey: EmbeddedValkey) -> None:
    async def echo(number: int) -> bytes:
        reply = await servers.run(ECHO, [b"any"], [number])
        assert isinstance(reply, bytes)
        return reply

    async with opened(valkey.url) as servers:
        for turn in range(5):
            numbers = range(turn * 1000, turn * 1000 + 1000)
            tasks = {number: asyncio.create_task(echo(number)) for number in numbers}
            await asyncio.sleep(0)
            for number in numbers[::3]:
                tasks[number].cancel()
            await asyncio.wait(tasks.values())
            for number, task in tasks.items():
                assert task.cancelled() if number % 3 == (turn * 1000) % 3 else task.result() == b"%d" % number


async def test_what_is_told_is_done_and_its_error_counted(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url) as servers:
        servers.tell(b"told", "SET", b"told", 1)
        servers.tell_script(ADD, [b"told"], [4])
        servers.tell(b"told", "LPUSH", b"told", 1)
        servers.tell_script(ADD, [b"told"], ["four"])

        assert await servers.call(b"told", "GET", b"told") == b"5"
        assert servers.failures == {"WRONGTYPE": 1, "ERR": 1}


async def test_a_command_that_is_wrong_is_the_fault_of_its_caller(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url) as servers:
        error = await outcome(servers.call(b"a", "NO-SUCH-COMMAND"))

        assert isinstance(error, CommandError)
        assert "unknown command" in str(error)
        assert servers.is_up


async def test_scripts_that_the_server_forgot_are_sent_again(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url) as servers:
        await servers.everywhere("SCRIPT", "FLUSH")

        assert await asyncio.gather(*[servers.run(ECHO, [b"any"], [n]) for n in range(3)]) == [b"0", b"1", b"2"]
        assert servers.failures == {}
        assert await servers.everywhere("SCRIPT", "EXISTS", ECHO.sha1) == [[1]]


async def test_replies_that_are_late_end_the_connection_and_reach_nobody_else(own_valkey: EmbeddedValkey) -> None:
    async with opened(own_valkey.url, command_timeout_ms=100) as servers:
        own_valkey.pause()
        late = [servers.run(ECHO, [b"any"], [f"late {n}"]) for n in range(10)]
        errors = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(error, StoreDownError) for error in errors)
        assert not servers.is_up

        own_valkey.resume()
        await until(lambda: servers.is_up)
        assert await servers.run(ECHO, [b"any"], ["mine"]) == b"mine"
        assert servers.failures["timeout"] == 1


async def test_a_program_that_stood_still_itself_does_not_blame_the_server(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url, command_timeout_ms=50) as servers:
        asked = servers.run(ECHO, [b"any"], ["here"])
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251  # the loop itself has to stand still

        assert await asked == b"here"


async def test_while_a_server_is_gone_calls_fail_at_once_and_then_service_is_whole_again(
    own_valkey: EmbeddedValkey,
) -> None:
    async with opened(own_valkey.url) as servers:
        ups: list[bool] = []
        servers.on_up(lambda: ups.append(servers.is_up))
        own_valkey.kill()
        await until(lambda: not servers.is_up)
        began_s = time.monotonic()
        for _ in range(100):
            assert isinstance(await outcome(servers.call(b"a", "GET", b"a")), StoreDownError)
            servers.tell(b"a", "SET", b"a", 1)
        assert time.monotonic() - began_s < 0.1
        assert ups == []

        own_valkey.restart()
        await until(lambda: servers.is_up)
        assert await servers.call(b"a", "GET", b"a") is None
        assert await servers.run(ADD, [b"a"], [1]) == 1
        assert ups == [True]


async def test_a_server_without_memory_is_down_for_whoever_writes(own_valkey: EmbeddedValkey) -> None:
    async with opened(own_valkey.url) as servers:
        own_valkey.call("CONFIG", "SET", "maxmemory", 1)

        for refused in (servers.call(b"a", "SET", b"a", 1), servers.run(ADD, [b"a"], [1])):
            error = await outcome(refused)
            assert isinstance(error, StoreDownError)
            assert "OOM" in str(error)
        assert await servers.call(b"a", "GET", b"a") is None
        assert servers.failures == {"OOM": 2}


async def test_a_server_that_became_a_replica_is_left_until_there_is_a_primary_again(
    own_valkey: EmbeddedValkey,
) -> None:
    async with opened(own_valkey.url) as servers:
        own_valkey.call("REPLICAOF", "127.0.0.1", 1)
        error = await outcome(servers.run(ADD, [b"a"], [1]))
        assert isinstance(error, StoreDownError)
        assert "READONLY" in str(error)
        await until(lambda: servers.failures["connect"] > 1)
        assert not servers.is_up

        own_valkey.call("REPLICAOF", "NO", "ONE")
        await until_it_answers(servers, b"a")
        assert await servers.run(ADD, [b"a"], [1]) == 1


async def test_a_read_that_blocks_has_servers_of_its_own_with_a_longer_time_out(valkey: EmbeddedValkey) -> None:
    async with opened(valkey.url, command_timeout_ms=1000) as reading, opened(valkey.url) as writing:
        nothing = await reading.call(b"news", "XREAD", "BLOCK", 50, "STREAMS", b"news", "$")
        read = reading.call(b"news", "XREAD", "BLOCK", 900, "STREAMS", b"news", "$")
        await asyncio.sleep(0.02)
        await writing.call(b"news", "XADD", b"news", "1-1", "k", "v")
        await writing.call(b"news", "DEL", b"news")

        assert nothing is None
        assert await read == [[b"news", [[b"1-1", [b"k", b"v"]]]]]


async def test_what_was_told_before_the_close_is_done_and_after_it_nothing(valkey: EmbeddedValkey) -> None:
    servers = not_open(valkey.url)
    await servers.open()
    servers.tell(b"last", "SET", b"last", "word")
    await servers.close()

    assert valkey.call("GET", "last") == b"word"
    assert isinstance(await outcome(servers.call(b"last", "GET", b"last")), StoreDownError)
    assert not servers.is_up


async def test_a_database_is_chosen_again_after_a_loss(own_valkey: EmbeddedValkey) -> None:
    async with opened(f"{own_valkey.url}/3") as servers:
        own_valkey.restart()
        await until_it_answers(servers, b"a")
        await servers.call(b"a", "SET", b"a", 1)

        assert b"db3:keys=1" in own_valkey.call("INFO", "keyspace")


@pytest.mark.slow
async def test_a_server_is_busy_while_a_script_runs_for_long() -> None:
    endless = "while true do end"
    with single_valkey(options=("--busy-reply-threshold", "20")) as valkey:
        async with opened(valkey.url) as servers, opened(valkey.url) as others:
            running = servers.call(b"a", "EVAL", endless, 0)
            await asyncio.sleep(0.1)
            error = await outcome(others.call(b"a", "GET", b"a"))
            await others.everywhere("SCRIPT", "KILL")

            assert isinstance(error, StoreDownError)
            assert "BUSY" in str(error)
            assert isinstance(await outcome(running), CommandError)
