"""Personal data in texts, by patterns narrow enough that a hit is worth a look. Counts alone leave this module."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

MAX_CHARACTERS = 100_000
"""Characters of a document that are searched."""
_MAIL = re.compile(
    r"(?<![\w.%+-])([A-Za-z0-9._%+-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24})(?![\w-])", re.ASCII
)
_INTERNATIONAL = re.compile(r"(?<![\w+./(-])\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){2,6}(?![\w(-]|\.\d)")
_AMERICAN = re.compile(r"(?<![\w.+/-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])([2-9]\d\d)[-.](\d{4})(?![\w-]|\.\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![a-z0-9])")
_CARD = re.compile(r"(?<![\w.+-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?![\w-]|\.\d)")
_ISSUERS = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|6(?:011|4[4-9]|5)|35(?:2[89]|[3-8])|62")
_IPV4 = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{4,34}(?![\w:])")
_VERSION = re.compile(r"(?:version|release|build|section|chapter|v|==|>=)\s*$", re.IGNORECASE)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_VOID_SSN = {"078-05-1120", "219-09-9999"}
"""Printed on sample cards, and void for that reason."""
_KEYS = re.compile(
    r"(?<![\w-])(?:sk-(?:proj-|ant-)?[A-Za-z0-9_-]{24,}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50,}|glpat-[\w-]{20}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|hf_[A-Za-z0-9]{34}|xox[abprs]-[A-Za-z0-9-]{20,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])|-----BEGIN (?:[A-Z]{2,8} )?PRIVATE KEY-----"
)
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net|edu))?|test|invalid|localhost)$", re.IGNORECASE)
"""Names that nobody can own (RFC 2606)."""
_FILES = frozenset({"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "py"})
"""Ends of file names (`logo@2x.png`), and no top-level domains."""
_SMALL = 32
"""Four numbers below this are a version or a public resolver rather than somebody's address."""
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23,
    "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24, "TR": 26,
    "UA": 29, "VA": 22, "XK": 20,
}  # fmt: skip
"""Length by country (ISO 13616 registry)."""


def holds(kind: str, text: str) -> bool:
    """Whether a text holds personal data of a kind, one of `KINDS`."""
    return any(_FINDERS[kind](text[:MAX_CHARACTERS]))


def passes_luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Length of its country, and the check digits (ISO 13616: the rearranged number leaves 1 when divided by 97)."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def _mails(text: str) -> Iterable[bool]:
    for match in _MAIL.finditer(text) if "@" in text else ():
        local, domain = match.groups()
        # `git@github.com:...` and `logo@2x.png` are addresses of no person.
        if local.lower() == "git" or domain.rpartition(".")[2].lower() in _FILES or _RESERVED.search(domain):
            continue
        yield True


def _phones(text: str) -> Iterable[bool]:
    for match in _INTERNATIONAL.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        separated = bool(re.search(r"\d[ .()-]+\d", match[0]))
        if (9 if separated else 10) <= len(digits) <= 15 and not re.fullmatch(r"1\d{3}55501\d\d", digits):
            yield True
    for match in _AMERICAN.finditer(text):
        if match[1] != "555":  # set aside for fiction
            yield True


def _ibans(text: str) -> Iterable[bool]:
    for match in _IBAN.finditer(text):
        # Words in capitals may follow: the country says where it ends.
        letters = match[0].replace(" ", "")
        if is_iban(letters[: _IBAN_LENGTHS.get(letters[:2], 0)]):
            yield True


def _cards(text: str) -> Iterable[bool]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _ISSUERS.match(digits) and len(set(digits)) > 2 and passes_luhn(digits):
            yield True


def _addresses(text: str) -> Iterable[bool]:
    for match in _IPV4.finditer(text):
        parts = [int(one) for one in match[0].split(".")]
        if max(parts) < _SMALL or _VERSION.search(text[max(0, match.start() - 12) : match.start()]):
            continue
        if _is_global(match[0]):
            yield True
    for match in _IPV6.finditer(text):
        if _is_global(match[0]):
            yield True


def _is_global(address: str) -> bool:
    """Private, local and documentation addresses belong to nobody in particular."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _numbers(text: str) -> Iterable[bool]:
    return (match[0] not in _VOID_SSN for match in _SSN.finditer(text))


def _keys(text: str) -> Iterable[bool]:
    for match in _KEYS.finditer(text):
        found = match[0]
        random = len(set(found)) > 10 and any(letter.isdigit() for letter in found)
        if "EXAMPLE" not in found.upper() and (random or found.startswith("-----")):
            yield True


_FINDERS: dict[str, Callable[[str], Iterable[bool]]] = {
    "e-mail": _mails,
    "phone": _phones,
    "iban": _ibans,
    "payment-card": _cards,
    "ip-address": _addresses,
    "us-ssn": _numbers,
    "api-key": _keys,
}
KINDS = tuple(_FINDERS)
