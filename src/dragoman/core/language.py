"""When do two language tags mean the same language?

Tags are BCP 47 (RFC 5646). People say `zh-CN`, nodes say `zh`, files say `zh_Hans`: selection compares the primary
language only, so a node that lists `zh` serves `zh-CN` and the reverse.
What the client wrote goes to the node as is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NewType

Language = NewType("Language", str)
"""A primary language subtag in lower case, or AUTO."""

AUTO = Language("auto")
"""A source language that the node is to find out."""

_TAG = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")
# Deprecated in the IANA subtag registry, still written by old programs.
_RENAMED = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro"}
# Macrolanguages whose usual member is written both ways (RFC 5646 section 4.1.2).
_MEMBERS = {"cmn": "zh", "arb": "ar", "nob": "no", "nb": "no", "zsm": "ms", "pes": "fa", "swh": "sw"}


class LanguageTagError(ValueError):
    """A text that is no language tag."""


@lru_cache(maxsize=4096)
def parse_language(tag: str) -> Language:
    """The language of a tag: `zh-CN`, `zh_Hant` and `cmn` are all `zh`.

    Raises LanguageTagError, which says what was seen and what is wanted.
    """
    if not _TAG.fullmatch(tag) or len(tag) > 35:
        raise LanguageTagError(f"{tag[:40]!r} is no language tag; wanted one like 'en', 'pt-BR' or 'auto'")
    primary = re.split("[-_]", tag.lower())[0]
    primary = _RENAMED.get(primary, primary)
    return Language(_MEMBERS.get(primary, primary))
