from __future__ import annotations

from mlflow_quantgov.artifact.runtimes.llama_cpp.loadlog import failure, read_load_log

REPACKED = [
    "llama_model_loader: - type  f32:   61 tensors\n",
    "llama_model_loader: - type q4_0:  210 tensors\n",
    "load_tensors:          CPU model buffer size =    28.82 MiB\n",
    "load_tensors:   CPU_REPACK model buffer size =    56.95 MiB\n",
    ".", "repack: repack tensor blk.0.ffn_gate.weight with q4_0_8x8\n",
    "repack: repack tensor blk.0.ffn_up.weight with q4_0_8x8\n",
    "repack: repack tensor blk.0.attn_q.weight with q4_0_4x8\n",
]  # fmt: skip


def test_the_buffer_with_most_bytes_and_its_commonest_layout_is_the_kernel():
    log = read_load_log(REPACKED)
    assert log.kernel == "CPU_REPACK q4_0_8x8"
    assert log.types == {"f32": 61, "q4_0": 210}
    assert log.resident_bytes == round(28.82 * 2**20) + round(56.95 * 2**20)
    assert log.layouts == {"q4_0_8x8": 2, "q4_0_4x8": 1}


def test_without_repacking_the_kernel_is_the_buffer_with_the_commonest_quantized_type():
    assert read_load_log(REPACKED[:3]).kernel == "CPU q4_0"


def test_full_precision_weights_are_named_too():
    log = read_load_log([REPACKED[0], REPACKED[2]])
    assert log.kernel == "CPU f32"


def test_a_log_without_buffers_gives_no_kernel_and_no_bytes():
    log = read_load_log(["something else\n"])
    assert log.kernel is None
    assert log.resident_bytes is None


def test_the_reason_of_a_failure_is_the_first_line_that_names_one():
    assert failure(["fine\n", "llama_model_load: error loading model: bad magic\n"]).endswith("bad magic")
    assert failure(["fine\n"]) == "llama.cpp gave no reason"
