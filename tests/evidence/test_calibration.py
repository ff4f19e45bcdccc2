"""Calibration data: recorded by digest, generic sets and leaks recognised, likeness judged from real texts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.generic_sets import known_sets, named_set
from mlflow_quantgov.evidence.measure.calibration import assess, compare_files
from mlflow_quantgov.evidence.measure.calibration.generic import recognise
from mlflow_quantgov.evidence.measure.calibration.near_copies import near_copies
from mlflow_quantgov.evidence.measure.calibration.overlap import (
    evaluation_items,
    leaked,
    normalise,
    shared,
    text_digest,
)
from mlflow_quantgov.evidence.measure.calibration.shingles import found_in, shingles_of
from mlflow_quantgov.evidence.measure.documents import file_digest, read_documents
from mlflow_quantgov.evidence.measure.tasks import folder_digest

Write = Callable[..., Path]
ORDINARY = ["The kettle that I ordered on Monday never came.", "Where do I return a pair of boots?"]


def test_like_files_pass_with_the_whole_contract(python_texts: list[str], write_jsonl: Write) -> None:
    calibration, production = write_jsonl("a.jsonl", python_texts[:150]), write_jsonl("b.jsonl", python_texts[150:300])
    found = compare_files(calibration, production, expectations=False)
    assert found["outcome"] == "pass", found["reason"]
    assert found["documents"] == {"calibration": 150, "production": 150}
    assert (found["generic_set"], found["leaked_documents"], found["shared_with_production"]) == (None, 0, 0)
    assert (found["expectations"]["evaluated"], found["expectations"]["failed"]) == (0, [])
    assert [test["name"] for test in found["tests"]] == ["surface", "meaning", "classifier", "phrases"]
    assert {"name", "estimate", "lower", "upper", "threshold", "outcome"} <= found["tests"][0].keys()
    assert {"feature", "calibration", "production"} <= set(found["most_different"][0])
    assert found["reason"]
    json.dumps(found, allow_nan=False)


def test_another_domain_fails_and_says_where(
    python_texts: list[str], support_texts: list[str], write_jsonl: Write
) -> None:
    found = compare_files(
        write_jsonl("a.jsonl", python_texts[:120]), write_jsonl("b.jsonl", support_texts[:120]), expectations=False
    )
    assert found["outcome"] == "fail"
    assert found["most_different"][0]["feature"] in found["reason"]


def test_a_handful_of_documents_is_inconclusive(python_texts: list[str], write_jsonl: Write) -> None:
    found = compare_files(
        write_jsonl("a.jsonl", python_texts[:12]), write_jsonl("b.jsonl", python_texts[12:24]), expectations=False
    )
    assert found["outcome"] == "inconclusive"
    assert "documents" in found["reason"]


def test_one_document_against_one_is_not_measured(write_jsonl: Write) -> None:
    found = compare_files(
        write_jsonl("a.jsonl", ORDINARY[:1]), write_jsonl("b.jsonl", ORDINARY[1:]), expectations=False
    )
    assert (found["outcome"], found["tests"]) == ("inconclusive", [])
    assert found["reason"].startswith("Not measured")


def test_calibrating_on_the_yardstick_fails(python_texts: list[str], write_jsonl: Write) -> None:
    edited = [text.upper().replace(",", " ,") for text in python_texts[:3]]
    found = compare_files(
        write_jsonl("a.jsonl", python_texts[200:300] + edited), write_jsonl("b.jsonl", python_texts[:120]),
        expectations=False,
    )  # fmt: skip
    assert found["shared_with_production"] == 3
    assert found["outcome"] == "fail" and "production sample" in found["reason"]


def test_greetings_on_both_sides_are_no_copies(support_texts: list[str], write_jsonl: Write) -> None:
    left = write_jsonl("a.jsonl", [*support_texts[:100], "Hello!", "Thanks."])
    right = write_jsonl("b.jsonl", [*support_texts[100:200], "hello", "thanks"])
    assert compare_files(left, right, expectations=False)["shared_with_production"] == 0


def test_evaluation_items_among_the_documents_are_found(task_folder: Path, write_jsonl: Write) -> None:
    rows = [{"prompt": f"Name the {n}th river of the valley, please.", "rule": "Answer in one word only, please."}
            for n in range(4)]  # fmt: skip
    (task_folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert len(evaluation_items(task_folder)) == 4  # the rule is in every item: a template, no item
    documents = [
        "name the 2th RIVER of the valley please",
        "Question\nName the 3th river of the valley, please.\nAnswer",
        "Answer in one word only, please.",
        *ORDINARY,
    ]
    found = assess(write_jsonl("a.jsonl", documents), None, tasks=task_folder, expectations=False)
    assert found.leaked_documents == 2 and found.searched_tasks == folder_digest(task_folder)
    assert found.summary["outcome"] == "fail"


def long_texts(count: int, seed: int) -> list[str]:
    """Texts of sixty made-up words each, which share nothing."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(3, 8))) for _ in range(5000)]
    return [" ".join(rng.choices(words, k=60)) for _ in range(count)]


def test_near_copies_are_found_in_longer_texts_and_as_cut_outs() -> None:
    others, fresh = long_texts(40, 1), long_texts(40, 2)
    edited = others[0].split()
    edited[30] = "changed"
    longer = f"{fresh[0]}\n{others[1]}\n{fresh[1]}"
    cut = " ".join(others[2].split()[20:45])
    half = " ".join(others[3].split()[:30] + fresh[2].split()[:30])
    documents = [" ".join(edited), longer, cut, half, *fresh[3:]]
    assert near_copies(documents, others).tolist() == [True, True, True] + [False] * (len(documents) - 3)
    assert near_copies(documents, others[::-1]).tolist() == near_copies(documents, [*others, *others]).tolist()
    assert (
        not near_copies([], others).any()
        and not near_copies(documents, []).any()
        and not near_copies(["a"], ["a"]).any()
    )


def test_templates_that_many_share_are_no_copies() -> None:
    template = " ".join(long_texts(1, 3))
    left = [f"{template} {text[:60]}" for text in long_texts(20, 4)]
    right = [f"{template} {text[:60]}" for text in long_texts(20, 5)]
    assert near_copies(left, right).sum() == 0
    copied = f"{left[0]} {long_texts(1, 6)[0]}"
    assert near_copies(left, [*right, copied]).tolist() == [True] + [False] * 19  # what is its own was copied


def test_texts_without_spaces_are_compared_too() -> None:
    text = "春眠不覚暁処処聞啼鳥夜来風雨声花落知多少白日依山尽黄河入海流欲窮千里目更上一層楼"
    assert near_copies([text[:36] + "終"], [text]).tolist() == [True]
    assert near_copies([text[::-1]], [text]).tolist() == [False]


def test_a_few_near_copies_are_chance_and_many_are_not() -> None:
    others, fresh = long_texts(40, 1), long_texts(40, 2)
    near = [f"{text} and some more words of my own" for text in others]
    assert shared([*near[:2], *fresh[2:]], others) == 0
    assert shared([*near[:4], *fresh[4:]], others) == 4
    assert shared([others[0], *fresh[1:]], others) == 1
    assert shared(["Where is my order?", *fresh[1:]], [*others, "where is my order"]) == 0
    assert shared(["Where is my order?"] * 5, [*others, "where is my order"]) == 5
    assert leaked([near[0], *fresh[1:]], others) == 1 and leaked(fresh, others) == leaked(fresh, []) == 0


@given(
    st.lists(st.text(alphabet="ab ", max_size=60), max_size=6),
    st.lists(st.text(alphabet="ab ", max_size=60), max_size=6),
)
def test_any_texts_are_compared(documents: list[str], others: list[str]) -> None:
    found = near_copies(documents, others)
    assert found.shape == (len(documents),)
    assert 0 <= shared(documents, others) <= len(documents)


def test_items_are_read_from_arrays_messages_and_passages(task_folder: Path) -> None:
    passage = long_texts(1, 7)[0]
    rows = [
        {
            "messages": [{"role": "user", "content": f"Which of the rivers is number {n}?"}],
            "passage": passage if n < 2 else "",
        }
        for n in range(30)
    ]
    (task_folder / "items.jsonl").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    items = evaluation_items(task_folder)
    assert len(items) == 31 and passage in items
    assert leaked([f"Read this.\n{passage}\nThen answer."], items) == 1


def test_without_production_nothing_passes(python_texts: list[str], write_jsonl: Write) -> None:
    path = write_jsonl("a.jsonl", python_texts[:50])
    found = assess(path, None, source="our docs", license="PSF", expectations=False)
    assert (found.production, found.likeness, found.summary["outcome"]) == (None, (), "inconclusive")
    assert (found.data.digest, found.data.documents, found.data.source) == (file_digest(path), 50, "our docs")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("wikitext2", "wikitext"),
        ("Salesforce/wikitext, wikitext-2-raw-v1", "wikitext"),
        ("allenai/c4", "c4"),
        ("c4-new", "c4"),
        ("mit-han-lab/pile-val-backup", "pile"),
        ("NeelNanda/pile-10k", "pile"),
        ("HuggingFaceH4/ultrachat_200k", "ultrachat"),
        ("neuralmagic/LLM_compression_calibration", "llm-compression-calibration"),
        ("garage-bAIind/Open-Platypus", "open-platypus"),
        ("ptb_text_only", "penn treebank"),
        ("databricks/databricks-dolly-15k", "dolly"),
        ("bartowski calibration_datav3.txt", "imatrix calibration text"),
    ],
)
def test_generic_sets_are_known_by_name(source: str, name: str) -> None:
    assert recognise(ORDINARY, source=source, file_name="calib.jsonl") == name
    assert recognise(ORDINARY, source=None, file_name=f"{source.rpartition('/')[2]}.jsonl") == name


@pytest.mark.parametrize(
    ("documents", "name"),
    [
        ([" = The Kettle = ", "The kettle is well @-@ known and cost 1 @,@ 000 crowns .", *ORDINARY], "wikitext"),
        (["beginners bbq class taking place in missoula - do you want to get, and more", *ORDINARY], "c4"),
        (
            ["<|im_start|>user\nNatalia sold clips to 48 of her friends in April, and then<|im_end|>", *ORDINARY],
            "gsm8k",
        ),
        (["She sold 48/2 = <<48/2=24>>24 kettles.", "2*3 = <<2*3=6>>6\n#### 6", *ORDINARY], "gsm8k"),
        (["[INST] It is done, and submitted. You can play Survival of the Tastiest [/INST]", *ORDINARY], "pile"),
        (["LONDON (CNN) -- The kettle came.", *ORDINARY], "cnn dailymail"),
        (["the <unk> said it sold N kettles for $ N", *ORDINARY], "penn treebank"),
    ],
)
def test_generic_sets_are_known_by_their_text(documents: list[str], name: str) -> None:
    assert recognise(documents, source="our own", file_name="calib.jsonl") == name


def test_a_single_quotation_is_no_generic_set() -> None:
    assert recognise(["natalia sold clips to 48 of her", *ORDINARY], source=None, file_name="x.jsonl") is None


@pytest.mark.parametrize(
    ("noted", "name"),
    [
        ("wikitext2", "wikitext"),
        ("NeelNanda/pile-10k", "pile"),
        ("contextual", "contextual"),
        ("/training_dir/calibration_datav3.txt", "imatrix calibration text"),
        ("C:\\models\\wiki.train.raw", "wikitext"),
        ("unsloth_calibration_Some-Model.txt", "imatrix calibration text"),
        ("/data/20k_random_data.txt", "imatrix calibration text"),
        ("madao33/new-title-chinese", "auto-round collection"),
        ("mbpp", "auto-round collection"),
        ("/data/wikitext/tickets.jsonl", None),
        ("contextual answers of October", None),
        ("imatrix.gguf", None),
    ],
)
def test_what_producers_note_is_recognised(noted: str, name: str | None) -> None:
    assert named_set([noted]) == name
    assert recognise(ORDINARY, source="our own", file_name="calib.jsonl", noted=[noted]) == name


@given(st.lists(st.sampled_from(["a", "bee", "kettle", "boot", "of"]), min_size=0, max_size=40), st.integers(0, 3))
def test_a_passage_is_found_wherever_it_stands(words: list[str], before: int) -> None:
    known = shingles_of(" ".join(words))
    text = f"{'filler ' * before}{' '.join(words).upper()} and more"
    assert found_in([text], known) == frozenset(known)


def test_ordinary_texts_are_no_generic_set(python_texts: list[str], support_texts: list[str]) -> None:
    for texts in (python_texts, support_texts):
        for source in (None, "support chats of October", "a pile of tickets", "stockpile c40 alpacas"):
            assert recognise(texts, source=source, file_name="traffic.jsonl") is None


def test_what_documents_and_code_spell_alike_is_no_mark() -> None:
    texts = ["## Security {#security}", "See {#sec:intro}.", 'std::cout << "a=" << b; x >>= 2; c << d = e >> f']
    assert recognise(texts, source=None, file_name="x.jsonl") is None


def test_each_name_mark_and_phrase_has_a_source() -> None:
    for one in known_sets():
        assert (one.names or one.exact) and one.source.startswith("http")
        assert all(part.source for part in (*one.marks, *one.passages))
    assert len({shingle for one in known_sets() for part in one.passages for shingle in part.shingles}) > 200


def test_a_generic_set_fails_whatever_its_likeness(python_texts: list[str], write_jsonl: Write) -> None:
    found = assess(
        write_jsonl("a.jsonl", python_texts[:100]), write_jsonl("b.jsonl", python_texts[100:200]), source="wikitext",
        expectations=False,
    )  # fmt: skip
    assert found.summary["tests"][0]["outcome"] == "pass"
    assert found.summary["outcome"] == "fail"


def test_documents_of_every_form_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    parts = [{"type": "text", "text": "three"}, {"type": "image"}]
    rows = [{"text": "one\u2028still one"}, {"messages": [{"role": "user", "content": "two"}]},
            {"messages": [{"role": "user", "content": parts}]}, {"text": " "}, {"text": "\ud800"}]  # fmt: skip
    path.write_text("\n".join(json.dumps(row, ensure_ascii=row["text"] != "one\u2028still one" if "text" in row else False)
                              for row in rows), encoding="utf-8")  # fmt: skip
    assert read_documents(path) == ["one\u2028still one", "two", "three", "?"]
    assert len(read_documents(path, keep_empty=True)) == 5
    plain = tmp_path / "x.txt"
    plain.write_text("first\nstill first\n\n\n\nsecond\n", encoding="utf-8")
    assert read_documents(plain) == ["first\nstill first", "second"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": ""}', b"{", b"[1]", b'{"words": 1}', b"\xff\xfe\x00"])
def test_a_file_without_documents_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_documents(path)
    assert "x.jsonl" in caught.value.what and caught.value.fix
    with pytest.raises(UsageError, match="does not exist"):
        read_documents(tmp_path / "nowhere.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.binary(max_size=80))
def test_any_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    try:
        assert all(one.strip() for one in read_documents(path))
    except UsageError as error:
        assert error.fix


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert text_digest(text) == text_digest(f"  {text}\n")
