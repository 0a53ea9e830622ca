"""A pong is a receipt for all that was sent before its ping: so the ping must really leave last."""

from __future__ import annotations

import asyncio

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dragoman.app import running_app
from dragoman.config.settings import Settings
from dragoman.protocol.session_messages import SessionInit


class _Order(WSListener):
    """Notes what comes, in its order, pings too."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.token = ""
        self.changed = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            self.seen.append("ping")
        elif frame.msg_type == WSMsgType.TEXT:
            message = msgspec.json.decode(frame.get_payload_as_bytes())
            self.seen.append(message["type"])
            self.token = message.get("resume_token", self.token)
        self.changed.set()

    async def sees(self, kind: str) -> None:
        async with asyncio.timeout(5):
            while kind not in self.seen:
                self.changed.clear()
                await self.changed.wait()


def test_the_ping_after_a_resume_comes_behind_the_ack() -> None:
    async def story() -> None:
        async with running_app(Settings.model_validate({"server": {"port": 0}})) as app:
            url = f"ws://127.0.0.1:{app.port}/ws/session"
            first, second = _Order(), _Order()
            init = SessionInit(client_version="1", platform="t", src_lang="en", tgt_lang="pt")
            transport, _ = await ws_connect(lambda: first, url)
            transport.send(WSMsgType.TEXT, msgspec.json.encode(init))
            await first.sees("session_init_ack")
            transport.disconnect(graceful=False)
            again, _ = await ws_connect(lambda: second, url, enable_auto_pong=False)
            resume = msgspec.structs.replace(init, resume_token=first.token)
            again.send(WSMsgType.TEXT, msgspec.json.encode(resume))
            await second.sees("ping")
            assert second.seen == ["session_init_ack", "ping"]
            again.disconnect()

    asyncio.run(story())
