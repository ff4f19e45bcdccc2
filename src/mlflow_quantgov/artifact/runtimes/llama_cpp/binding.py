"""The C API of llama.cpp inside an installed package, by ctypes, guarded against another layout.

The shared object exports `llama_*` and `ggml_*`. Two structs are passed by value and grow at their end
(and, rarely, in the middle) from release to release. Both are far over 16 bytes, so they travel in memory: a caller
may hand over a longer buffer whose leading bytes came from `llama_*_default_params()`. What is then changed is
addressed by offset: the one that the package declares, else the one written here. Either is trusted only if the
defaults found there are the ones that llama.cpp documents (`CONTEXT_FIELDS`, `MODEL_FIELDS`).

Source of the signatures: `include/llama.h` and `ggml/include/ggml.h` of llama.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlflow_quantgov.artifact.runtimes.llama_cpp.interrupts import interrupts_wait
from mlflow_quantgov.artifact.runtimes.llama_cpp.libraries import CONTEXT, MODEL, Library, find_library
from mlflow_quantgov.errors import ArtifactError

STRUCT_BYTES = 1024
"""Room for a parameter struct: several times what any release uses."""

_LOG_DEBUG = 1
_LOG_LINES = 20_000
LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class ParamsBuffer(ctypes.Structure):
    """Over-long stand-in for `llama_model_params` and `llama_context_params`."""

    _fields_ = [("data", ctypes.c_uint8 * STRUCT_BYTES)]


class Batch(ctypes.Structure):
    """`llama_batch`: tokens with their positions and sequences, and which of them want logits."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


@dataclass(frozen=True)
class Field:
    """One field of a parameter struct: where `xllamacpp` has it, how it is packed, and the default that proves it."""

    offset: int
    format: str
    default: int


LOAD_INTO_MEMORY = 0
"""`load_mode`: read the weights instead of mapping the file, so that resident bytes are exact and the file may go."""
MODEL_FIELDS = {
    "n_gpu_layers": Field(16, "<i", -1),
    "split_mode": Field(20, "<i", 1),
    "load_mode": Field(24, "<i", -1),
    "main_gpu": Field(32, "<i", 0),
    "vocab_only": Field(72, "<?", 0),
    "check_tensors": Field(73, "<?", 0),
    "use_extra_bufts": Field(74, "<?", 1),
}
CONTEXT_FIELDS = {
    "n_ctx": Field(0, "<I", 512),
    "n_batch": Field(4, "<I", 2048),
    "n_ubatch": Field(8, "<I", 512),
    "n_seq_max": Field(12, "<I", 1),
    "n_outputs_max": Field(20, "<I", 0),
    "n_outputs_max_per_seq": Field(24, "<I", 1),
    "n_threads": Field(28, "<i", 4),
    "n_threads_batch": Field(32, "<i", 4),
    "rope_scaling_type": Field(40, "<i", -1),
    "pooling_type": Field(44, "<i", -1),
    "type_k": Field(104, "<i", 1),
    "type_v": Field(108, "<i", 1),
    "embeddings": Field(136, "<?", 0),
    "offload_kqv": Field(137, "<?", 1),
    "no_perf": Field(138, "<?", 1),
    "op_offload": Field(139, "<?", 1),
    "swa_full": Field(140, "<?", 1),
    "kv_unified": Field(141, "<?", 0),
}

_INTS = ctypes.POINTER(ctypes.c_int32)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_model_default_params": (ParamsBuffer, []),
    "llama_context_default_params": (ParamsBuffer, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, ParamsBuffer]),
    "llama_model_free": (None, [ctypes.c_void_p]),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, ParamsBuffer]),
    "llama_free": (None, [ctypes.c_void_p]),
    "llama_model_n_ctx_train": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_model_size": (ctypes.c_uint64, [ctypes.c_void_p]),
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_model_chat_template": (ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_vocab_bos": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_vocab_eos": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_vocab_is_eog": (ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32]),
    "llama_tokenize": (
        ctypes.c_int32,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, _INTS, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool],
    ),
    "llama_token_to_piece": (
        ctypes.c_int32,
        [ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool],
    ),
    "llama_decode": (ctypes.c_int32, [ctypes.c_void_p, Batch]),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p, ctypes.c_int32]),
    "llama_get_memory": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_memory_clear": (None, [ctypes.c_void_p, ctypes.c_bool]),
    "llama_memory_seq_rm": (ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
    "llama_print_system_info": (ctypes.c_char_p, []),
    "llama_log_set": (None, [LOG_CALLBACK, ctypes.c_void_p]),
    "llama_backend_init": (None, []),
    "ggml_quantize_init": (None, [ctypes.c_int]),
    "ggml_quantize_requires_imatrix": (ctypes.c_bool, [ctypes.c_int]),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p],
    ),
    "ggml_row_size": (ctypes.c_size_t, [ctypes.c_int, ctypes.c_int64]),
    "ggml_blck_size": (ctypes.c_int64, [ctypes.c_int]),
    "ggml_type_name": (ctypes.c_char_p, [ctypes.c_int]),
}


class Llama:
    """The loaded library, with its log kept silent and readable. Get it from `library()`."""

    def __init__(self, c: ctypes.CDLL, library: Library, fields: dict[str, dict[str, Field]]) -> None:
        self.c = c
        self.version = library.version
        self.distribution = library.distribution
        self.fields = fields
        self._log_lock = threading.Lock()
        self._lines: list[str] | None = None
        self._callback = LOG_CALLBACK(self._on_log)
        c.llama_log_set(self._callback, None)
        c.llama_backend_init()

    def _on_log(self, level: int, text: bytes | None, _: object) -> None:
        """Keep what llama.cpp says while somebody captures it, and drop it otherwise.

        Of the debug lines, thousands per model, only those about repacked tensors are kept.
        """
        if self._lines is None or not text or len(self._lines) >= _LOG_LINES:
            return
        if level != _LOG_DEBUG or b"repack" in text:
            self._lines.append(text.decode("utf-8", "replace"))

    @contextmanager
    def captured_log(self) -> Iterator[list[str]]:
        """Collect llama.cpp's log while the block runs (one block at a time in this process).

        The library has one log for all that use it in a process, and xllamacpp's server takes it for itself. Ctrl-C waits
        for the end of the block.
        """
        with self._log_lock, interrupts_wait():
            self.c.llama_log_set(self._callback, None)
            lines: list[str] = []
            self._lines = lines
            try:
                yield lines
            finally:
                self._lines = None

    def model_params(self, **values: int) -> ParamsBuffer:
        """`llama_model_default_params()` with some fields set."""
        return _with_values(self.c.llama_model_default_params(), self.fields[MODEL], values)

    def context_params(self, **values: int) -> ParamsBuffer:
        """`llama_context_default_params()` with some fields set."""
        return _with_values(self.c.llama_context_default_params(), self.fields[CONTEXT], values)

    def system_info(self) -> str:
        """Instruction sets that this build uses on this machine, as llama.cpp prints them."""
        return str(self.c.llama_print_system_info().decode()).strip()


def _with_values(params: ParamsBuffer, fields: dict[str, Field], values: dict[str, int]) -> ParamsBuffer:
    """Write fields into a parameter struct by their checked offsets."""
    for name, value in values.items():
        struct.pack_into(fields[name].format, params.data, fields[name].offset, value)
    return params


def layout_problem(params: bytes, fields: dict[str, Field]) -> str | None:
    """The first field whose default is not where this binding expects it, or None.

    Args:
        params: Bytes of a default parameter struct.
        fields: Fields that the binding writes or relies on.

    Returns:
        None where every default is in its place; else a phrase naming field, offset, and both values.
    """
    for name, field in fields.items():
        (found,) = struct.unpack_from(field.format, params, field.offset)
        if int(found) != field.default:
            return f"{name} at byte {field.offset} is {int(found)}, expected {field.default}"
    return None


def fields_of(library: Library) -> dict[str, dict[str, Field]]:
    """Fields of both structs, where this library has them.

    Raises:
        ArtifactError: It declares its structs, and one has no such field.
    """
    found = {}
    for struct_name, fields in ((MODEL, MODEL_FIELDS), (CONTEXT, CONTEXT_FIELDS)):
        declared = library.offsets.get(struct_name, {})
        missing = [name for name in fields if declared and name not in declared]
        if missing:
            raise _unknown_layout(library, f"{struct_name} has no field {missing[0]}")
        found[struct_name] = {
            name: replace(field, offset=declared.get(name, field.offset)) for name, field in fields.items()
        }
    return found


@functools.cache
def library() -> Llama:
    """Load llama.cpp from the package that carries it here, once per process.

    Raises:
        MissingExtraError: No package that carries it is installed.
        ArtifactError: The installed build has another layout than this binding knows.
        UsageError: Another package was asked for than those that are known.
    """
    # Threads that spin for long while they wait make small models ten times slower on a machine that also does
    # something else; threads that sleep at once make them half as fast on an idle one. A short spin avoids both.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    found = find_library()
    if not found.path.is_file() or sys.platform == "win32":
        raise _unknown_layout(found, "its shared object cannot be called on this platform")
    # A handle of its own: signatures set on it are not those of the package's own definitions.
    c = ctypes.CDLL(str(found.path))
    for name, (result, arguments) in _SIGNATURES.items():
        function: Callable[..., Any] | None = getattr(c, name, None)
        if function is None:
            raise _unknown_layout(found, f"it does not export {name}")
        function.restype = result  # type: ignore[attr-defined]
        function.argtypes = arguments  # type: ignore[attr-defined]
    fields = fields_of(found)
    for default, struct_name in (("llama_model_default_params", MODEL), ("llama_context_default_params", CONTEXT)):
        problem = layout_problem(bytes(getattr(c, default)().data), fields[struct_name])
        if problem is not None:
            raise _unknown_layout(found, problem)
    return Llama(c, found, fields)


def _unknown_layout(library: Library, problem: str) -> ArtifactError:
    return ArtifactError(
        f"{library.distribution} {library.version} has another binary layout than this version of mlflow-quantgov "
        f"knows: {problem}.",
        why="Calling it anyway would read and write the wrong memory.",
        fix=library.fix,
    )
