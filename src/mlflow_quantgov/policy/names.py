"""When two names are one: the form in which they are compared, what nobody can see, and what looks alike."""

from __future__ import annotations

import unicodedata

MAX_NAME = 256
"""Characters of a registered model's name; PostgreSQL refuses more, SQLite does not."""

_UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Drawn as nothing, although Unicode files them under letters and marks, or keeps the place for such.
_UNSEEN = frozenset(
    chr(code)
    for code in (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2065, 0x2800, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE10),
        *range(0xFFF0, 0xFFF9),
        *range(0xE0000, 0xE1000),
    )
)
# Letters of other scripts, and of Latin itself, that most fonts draw like a Latin small letter.
_LOOKALIKES = str.maketrans(
    {
        "ı": "i", "ȷ": "j", "ɑ": "a", "ɡ": "g", "ɩ": "i", "ʟ": "l", "ɴ": "n", "ʀ": "r", "ʏ": "y",
        "а": "a", "в": "b", "е": "e", "к": "k", "м": "m", "н": "h", "о": "o", "р": "p", "с": "c", "т": "t",
        "у": "y", "х": "x", "ѕ": "s", "і": "i", "ј": "j", "ԁ": "d", "һ": "h", "ԛ": "q", "ԝ": "w", "ӏ": "l", "ԍ": "g",
        "α": "a", "β": "b", "γ": "y", "ε": "e", "ι": "i", "κ": "k", "ν": "v", "ο": "o", "ρ": "p", "τ": "t", "υ": "u",
        "χ": "x", "ω": "w", "η": "n", "ϲ": "c", "ϳ": "j",
        "օ": "o", "ո": "n", "ս": "u", "հ": "h", "ց": "g", "ӕ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ħ": "h",
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "−": "-", "⁃": "-", "﹣": "-",
    }
)  # fmt: skip


def fold(name: str) -> str:
    """The form in which names are compared: NFKC, casefolded, nothing unseen, single spaces, outer spaces dropped."""
    # One step may bring to light what another would have changed: what is unseen keeps two signs from composing.
    while (text := _folded_once(name)) != name:
        name = text
    return name


def _folded_once(name: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(sign for sign in text if sign.isspace() or not _is_unseen(sign)).split())


def skeleton(name: str) -> str:
    """A coarser form: accents dropped and look-alikes of other scripts replaced, so that what looks alike is alike."""
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", fold(name)) if not unicodedata.combining(sign))
    return fold(bare.translate(_LOOKALIKES))


def unseen(name: str) -> str | None:
    """The first character of a name that no screen shows, as `U+200B ZERO WIDTH SPACE`; None where all are seen."""
    for sign in name:
        if _is_unseen(sign):
            return f"U+{ord(sign):04X} {unicodedata.name(sign, 'a control character')}"
    return None


def _is_unseen(sign: str) -> bool:
    return unicodedata.category(sign) in _UNSEEN_CATEGORIES or sign in _UNSEEN
