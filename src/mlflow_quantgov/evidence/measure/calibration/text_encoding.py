"""What a text looks like that was decoded or joined wrongly somewhere on its way."""

from __future__ import annotations

import re

# UTF-8 that was read as Windows-1252. Only what no language writes: quotes and dashes after a capital are left out,
# since "IRMÃ" or "CAFÉ" may well stand before one.
_MISREAD = re.compile(
    r"Ã[\x80-\xa9\xac-\xba\xbc-\xbf‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™š›œžŸ]|Â[\x80-\xa9\xac-\xba\xbc-\xbf]|â(?:€|‚¬|„¢|\x80[\x90-\xbf])"
    r"|ï(?:»¿|¿½)|ð(?:Ÿ|\x9f)|(?:[ÐÑ][\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]){3}"
    r"|(?:[ÎÏ][\x80-\xbf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]){3}"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]")

FAULTS: dict[str, re.Pattern[str]] = {
    "mojibake": _MISREAD,
    "replacement-characters": re.compile("\ufffd"),
    "control-characters": _CONTROLS,
    "byte-order-marks": re.compile("[\ufeff\ufffe]"),
}
"""Name of each fault, and what it looks like. A mark at the very start of a file is none: it was read away."""


def shows(fault: str, text: str) -> bool:
    """Whether a text shows a fault, one of `FAULTS`."""
    return FAULTS[fault].search(text) is not None
