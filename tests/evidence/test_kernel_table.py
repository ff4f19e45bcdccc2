"""The kernel tables: every row is sound and reached, and a lookup answers no better than the target lets it know."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlflow_quantgov.artifact.inspect import inspect
from mlflow_quantgov.artifact.quantization import LayerQuantization, Quantization
from mlflow_quantgov.artifact.quantizers.suggestions import SUGGESTIONS
from mlflow_quantgov.evidence.kernel_rows import Row
from mlflow_quantgov.evidence.kernel_table import Table, load_tables, lookup, read_table
from mlflow_quantgov.evidence.targets import COMPUTE_CAPABILITIES, Hardware, Target, find_target, list_targets
from mlflow_quantgov.resources import policies_dir

TABLES = load_tables()
ROWS = [pytest.param(table, row, id=row.id) for table in TABLES.values() for row in table.rows]
ARTIFACTS = Path(__file__).parents[1] / "data" / "artifacts"


def with_hardware(target: Target, **changes: object) -> Target:
    hardware = Hardware.model_validate(target.hardware.model_dump() | changes)
    return target.model_copy(update={"hardware": hardware})


def suggested(name: str) -> Quantization:
    return next(one for one in SUGGESTIONS if one.name == name).quantization()


def shaped(found: Quantization, *shapes: tuple[int, int]) -> Quantization:
    kind = found.layers[0]
    layers = tuple(
        LayerQuantization(f"l{i}", kind.bits, kind.group_size, one, kind.type) for i, one in enumerate(shapes)
    )
    return replace(found, layers=layers)


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_says_where_it_comes_from(table: Table, row: Row) -> None:
    assert row.read_on <= date.today()
    assert len(row.source) > 10
    assert row.seen == "table" or table.runtime not in {"vllm", "sglang", "tensorrt-llm", "openai"}
    for name in row.architectures:
        assert name in {"x86_64", "gfx1100", "gfx942", "gfx950", "gfx1200", "gfx1201", *COMPUTE_CAPABILITIES}


def test_ids_are_unique_over_all_tables_and_files_are_named_like_their_runtime() -> None:
    ids = [row.id for table in TABLES.values() for row in table.rows]
    assert len(ids) == len(set(ids)) > 100
    for path in (policies_dir() / "kernels").glob("*.yaml"):
        assert path.stem == read_table(path).runtime.replace(".", "-")


def test_tables_answer_for_every_container() -> None:
    """The last row of each takes whatever is left: silence would be an answer nobody chose."""
    for table in TABLES.values():
        last = table.rows[-1]
        assert last.formats == ("*",) and last.support in {"unknown", "fails"}
        assert not (last.devices or last.types or last.versions)


def document(*rows: dict[str, object]) -> dict[str, object]:
    common = {
        "formats": ["gptq"],
        "support": "unknown",
        "seen": "table",
        "source": "somewhere",
        "read_on": "2026-01-01",
    }
    return {
        "schema": "quantgov/kernels/v1", "runtime": "r", "version": "1",
        "rows": [{"id": f"row-{index}", **common, **row} for index, row in enumerate(rows)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"bits": [4, 8]}, {"bits": [4]}], "never reached"),
        ([{}, {"devices": ["cpu"], "cpu_flags": ["avx2"]}], "never reached"),
        (
            [
                {"devices": ["cuda"], "compute_capability": ">=7.5"},
                {"devices": ["cuda"], "compute_capability": "==9.0"},
            ],
            "never",
        ),
        ([{"formats": ["*"]}, {"formats": ["awq"], "types": ["gemm"]}], "never reached"),
        ([{"types": ["IQ*"]}, {"types": ["IQ4_NL"]}], "never reached"),
        ([{"in_multiple": 32}, {"in_multiple": 64}], "never reached"),
        ([{"id": "a"}, {"id": "a", "bits": [4]}], "two rows"),
        ([{"compute_capability": ">=7.5"}], "devices"),
        ([{"cpu_flags": ["avx2"]}], "devices"),
        ([{"devices": ["cpu"], "cpu_flags": ["avx3"]}], "avx512f"),
        ([{"support": "optimized"}], "kernel"),
        ([{"support": "works-slowly", "seen": "probed"}], "expects"),
        ([{"versions": "new"}], "PEP 440"),
        ([{"source": ""}], "at least 1 character"),
        ([{"hardware": "gpu"}], "Extra inputs"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(rows: list[dict[str, object]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Table.model_validate(document(*rows))


@pytest.mark.parametrize(
    "rows",
    [
        [{"bits": [4]}, {"bits": [4, 8]}],
        [{"devices": ["cpu"], "cpu_flags": ["avx2"]}, {"devices": ["cpu"]}],
        [{"symmetric": True}, {"symmetric": False}, {}],
        [{"in_multiple": 64}, {"in_multiple": 32}],
        [{"versions": ">=2"}, {"versions": ">=1"}],
    ],
)
def test_a_narrower_row_may_stand_above_a_wider_one(rows: list[dict[str, object]]) -> None:
    Table.model_validate(document(*rows))


@pytest.mark.parametrize(
    ("name", "target", "support", "kernel"),
    [
        ("Q4_K", "cpu-llamacpp", "optimized", "ggml CPU"),
        ("GPTQ 4 bit, group 128", "cpu-llamacpp", "fails", ""),
        ("GPTQ 4 bit, group 128", "gpu-vllm-hopper", "optimized", "Machete or Marlin"),
        ("GPTQ 4 bit, group 32", "gpu-vllm-hopper", "optimized", "Marlin"),
        ("GPTQ 4 bit, group 128", "gpu-vllm-ampere", "optimized", "Marlin"),
        ("GPTQ 4 bit, group 128", "gpu-vllm-volta", "unknown", "Exllama"),
        ("GPTQ 3 bit, group 128", "gpu-vllm-hopper", "fails", ""),
        ("AWQ 4 bit, group 128", "gpu-vllm-volta", "fails", ""),
        ("AWQ 4 bit, group 128", "gpu-vllm-ampere", "optimized", "Marlin"),
        ("W4A16 (GPTQ), group 128", "gpu-vllm-volta", "fails", ""),
        ("FP8, activations too", "gpu-vllm-hopper", "optimized", "CutlassFP8"),
        ("FP8, activations too", "gpu-vllm-ampere", "optimized", "weights alone"),
        ("FP8, activations too", "gpu-vllm-volta", "fails", ""),
        ("NVFP4", "gpu-vllm-hopper", "unknown", "Emulation"),
        ("Q4_K", "gpu-vllm-hopper", "fails", ""),
        ("bitsandbytes NF4", "gpu-vllm-hopper", "fails", ""),
        ("MatMulNBits 4 bit, block 32", "cpu-onnxruntime", "optimized", "MatMulNBits"),
        ("torchao int8, weights alone", "cpu-transformers", "emulates", ""),
        ("W4A16 (GPTQ), group 128", "cpu-transformers", "dequantizes", ""),
        ("Q4_K", "cpu-transformers", "dequantizes", ""),
        ("GPTQ 8 bit, group 128", "cpu-transformers", "works-slowly", "TorchLinear"),
        ("Q4_K", "endpoint-openai", "unknown", ""),
    ],
)
def test_what_the_shipped_tables_say(name: str, target: str, support: str, kernel: str) -> None:
    found = lookup(suggested(name), find_target(target))
    assert (found.support, kernel in (found.kernel or "")) == (support, True), found
    assert found.depends_on == () and found.source


@pytest.mark.parametrize(
    ("name", "changes", "target", "architecture", "support", "row"),
    [
        ("FP8 by blocks of 128", {"method": "modelopt"}, "gpu-vllm-ampere", "turing", "fails", "vllm-fp8-modelopt-too-old"),
        ("FP8 by blocks of 128", {"method": "fbgemm_fp8"}, "gpu-vllm-ampere", "turing", "fails", "vllm-methods-from-8.0"),
        ("FP8 by blocks of 128", {"method": "quark"}, "gpu-vllm-ampere", "volta", "fails", "vllm-fp8-too-old"),
        ("W4A16 (GPTQ), group 128", {"activation_bits": 8}, "gpu-vllm-ampere", "ada", "fails", "vllm-w4a8-too-old"),
        ("W4A16 (GPTQ), group 128", {"activation_bits": 8}, "gpu-vllm-ampere", "hopper", "unknown", "vllm-w4a8"),
        ("W8A16 (GPTQ), per channel", {"symmetric": False}, "gpu-vllm-ampere", "ampere", "unknown", "vllm-int-behind-marlin"),
    ],
)  # fmt: skip
def test_a_gpu_has_to_be_new_enough_for_the_method_and_scheme(
    name: str, changes: dict[str, object], target: str, architecture: str, support: str, row: str
) -> None:
    gpu = with_hardware(find_target(target), architecture=architecture, compute_capability=[])
    found = lookup(replace(suggested(name), **changes), gpu)  # type: ignore[arg-type]
    assert (found.support, found.row) == (support, row)


@pytest.mark.parametrize(
    ("group", "architecture", "row"), [(16, "volta", "vllm-nvfp4-too-old"), (32, "turing", "vllm-ct-mxfp4-too-old")]
)
def test_four_bit_floats_of_compressed_tensors_are_told_apart_by_their_groups(
    group: int, architecture: str, row: str
) -> None:
    whole = replace(suggested("NVFP4"), format="compressed-tensors", group_size=group)
    layers = tuple(replace(one, type="float4_e2m1", group_size=group) for one in whole.layers)
    gpu = with_hardware(find_target("gpu-vllm-ampere"), architecture=architecture, compute_capability=[])
    assert lookup(replace(whole, layers=layers), gpu).row == row


@pytest.mark.parametrize("name", ["Q4_K", "bitsandbytes NF4", "MatMulNBits 4 bit, block 32"])
def test_what_this_release_dropped_may_have_run_in_an_earlier_one(name: str) -> None:
    target = find_target("gpu-vllm-hopper")
    assert lookup(suggested(name), target).support == "fails"
    found = lookup(suggested(name), target.model_copy(update={"runtime_version": ">=0.10"}))
    assert (found.support, found.depends_on) == ("unknown", ("runtime_version",))


def test_shapes_choose_between_machete_and_marlin() -> None:
    target = find_target("gpu-vllm-hopper")
    whole = suggested("GPTQ 4 bit, group 128")
    assert lookup(shaped(whole, (256, 256)), target).kernel == "Machete"
    assert lookup(shaped(whole, (192, 256)), target).kernel == "Marlin"


def test_the_part_of_a_model_that_is_served_worst_is_the_answer() -> None:
    target = find_target("gpu-vllm-hopper")
    whole = shaped(suggested("GPTQ 4 bit, group 128"), (300, 100), (100, 100))
    narrow = replace(whole.layers[1], bits=3)
    found = lookup(replace(whole, layers=(whole.layers[0], narrow)), target)
    assert (found.support, found.share, found.row) == ("fails", 0.25, "vllm-gptq-other-widths")
    mixed = inspect(ARTIFACTS / "tiny-Q4_0.gguf").quantization
    odd = replace(mixed.layers[0], type="TQ1_0")
    answer = lookup(replace(mixed, layers=(odd, *mixed.layers[1:])), find_target("cpu-llamacpp"))
    assert answer.support == "unknown" and 0 < answer.share < 1


def test_what_hangs_on_instruction_sets_waits_until_they_are_known() -> None:
    target, int8 = find_target("cpu-onnxruntime"), suggested("int8, activations too")
    found = lookup(int8, target)
    assert (found.support, found.depends_on) == ("unknown", ("cpu_flags",)) and "instruction sets" in found.source
    assert lookup(int8, with_hardware(target, cpu_flags=["avx2", "avx512_vnni"])).support == "optimized"
    assert lookup(int8, with_hardware(target, cpu_flags=["avx2"])).row == "ort-cpu-w8a8"


def test_bitsandbytes_is_slow_whatever_the_instruction_sets() -> None:
    """With a kernel of its own too: measured, it decodes more slowly than the parent in its fastest lossless type."""
    target, nf4 = find_target("cpu-transformers"), suggested("bitsandbytes NF4")
    assert (lookup(nf4, target).support, lookup(nf4, target).depends_on) == ("works-slowly", ())
    assert lookup(nf4, with_hardware(target, cpu_flags=["avx2"])).row == "transformers-cpu-bnb4"
    own = lookup(nf4, with_hardware(target, cpu_flags=["avx2", "avx512f", "avx512_bf16"]))
    assert (own.support, own.row) == ("works-slowly", "transformers-cpu-bnb4-avx512")


def test_rows_that_agree_need_not_be_told_apart() -> None:
    """Machete or Marlin: which of the two hangs on shapes, that there is one does not."""
    found = lookup(suggested("GPTQ 4 bit, group 128"), find_target("gpu-vllm-hopper"))
    assert (found.support, found.kernel, found.depends_on) == ("optimized", "Machete or Marlin", ())


def test_what_hangs_on_the_gpu_waits_until_it_is_known() -> None:
    target = find_target("gpu-vllm-ampere")
    unnamed = with_hardware(target, architecture=None, compute_capability=[])
    found = lookup(suggested("GPTQ 4 bit, group 128"), unnamed)
    assert found.support == "unknown" and "compute_capability" in found.depends_on
    ada = with_hardware(target, architecture="ada", compute_capability=[])
    assert lookup(suggested("FP8, activations too"), ada).row == "vllm-fp8-native"
    either = with_hardware(target, architecture=None, compute_capability=["7.0", "8.0"])
    assert lookup(suggested("AWQ 4 bit, group 128"), either).support == "unknown"


def test_what_hangs_on_the_version_is_settled_by_the_one_that_runs(tmp_path: Path) -> None:
    rows = [
        {"versions": ">=2", "support": "optimized", "kernel": "new"},
        {"support": "works-slowly"},
        {"formats": ["*"]},
    ]
    (tmp_path / "r.yaml").write_text(json.dumps(document(*rows)))
    table = load_tables(tmp_path)["r"]
    from mlflow_quantgov.evidence.kernel_rows import weights_of
    from mlflow_quantgov.evidence.kernel_table import candidates

    (weights,) = weights_of(suggested("GPTQ 4 bit, group 128"))
    target = find_target("gpu-vllm-ampere").model_copy(update={"runtime": "r"})
    open_ones = candidates(table, weights, target.model_copy(update={"runtime_version": ">=1"}))
    assert [row.id for row in open_ones[0]] == ["row-0", "row-1"] and open_ones[1] == ("runtime_version",)
    new = candidates(table, weights, target.model_copy(update={"runtime_version": ">=2.1"}))
    assert [row.id for row in new[0]] == ["row-0"] and new[2]
    old = candidates(table, weights, target.model_copy(update={"runtime_version": "<2"}))
    assert [row.id for row in old[0]] == ["row-1"]
    assert candidates(table, weights, target, "1.9")[0][0].id == "row-1"
    assert candidates(table, weights, target, "2.0")[0][0].id == "row-0"


def test_real_artifacts_get_an_answer_on_every_target() -> None:
    paths = [
        one for one in ARTIFACTS.iterdir() if one.name.startswith(("gptq", "awq", "ct-w", "bnb", "torchao", "tiny-"))
    ]
    found_in = {path: inspect(path).quantization for path in paths}
    for path, target in product(paths, list_targets()):
        found = lookup(found_in[path], target)
        assert found.row != "none" and 0 < found.share <= 1, (path.name, target.name)


def test_a_target_cannot_name_a_gpu_of_another_architecture() -> None:
    with pytest.raises(ValidationError, match="hopper"):
        Hardware(device="cuda", architecture="hopper", compute_capability=("8.0",))
    with pytest.raises(ValidationError):
        Hardware(device="cpu", cpu_flags=("avx3",))  # type: ignore[arg-type]


def test_targets_without_the_new_keys_keep_the_digest_that_policies_pin() -> None:
    target = find_target("cpu-llamacpp")
    assert target.digest == "sha256:1198fd4ec13069ad89e0ae8cc4366c4cf3daf405e0006ca7533123a1088ab3d6"
    assert with_hardware(target, cpu_flags=["avx2"]).digest != target.digest
    assert with_hardware(target, cpu_flags=[]).digest != target.digest
