"""Does a session open, say who it is, keep a sign of life and close, or say why it cannot?"""

import asyncio
import ssl
from typing import Any

import pytest

from dragoman.client import (
    ConnectFailedError,
    DragomanError,
    ForbiddenError,
    SessionEndedError,
    UnauthorizedError,
    connect,
)
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    ClientHeartbeat,
    SessionClose,
    Utterance,
)
from tests.client.fake_scheduler import failure, fake_scheduler, opened, result


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://x"}, "wanted one that begins with ws:// or wss://"),
        ({"src": "?"}, "is no language tag"),
        ({"tgt": "auto"}, "nothing can be translated into that"),
        ({"auto_langs": ["x"]}, "is no language tag"),
        ({"two_way": True, "tgt": "en-GB"}, "wanted two languages"),
        ({"timeout_s": 0}, "timeout_s = 0"),
    ],
)
def test_a_wrong_option_is_refused_before_connecting(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect(**({"url": "ws://127.0.0.1:1", "src": "en", "tgt": "es"} | options))


def test_the_opening_says_who_wants_what() -> None:
    async def story() -> None:
        options = {"token": "s3cret", "tenant": "acme", "two_way": True, "partials": True, "auto_langs": ["fr"]}
        async with fake_scheduler() as scheduler, opened(scheduler, **options) as (session, peer):
            init = peer.seen[0]
            assert peer.token == "Bearer s3cret"
            assert (session.id, session.instance_id) == ("s-1", "i-1")
            expected = {"tenant_id": "acme", "mode": "two_way_auto", "lang_a": "en", "lang_b": "es"}
            assert expected.items() <= {name: getattr(init, name) for name in init.__struct_fields__}.items()
            assert not hasattr(init, "tls")

    asyncio.run(story())


def test_nobody_there_is_a_connection_error_that_names_the_address() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            url = scheduler.url
        with pytest.raises(ConnectFailedError, match=url) as caught:
            await connect(url, src="en", tgt="es").__aenter__()
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.retryable
        context = ssl.create_default_context()
        with pytest.raises(ConnectFailedError):
            await connect(url.replace("ws:", "wss:"), src="en", tgt="es", tls=context).__aenter__()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "kind"), [(401, UnauthorizedError), (403, ForbiddenError), (503, ConnectFailedError)]
)
def test_an_http_refusal_has_the_type_of_its_status(status: int, kind: type[DragomanError]) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            scheduler.refuse_with = status
            with pytest.raises(kind, match=str(status)):
                await connect(scheduler.url, src="en", tgt="es").__aenter__()

    asyncio.run(story())


def test_a_refused_session_raises_what_the_scheduler_said() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            opening = asyncio.create_task(connect(scheduler.url, src="en", tgt="es").__aenter__())
            await (await scheduler.peer()).refuse("UNAUTHORIZED")
            with pytest.raises(UnauthorizedError):
                await opening

    asyncio.run(story())


def test_a_scheduler_that_does_not_answer_the_opening_is_given_up() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            session = connect(scheduler.url, src="en", tgt="es", connect_timeout_s=0.1)
            with pytest.raises(ConnectFailedError, match=r"did not open a session within 0.1 s"):
                await session.__aenter__()

    asyncio.run(story())


def test_leaving_the_block_closes_the_session_and_fails_what_is_under_way() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            async with opened(scheduler) as (session, peer):
                utterance = await session.submit("hello")
                await peer.expect(Utterance)
            assert isinstance(peer.seen[-1], SessionClose)
            with pytest.raises(SessionEndedError):
                await utterance.result()
            with pytest.raises(SessionEndedError):
                await session.translate("more")
            with pytest.raises(SessionEndedError):
                await session.__aenter__()
            assert len(asyncio.all_tasks()) < 5

    asyncio.run(story())


def test_a_session_that_is_not_open_says_so() -> None:
    async def story() -> None:
        with pytest.raises(SessionEndedError, match="async with connect"):
            await connect("ws://127.0.0.1:1", src="en", tgt="es").translate("hello")

    asyncio.run(story())


def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:

            async def use() -> None:
                async with connect(scheduler.url, src="en", tgt="es"):
                    raise LookupError("of the program")

            using = asyncio.create_task(use())
            await (await scheduler.peer()).welcome()
            with pytest.raises(LookupError, match="of the program"):
                await using

    asyncio.run(story())


def test_heartbeats_tell_how_many_terminals_came() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, heartbeat_s=0.05, retry=None) as (session, peer):
            first = await session.submit("a")
            asked = await peer.expect(Utterance)
            await peer.send(result(asked), result(asked), failure("X", 1), Error(code="X", message="of nothing"))
            await first.result()
            while (await peer.expect(ClientHeartbeat)).terminals_received != 3:
                continue

    asyncio.run(story())
