"""Which benchmark the report shows: the one that counts most at the gate."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from releases import MACHINE, NOW, PARENT, benchmark, evidence, facts_of, target

from mlflow_quantgov.evidence.predicates import Benchmark
from mlflow_quantgov.evidence.signing import TrustedKey, TrustedKeys, examine, load_signer, make_key, sign
from mlflow_quantgov.evidence.statement import parse_statement
from mlflow_quantgov.pages.benchmark import benchmark_section
from mlflow_quantgov.pages.report import render_report
from mlflow_quantgov.policy.facts import Evidence


def on(cpu: str, **changes: object) -> Benchmark:
    return benchmark(fingerprint=MACHINE.model_copy(update={"cpu_model": cpu}), **changes)


def shown(*found: Evidence, **changes: object) -> str:
    section = benchmark_section(facts_of(evidence=found, **changes))
    assert section is not None
    return str(section["where"])


def test_no_benchmark_is_no_section() -> None:
    assert benchmark_section(facts_of([])) is None


def test_one_of_version_2_is_shown_as_it_is_judged() -> None:
    """Its own summary said that it takes more than its parent, beside a check that passed."""
    data = Path(__file__).parent.parent / "data" / "statements" / "benchmark-v2.json"
    old = parse_statement(data.read_bytes()).content()
    section = benchmark_section(facts_of(evidence=[evidence(old)]))
    assert section is not None and "86% of its parent's memory" in section["reason"]
    assert old.stated()["reason"].startswith("it takes 1.02 times")


@pytest.mark.parametrize("order", [1, -1])
def test_the_one_received_last_is_shown(order: int) -> None:
    found = (evidence(on("older"), minutes=60), evidence(on("newer"), minutes=5))
    assert "newer" in shown(*found[::order])
    assert "newer" in shown(*found[::order], model=None)


@pytest.mark.parametrize(("trusted", "words"), [(True, "vouched for"), (False, "unsigned")])
def test_a_trusted_signature_outranks_what_came_later(tmp_path: Path, trusted: bool, words: str) -> None:
    signer = load_signer(make_key("ada", tmp_path)[0])
    key = TrustedKey(
        id=signer.public.id,
        public_key=signer.public.text,
        name="ada",
        roles=("measurer",),
        not_before=NOW.replace(year=2025),
    )
    one = evidence(on("vouched for"), minutes=60)
    keys = TrustedKeys(keys=(key,) if trusted else ())
    assert one.received_at is not None
    signed = replace(one, signatures=(examine(sign(one.statement, signer), keys, one.received_at, NOW),))
    assert words in shown(signed, evidence(on("unsigned"), minutes=5))


def test_one_on_the_declared_target_is_shown_before_a_newer_one_on_another() -> None:
    elsewhere = on("elsewhere", target="other", target_digest=target().model_copy(update={"name": "other"}).digest)
    assert "declared" in shown(evidence(on("declared"), minutes=60), evidence(elsewhere, minutes=5))
    assert "elsewhere" in shown(evidence(elsewhere))


def test_one_of_other_weights_is_shown_only_where_these_have_none() -> None:
    other = evidence(on("other"), minutes=5, subject=PARENT)
    assert "own" in shown(evidence(on("own"), minutes=60), other)
    assert "other" in shown(other)


def test_every_column_of_its_tables_has_a_name() -> None:
    """Whoever has a page read out hears nothing at an empty one."""
    page = render_report(facts_of([benchmark()]), None, title="chat version 2")
    tables = re.findall(r"<caption>.*?</caption>\s*<thead>.*?</thead>", page, re.DOTALL)
    assert sum("Configurations of the" in one for one in tables) == 2
    assert not re.findall(r"<th[^>]*>\s*</th>", page)
