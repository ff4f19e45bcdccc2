"""Quality of calibration documents: what is counted, what is no false alarm, and what is said where nothing judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.calibration import expectations as calibration_expectations
from mlflow_quantgov.evidence.measure.calibration import languages
from mlflow_quantgov.evidence.measure.calibration.expectations import check_quality
from mlflow_quantgov.evidence.measure.calibration.personal_data import KINDS, holds, is_iban, passes_luhn
from mlflow_quantgov.evidence.measure.calibration.text_encoding import FAULTS, shows
from mlflow_quantgov.evidence.measure.documents import read_documents


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("e-mail", "write to jane.doe+news@mail.acme.co.uk, please"),
        ("phone", "ring +49 211 1234567 after six"),
        ("phone", "ring (415) 867-5309"),
        ("phone", "ring +4915112345678."),
        ("iban", "pay to DE89 3704 0044 0532 0130 00 today"),
        ("iban", "pay to GB82WEST12345698765432 NOW"),
        ("payment-card", "card 4539 1488 0343 6467, thanks"),
        ("payment-card", "card 371449635398431"),
        ("ip-address", "came from 81.2.69.142 at noon"),
        ("ip-address", "came from 2a02:8108:9a40:1c8:d5f:1:2:3"),
        ("us-ssn", "my number is 536-22-1234"),
        ("api-key", "token ghp_aB3dE6gH9jK2mN5pQ8rS1tU4vW7xY0zA3bC6"),
        ("api-key", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_personal_data_is_found_and_named(kind: str, text: str) -> None:
    assert [one for one in KINDS if holds(one, text)] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "git clone git@github.com:acme/boots", "user@example.com", "logo@2x.png", "@app.route('/x')",
        "2024-01-02 10:11:12", "version 1.2.30.44", "192.168.1.20 and 127.0.0.1", "8.8.8.8", "2001:db8::1", "12:30:45:10",
        "order 1234 5678 9012 3456", "3.1415926535897932", "ISBN 978-3-16-148410-0", "000-12-3456", "078-05-1120",
        "415-555-2671", "1+2345678901", "DE89 3704 0044 0532 0130 01", "0x7fff5fbff8a0", "AKIAIOSFODNN7EXAMPLE",
        "sk-learn-is-a-nice-package-for-people-ok", "0000 0000 0000 0000", "100-200-3000 parts", "sum = 4 + 12 345 678",
    ],
)  # fmt: skip
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert [one for one in KINDS if holds(one, f"see {text} here")] == []


def test_library_code_and_support_chats_raise_few_alarms(python_texts: list[str], support_texts: list[str]) -> None:
    for kind in KINDS:
        assert sum(holds(kind, text) for text in python_texts[:300] + support_texts) <= 3, kind


def test_check_digits_are_those_of_the_standards() -> None:
    assert passes_luhn("79927398713") and not any(passes_luhn(f"7992739871{digit}") for digit in "012456789")
    assert is_iban("NL91ABNA0417164300") and not is_iban("NL91ABNA0417164301") and not is_iban("XX00")


@given(st.text(max_size=300))
def test_any_text_is_searched(text: str) -> None:
    assert all(holds(kind, text) in {True, False} for kind in KINDS)
    assert all(shows(fault, text) in {True, False} for fault in FAULTS)


@given(st.text(alphabet="éèüßñçøåÀÉÜ€’“”–αβγдия", min_size=1, max_size=20))
def test_text_that_was_decoded_wrongly_is_mojibake(text: str) -> None:
    try:
        wrong = text.encode().decode("cp1252")
    except UnicodeDecodeError:
        return
    long = wrong * 4
    # A single capital with a quote behind it is what a person may write.
    assert shows("mojibake", long) or set(text) <= set("ÀÉÜßαβγдия“”")


@pytest.mark.parametrize(
    "text",
    [
        "„MENÜ“, CAFÉ—BAR, «DÉJÀ», NÃO, IRMÃ”, Århus, façade, naïve", "Î Ï Ð Ñ â ã", "25 °C ± 1, § 4, 3 × 5, ½",
        "Приветствие, κόσμε, 你好, 😀", "l’âge, pâte, âme", "tab\tand\r\nform\x0cfeed",
    ],
)  # fmt: skip
def test_ordinary_accents_are_no_fault(text: str) -> None:
    assert [one for one in FAULTS if shows(one, text)] == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("mojibake", "it doesnâ€™t work"), ("mojibake", "caf\u00c3\u00a9"), ("mojibake", "25 \u00c2\u00b0C"),
        ("mojibake", "\u00f0\u0178\u02dc\u20ac"), ("replacement-characters", "caf\ufffd"),
        ("control-characters", "a\x1b[0m"), ("control-characters", "a\x85b\x93c"), ("byte-order-marks", "one\ufefftwo"),
    ],
)  # fmt: skip
def test_each_fault_is_named(fault: str, text: str) -> None:
    assert [one for one in FAULTS if shows(one, text)] == [fault]


def test_without_the_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_expectations, "installed", lambda: False)
    found = check_quality(["a document"])
    assert (found["evaluated"], found["failed"]) == (0, [])
    assert "not installed" in found["not_checked"] and "mlflow-quantgov[calibration]" in found["not_checked"]
    assert "not asked for" in check_quality(["a document"], wanted=False)["not_checked"]


@pytest.mark.slow
def test_great_expectations_counts_and_names_what_is_wrong(python_texts: list[str]) -> None:
    pytest.importorskip("great_expectations")
    good = check_quality([f"{text} {number}" for number, text in enumerate(python_texts[:60])])
    assert good["evaluated"] >= 16 and good["library"].startswith("great-expectations ")
    secret = "mail jane.doe@acme.org about the boots, they doesnâ€™t fit"
    bad = check_quality(["", "short", "twice the same text", "twice the same text", "Twice: the same text!", secret])
    failed = {
        "empty",
        "too-short",
        "duplicate",
        "duplicate-but-for-layout",
        "encoding: mojibake",
        "personal-data: e-mail",
    }
    assert set(bad["failed"]) - {"other-language"} == failed
    by_name = {one["name"]: one for one in bad["results"]}
    assert by_name["duplicate"] | {"threshold": 0, "outcome": ""} == {
        "name": "duplicate", "count": 2, "share": 0.4, "threshold": 0, "outcome": "",
    }  # fmt: skip
    assert "jane.doe" not in json.dumps(bad, allow_nan=False)
    if not languages.installed():
        assert "py3langid" in bad["not_checked"]


@pytest.mark.slow
def test_of_very_many_documents_a_fixed_sample_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("great_expectations")
    monkeypatch.setattr(calibration_expectations, "MAX_DOCUMENTS", 20)
    texts = [f"The kettle of order {n} arrived late, and nobody could say why." for n in range(40)]
    found = check_quality([*texts, *texts])
    assert found["documents"] == 20 and found == check_quality([*texts[::-1], *texts])
    assert next(one["count"] for one in found["results"] if one["name"] == "duplicate") == 20


ENGLISH = [
    f"The kettle of order {n} arrived late, and nobody at the shop could tell me why it had happened." for n in range(8)
]
GERMAN = [
    f"Der Wasserkocher aus Bestellung {n} kam zu spät an, und niemand im Laden konnte mir sagen, weshalb."
    for n in range(8)
]


@pytest.mark.needs("py3langid")
def test_languages_are_told_the_same_way_each_time() -> None:
    texts = [*ENGLISH, *GERMAN, "Hm.", "x = 1"]
    found = languages.languages_of(texts)
    assert found == ["en"] * 8 + ["de"] * 8 + [None, None] == languages.languages_of(texts)
    assert languages.common_languages(found) == {"en", "de"} and languages.main_language(found) == "de"
    assert (
        languages.common_languages(["en"] * 200 + ["de"]) == {"en"}
        and languages.common_languages([None]) == frozenset()
    )


@pytest.mark.slow
@pytest.mark.needs("py3langid")
def test_the_languages_of_production_are_the_expected_ones() -> None:
    pytest.importorskip("great_expectations")
    assert "other-language" in check_quality([*ENGLISH, *GERMAN[:4]])["failed"]
    assert "other-language" not in check_quality([*ENGLISH, *GERMAN[:4]], [*ENGLISH, *GERMAN])["failed"]
    assert "other-language" in check_quality(ENGLISH, GERMAN)["failed"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "half', "line 1 is no JSON"),
        ("a.jsonl", b'{"text": "one"}\n{"words": 1}\n', "line 2 has neither"),
        ("a.json", b'[\n{"text": "one"}\n]', "opens an array"),
        ("a.txt", b"GGUF\x00\x00\x03", "binary"),
        ("a.txt", "words".encode("utf-16"), "UTF-16"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.jsonl", b"", "no documents"),
        ("a.jsonl", b'{"text": ' * 100_000, "line 1"),
    ],
)
def test_files_that_cannot_be_used_are_one_clear_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_documents(tmp_path / name)
    assert words in caught.value.what and name in caught.value.what and caught.value.fix
    assert len(caught.value.what) < 300


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match="larger than 256 MB"):
        read_documents(path)


def test_a_mark_in_front_is_no_part_of_the_text(tmp_path: Path, write_jsonl: Callable[..., Path]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one two"}\r\n')
    assert read_documents(path) == ["one two"]
    plain = tmp_path / "a.txt"
    plain.write_bytes(b"one\r\n\r\ntwo\r\n")
    assert read_documents(plain) == ["one", "two"]
