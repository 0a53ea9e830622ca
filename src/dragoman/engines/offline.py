"""What can a node do with what is installed on this machine, and without a network?"""

from __future__ import annotations

from dragoman.engines import recognition, speech, translation
from dragoman.node import Services


def services(*, parallel: int = 1) -> Services:
    """Recognition, translation and speech: those whose packages and programs are here."""
    offered = recognition.services(parallel=parallel)
    offered.include(translation.services())
    offered.include(speech.services())
    return offered
