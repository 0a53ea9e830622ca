"""How do I make a node of my own? Three functions, each with its languages, and one line that runs them."""

from dragoman.node import Audio, Node, Services

services = Services()


@services.recognises("en")
async def recognise(audio: Audio) -> str:
    return f"{audio.duration_s:.1f} seconds of speech"  # your model: audio.data is PCM16 mono at audio.sample_rate


@services.translates(("en", "pt"), ("pt", "en"))
async def translate(text: str, src: str, tgt: str) -> str:
    return f"{text} [{src} to {tgt}]"


@services.speaks("en", "pt")
def speak(text: str, lang: str) -> Audio:  # without async: it may block, and runs in a thread
    return Audio(data=bytes(2 * 800 * len(text)), sample_rate=16_000)


if __name__ == "__main__":
    Node(services, slots=2).run("ws://127.0.0.1:5010/ws/node")
