"""How does my program get something translated? One session, as many utterances at a time as you like."""

import asyncio

from dragoman.client import DragomanError, connect


async def main() -> None:
    async with connect("ws://127.0.0.1:5010/ws/session", src="en", tgt="es") as session:
        # Speech goes the same way: session.translate(Audio.from_wav("hello.wav"))
        texts = ["Good morning.", "Where is the library?"]
        for result in await asyncio.gather(*map(session.translate, texts), return_exceptions=True):
            if isinstance(result, DragomanError):
                print(f"failed: {result}, worth another try: {result.retryable}")
            elif not isinstance(result, BaseException):
                print(f"{result.translated} ({result.elapsed_s:.3f} s, {result.job_id})")


if __name__ == "__main__":
    asyncio.run(main())
