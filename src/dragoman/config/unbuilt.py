"""What can be set already, and is not built yet?"""

from __future__ import annotations

from dragoman.config.settings import Settings


def unbuilt_features(settings: Settings) -> tuple[str, ...]:
    """One sentence for each setting that is read and checked, but would not be honoured."""
    asked = (
        (settings.auth.mode != "none", '[auth] mode = "jwt": signed tokens are not built yet; leave it out'),
        (
            settings.observability.otlp_endpoint != "",
            "[observability] otlp_endpoint: traces are not built yet; leave it out",
        ),
    )
    return tuple(sentence for is_asked, sentence in asked if is_asked)
