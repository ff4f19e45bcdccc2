"""What the records of a benchmark say, and which records are none."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlflow_quantgov.artifact.runtimes.interface import Prepared
from mlflow_quantgov.artifact.runtimes.llama_cpp.safetensors_file import Stored
from mlflow_quantgov.artifact.runtimes.lossless import configurations_by_type
from mlflow_quantgov.errors import EvidenceError, UsageError
from mlflow_quantgov.evidence.measure.benchmark import Effort
from mlflow_quantgov.evidence.measure.benchmark.process import DidNotRunError, ModelProcess
from mlflow_quantgov.evidence.measure.benchmark.rounds import Until, run_rounds
from mlflow_quantgov.evidence.predicates import (
    Benchmark,
    BenchmarkV1,
    BenchmarkV2,
    Fingerprint,
    Provenance,
    Side,
    predicate_class,
)
from mlflow_quantgov.evidence.predicates.benchmark import Speed
from mlflow_quantgov.evidence.predicates.benchmark_summary import judge, quantile
from mlflow_quantgov.evidence.predicates.benchmark_v3 import (
    Demand,
    NotLoaded,
    Request,
    Resources,
    Sample,
    SideName,
    TimedLoad,
    TimedRound,
    Try,
    pace,
)
from mlflow_quantgov.evidence.targets import TargetLoad

PARENT, MODEL = f"sha256:{'b' * 64}", f"sha256:{'a' * 64}"
MB = 10**6
LOST = NotLoaded(cause="memory", error="killed", free_memory_bytes=10)


def load(parent: list[float | None], quantized: list[float], **changes: Any) -> TimedLoad:
    """Rounds in which a side prefills ten times as fast as it decodes."""
    rounds = tuple(
        TimedRound(
            first="parent",
            parent=None if p is None else Sample(prefill=10 * p, decode=p),
            quantized=Sample(prefill=10 * q, decode=q),
        )
        for p, q in zip(parent, quantized, strict=True)
    )
    values = {"batch": 1, "prompt_tokens": 100, "output_tokens": 10, "ended": "narrow"} | changes
    return TimedLoad(rounds=rounds, **values)


def tried(*decode: float, chosen: bool = True, name: str = "x", resources: Resources | None = None) -> Try:
    speeds = tuple(Speed(prefill=1, decode=one) for one in decode)
    return Try(configuration=name, speeds=speeds, chosen=chosen, resources=resources)


def benchmark(*loads: TimedLoad, phase: str = "decode", must_improve: str = "speed", **changes: Any) -> Benchmark:
    found = loads or (load([10.0] * 9, [20.0] * 9),)
    values: dict[str, Any] = {
        "provenance": Provenance(measured_at=datetime.now(UTC), tool_version="1"),
        "target": "mine",
        "target_digest": PARENT,
        "demand": Demand(must_improve=must_improve, phase=phase, width=0.1),
        "fingerprint": Fingerprint(machine="x86_64", cpu_model="CPU", cores=2, memory_bytes=1),
        "parent": Side(weights=PARENT, runtime="llama.cpp", version="1"),
        "quantized": Side(weights=MODEL, runtime="llama.cpp", version="1"),
        "parent_tries": (tried(*[10.0] * len(found)),),
        "quantized_tries": (tried(*[20.0] * len(found)),),
        "loads": found,
    }
    return Benchmark.measured(**(values | changes))


SAME = [8.0, 9.0, 10.0, 11.0, 12.0, 10.0, 9.5, 10.5, 10.0]


@pytest.mark.parametrize(
    ("content", "outcome", "words"),
    [
        (benchmark(), "pass", "20 against 10 tokens/s (x2.00, 2.00 to 2.00) in decode at batch 1, 100 + 10 tokens"),
        (benchmark(load([20.0] * 9, [10.0] * 9)), "fail", "slower than its parent: 10 against 20"),
        (benchmark(load([10.0] * 9, SAME)), "inconclusive", "not shown to be faster"),
        (benchmark(load([10.0] * 6, [20.0] * 6)), "inconclusive", "6 rounds are too few"),
        (benchmark(load([10.0] * 9, [20.0] * 9), load([10.0] * 9, [9.0] * 9, batch=8)), "fail", "decode at batch 8"),
        (benchmark(must_improve="memory"), "missing", "memory was not measured"),
        (
            benchmark(
                load([20.0] * 9, [10.0] * 9),
                must_improve="memory",
                parent_resources=Resources(baseline_bytes=10 * MB, peak_bytes=110 * MB),
                quantized_resources=Resources(baseline_bytes=20 * MB, peak_bytes=70 * MB, weight_bytes=1),
            ),
            "pass",
            "50% of its parent's memory (peak of the process, above its libraries)",
        ),
        (
            benchmark(
                must_improve="memory",
                parent_resources=Resources(weight_bytes=100 * MB, device_bytes=300 * MB),
                quantized_resources=Resources(weight_bytes=50 * MB, device_bytes=330 * MB),
            ),
            "fail",
            "1.10 times its parent's memory (peak of the GPU)",
        ),
        (
            # The fastest parent holds its weights in float32; whoever is short of memory serves it as it is stored.
            benchmark(
                must_improve="memory",
                parent_tries=(
                    tried(10.0),
                    tried(9.0, chosen=False, name="bfloat16", resources=Resources(device_bytes=110 * MB)),
                ),
                parent_resources=Resources(device_bytes=220 * MB),
                quantized_resources=Resources(device_bytes=121 * MB),
            ),
            "fail",
            "1.10 times its parent's memory (peak of the GPU; the parent takes least as: bfloat16)",
        ),
        (benchmark(load([None] * 9, [9.0] * 9), parent_not_loaded=LOST, parent_tries=()), None, "does not load here"),
    ],
)
def test_the_outcome_is_that_of_the_records(content: Benchmark, outcome: str | None, words: str) -> None:
    summary = content.stated()
    assert (summary["outcome"], words in summary["reason"]) == (outcome, True), summary["reason"]
    content.verify_summary()
    assert Benchmark.model_validate_json(content.model_dump_json()) == content


@pytest.mark.parametrize(
    ("times", "left", "side", "outcome"),
    [
        (([13.0] * 9, [28.0] * 9), 40.0, "parent", "inconclusive"),
        (([13.0] * 9, [28.0] * 9), 27.0, "parent", "pass"),
        (([28.0] * 9, [13.0] * 9), 40.0, "quantized", "inconclusive"),
        (([28.0] * 9, [13.0] * 9), 27.0, "quantized", "fail"),
        (([28.0] * 9, [13.0] * 9), 40.0, "parent", "fail"),
    ],
)
def test_a_heat_that_took_the_slower_configuration_decides_nothing(
    times: tuple[list[float], list[float]], left: float, side: str, outcome: str
) -> None:
    """As seen on a busy machine: two threads won the parent's heat by luck, and ran at a third of what one does."""
    tries = {f"{side}_tries": (tried(50.0), tried(left, chosen=False))}
    found = judge(benchmark(load(*times), **tries), "speed", "decode")
    assert found.outcome == outcome, found.reason


def test_a_phase_that_does_not_count_decides_nothing() -> None:
    """The gate goes by its own target, whatever the statement says was asked."""
    rounds = tuple(
        TimedRound(first="parent", parent=Sample(prefill=10, decode=10), quantized=Sample(prefill=5, decode=20))
        for _ in range(9)
    )
    content = benchmark(TimedLoad(batch=1, prompt_tokens=1, output_tokens=1, rounds=rounds, ended="narrow"))
    outcomes = [judge(content, "speed", phase).outcome for phase in ("decode", "prefill", "both")]
    assert outcomes == ["pass", "fail", "fail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"parent_not_loaded": LOST},
        {
            "parent_not_loaded": LOST,
            "loads": (load([None] * 9, [1.0] * 9),),
            "parent_tries": (tried(10.0, chosen=False),),
        },
        {"loads": (load([None] * 9, [1.0] * 9),)},
        {"fingerprint": None},
        {"hardware_unknown": "far away"},
        {"parent_tries": ()},
        {"parent_tries": (tried(10.0, chosen=False),)},
        {"parent_tries": (tried(10.0), tried(11.0, chosen=False))},
        {"parent_tries": (tried(10.0, 10.0),)},
        {"quantized_tries": (tried(20.0), tried(20.0))},
        {"quantized_tries": (Try(configuration="x", failed="no", chosen=True),)},
    ],
)
def test_records_that_contradict_each_other_are_no_benchmark(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        benchmark(**changes)


def test_an_edited_summary_is_found_out() -> None:
    content = benchmark()
    loads = [content.summary["loads"][0] | {"rounds": 900}]
    with pytest.raises(EvidenceError, match=r"loads\[0\].rounds = 900"):
        content.model_copy(update={"summary": content.summary | {"loads": loads}}).verify_summary()


def test_statements_of_version_1_are_still_read() -> None:
    assert predicate_class("https://mlflow-quantgov.github.io/predicates/benchmark/v1") is BenchmarkV1
    assert predicate_class("https://mlflow-quantgov.github.io/predicates/benchmark/v2") is BenchmarkV2
    assert predicate_class("https://mlflow-quantgov.github.io/predicates/benchmark/v3") is Benchmark
    slow, fast = {"prefill": 100.0, "decode": 10.0}, {"prefill": 200.0, "decode": 20.0}
    side = {"weights": PARENT, "runtime": "llama.cpp", "version": "1"}
    old = BenchmarkV1.measured(
        provenance={"measured_at": "2026-01-01T00:00:00Z", "tool_version": "0"}, target="t", target_digest=PARENT,
        fingerprint={"machine": "x", "cpu_model": "y", "cores": 1, "memory_bytes": 1, "accelerator": None},
        parent=side, quantized=side | {"weights": MODEL},
        loads=[{"batch": 1, "prompt_tokens": 1, "output_tokens": 1, "rounds": [{"parent": slow, "quantized": fast}] * 5}],
    )  # fmt: skip
    assert old.stated()["loads"][0]["decode"]["ratio"] == 2.0
    old.verify_summary()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_one_of_the_values_and_never_the_largest_by_another_name(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    if found is None:
        assert len(values) < round(1 / (1 - share))
    else:
        assert found == pytest.approx(np.quantile(values, share, method="inverted_cdf"))
        assert len(values) >= round(1 / (1 - share))


def test_latency_of_single_requests_counts_one_by_one() -> None:
    requests = tuple(Request(first=0.1 * number, last=1.0 * number) for number in range(1, 5))
    sample = Sample(prefill=1, decode=1, requests=requests)
    rounds = (TimedRound(first="parent", parent=sample, quantized=sample),) * 25
    served = TimedLoad(batch=4, prompt_tokens=1, output_tokens=1, rounds=rounds, ended="rounds")
    summary = benchmark(served).stated()["loads"][0]
    assert summary["request_ms"]["quantized"] == {"samples": 100, "p50": 2000.0, "p95": 4000.0, "p99": 4000.0}
    batched = benchmark(load([10.0] * 9, [20.0] * 9)).stated()["loads"][0]
    assert batched["time_to_first_token_ms"]["parent"] == {"samples": 9, "p50": 1000.0, "p95": None, "p99": None}
    assert batched["request_ms"]["quantized"]["p50"] == 1000.0


@given(st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), min_size=1, max_size=5))
def test_configurations_are_ranked_by_what_counts(speeds: list[tuple[float, float]]) -> None:
    found = tuple(Speed(prefill=prefill, decode=decode) for prefill, decode in speeds)
    faster = tuple(one.model_copy(update={"decode": 2 * one.decode}) for one in found)
    assert pace(faster, "decode") == pytest.approx(2 * pace(found, "decode"))
    assert pace(faster, "prefill") == pace(found, "prefill")
    assert pace(faster, "both") == pytest.approx(2**0.5 * pace(found, "both"))


class Machine:
    """Sides of known speed on a machine whose pace changes by a seeded noise."""

    def __init__(self, ratio: float, noise: float) -> None:
        self._ratio, self._noise = ratio, noise
        self._generator = np.random.default_rng(3)
        self.order: list[SideName] = []

    def time(self, name: SideName, load: TargetLoad) -> Sample:
        self.order.append(name)
        speed = float((self._ratio if name == "quantized" else 1.0) * np.exp(self._generator.normal(0, self._noise)))
        return Sample(prefill=speed, decode=speed)


def until(**changes: Any) -> Until:
    return Until(**({"rounds": None, "width": 0.1, "seconds": 1e9, "phase": "both"} | changes))


def test_rounds_end_when_narrow_when_the_time_is_up_or_when_there_are_as_many_as_asked_for() -> None:
    loads = [TargetLoad(), TargetLoad(batch=4)]
    said: list[tuple[str, float]] = []
    narrow = run_rounds(Machine(1.5, 0.05).time, loads, until(), lambda *words: said.append(words))
    assert [one.ended for one in narrow] == ["narrow"] * 2
    assert all(7 <= len(one.rounds) < 300 for one in narrow) and said[-1][1] == 1.0
    assert "decode x1." in said[-1][0] and any(" left at most" in words for words, _ in said)
    fractions = [fraction for _, fraction in said]
    assert all(0 <= one <= 1 for one in fractions) and fractions == sorted(fractions)
    late = run_rounds(Machine(1.5, 0.5).time, loads, until(seconds=0.0), lambda *_: None)
    assert [(one.ended, len(one.rounds)) for one in late] == [("time", 7)] * 2
    exact = run_rounds(Machine(1.5, 0.0).time, loads, until(rounds=11), lambda *_: None)
    assert [(one.ended, len(one.rounds)) for one in exact] == [("rounds", 11)] * 2


def test_both_sides_come_first_equally_often() -> None:
    machine = Machine(1.0, 0.1)
    (found,) = run_rounds(machine.time, [TargetLoad()], until(rounds=400), lambda *_: None)
    assert 140 < sum(one.first == "parent" for one in found.rounds) < 260
    pairs = list(zip(machine.order[2::2], machine.order[3::2], strict=True))  # after the warm-up
    assert [one.first for one in found.rounds] == [first for first, _ in pairs]
    assert all(set(pair) == {"parent", "quantized"} for pair in pairs)


def test_a_noisy_machine_with_much_time_ends_at_the_most_rounds() -> None:
    (found,) = run_rounds(Machine(1.0, 3.0).time, [TargetLoad()], until(), lambda *_: None)
    assert (found.ended, len(found.rounds)) == ("rounds", 300)


@pytest.mark.parametrize("values", [{"rounds": 6}, {"rounds": 1001}, {"minutes": 0}, {"width": -1}, {"minutes": 1e9}])
def test_an_effort_that_measures_nothing_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Effort(**values)


def stored(dtype: str, values: list[float]) -> Stored:
    wide = np.array(values, dtype=np.float32)
    with np.errstate(over="ignore"):
        bits = {"F32": wide.view(np.uint32), "F16": wide.astype(np.float16).view(np.uint16)}
    bits["BF16"] = (wide.view(np.uint32) >> 16).astype(np.uint16)
    return Stored(dtype, (len(values),), bits[dtype])


@pytest.mark.parametrize(
    ("dtype", "values", "lossless"),
    [
        ("BF16", [1.0, -2.5, 2.0**-126], ["BF16", "F32"]),
        ("BF16", [1.0, -2.5, 0.0], ["BF16", "F16", "F32"]),
        ("BF16", [2.0**20], ["BF16", "F32"]),
        ("F16", [1.0 + 2**-10], ["F16", "F32"]),
        ("F16", [1.5], ["F16", "BF16", "F32"]),
        ("F32", [1.0 + 2**-20], ["F32"]),
        ("F32", [1.0, 0.5], ["F32", "BF16", "F16"]),
        ("F32", [-0.0, float("inf")], ["F32", "BF16", "F16"]),
    ],
)
def test_a_type_is_lossless_only_where_it_holds_every_number(
    dtype: str, values: list[float], lossless: list[str]
) -> None:
    found = configurations_by_type({"w": stored(dtype, values)}, {dtype})
    assert [one.name for one in found if one.lossy is None] == lossless
    assert all("w holds numbers that" in str(one.lossy) for one in found if one.lossy)
    assert [one.weight_bytes for one in found] == [len(values) * (4 if one.name == "F32" else 2) for one in found]
    assert found[0].name == dtype


def test_a_model_that_does_not_load_is_told_from_a_process_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(DidNotRunError) as refused:
        ModelProcess("llama.cpp", Prepared(tmp_path / "bad.gguf", {}))
    assert refused.value.cause == "refused" and "does not load bad.gguf" in refused.value.words
    assert not refused.value.mendable
    with pytest.raises(DidNotRunError) as setting:
        ModelProcess("llama.cpp", Prepared(tmp_path / "bad.gguf", {"threads": 0}))
    assert setting.value.mendable and isinstance(setting.value.raised, UsageError)


@pytest.mark.slow
def test_what_ends_a_process_is_read_from_how_it_ended(skills: Path, tmp_path: Path) -> None:
    import resource

    from mlflow_quantgov.artifact.runtimes.llama_cpp import gguf_twin

    prepared = Prepared(gguf_twin(skills, tmp_path).path, {"threads": 1})
    with ModelProcess("llama.cpp", prepared) as process:
        assert process.time(TargetLoad(output_tokens=2)).decode > 0
        took = process.resources()
        assert took.device_bytes is None and took.peak_bytes is not None and took.baseline_bytes is not None
        assert took.peak_bytes > took.baseline_bytes
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(DidNotRunError) as killed:
            process.time(TargetLoad())
    assert (killed.value.cause, "SIGKILL" in killed.value.words) == ("memory", True)
    with ModelProcess("llama.cpp", prepared) as process:
        size = int(Path(f"/proc/{process._process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(process._process.pid, resource.RLIMIT_AS, (size, size))
        with pytest.raises(DidNotRunError) as full:
            process.time(TargetLoad(batch=200, prompt_tokens=200, output_tokens=2))
    assert full.value.cause == "memory", full.value.words
    with ModelProcess("llama.cpp", prepared) as process:
        os.kill(process._process.pid, signal.SIGSEGV)
        with pytest.raises(DidNotRunError) as crashed:
            process.time(TargetLoad())
    assert (crashed.value.cause, "SIGSEGV" in crashed.value.words) == ("crashed", True)
    with ModelProcess("llama.cpp", prepared, patience=30) as process:
        process._patience = 0.0
        with pytest.raises(DidNotRunError) as late:
            process.time(TargetLoad())
    assert late.value.cause == "time"
