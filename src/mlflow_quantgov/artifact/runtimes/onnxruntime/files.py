"""What lies in an ONNX model folder: the graph, its configs, and how long a sequence it was trained for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import ArtifactError

PURPOSE = "run ONNX models"
GENAI_CONFIG = "genai_config.json"
CONFIGS = (GENAI_CONFIG, "config.json", "generation_config.json", "tokenizer_config.json")
SESSION_OPTIONS = frozenset(
    {
        "disable_telemetry_events", "enable_cpu_mem_arena", "enable_mem_pattern", "graph_optimization_level",
        "inter_op_num_threads", "intra_op_num_threads", "log_id", "log_severity_level", "provider_options",
    }
)  # fmt: skip
"""What genai_config.json may ask of a session. Others load code (`custom_ops_library`), write files, or need other
hardware."""
MAX_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class OnnxFolder:
    """One model: where its graph and tokenizer are, and what its configs say."""

    root: Path
    graph: Path
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """File name to content; empty where a file is not there."""

    @property
    def is_genai(self) -> bool:
        """Whether onnxruntime-genai can load it."""
        return bool(self.configs[GENAI_CONFIG])

    @property
    def genai_model(self) -> dict[str, Any]:
        """The `model` section of genai_config.json, or empty."""
        found = self.configs[GENAI_CONFIG].get("model")
        return found if isinstance(found, dict) else {}

    @property
    def trained_length(self) -> int | None:
        """Tokens of the longest sequence that a config names."""
        for value in (
            self.genai_model.get("context_length"),
            self.configs["config.json"].get("max_position_embeddings"),
            self.configs["config.json"].get("n_positions"),
        ):
            if isinstance(value, int) and value > 0:
                return value
        return None

    def token_ids(self, role: str) -> list[int]:
        """Ids that the configs give a role (`eos`, `bos`), each once, in order of appearance."""
        sources = (self.genai_model, self.configs["generation_config.json"], self.configs["config.json"])
        found: list[int] = []
        for source in sources:
            value = source.get(f"{role}_token_id")
            found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
        return list(dict.fromkeys(found))

    def chat_template(self) -> str | None:
        """Jinja source beside the tokenizer, if any."""
        beside = self.root / "chat_template.jinja"
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        template = self.configs["tokenizer_config.json"].get("chat_template")
        return template if isinstance(template, str) else None


def read_onnx_folder(path: Path) -> OnnxFolder:
    """The one decoder of a folder, or of a `.onnx` file with its folder.

    Raises:
        ArtifactError: There is no graph or more than one, no tokenizer, a config does not read or asks for code.
    """
    root = path if path.is_dir() else path.parent
    configs = {name: _read_json(root / name) for name in CONFIGS}
    foreign = _foreign_option(configs[GENAI_CONFIG])
    if foreign:
        raise not_loaded(path, f"its genai_config.json sets {foreign}, which may load code or files of the model's own")
    graph = path if path.is_file() else _graph(root, configs[GENAI_CONFIG])
    if graph.suffix != ".onnx":
        raise not_loaded(path, f"{graph.name} is no .onnx file")
    if not (root / "tokenizer.json").is_file():
        raise not_loaded(path, "there is no tokenizer.json beside the graph")
    return OnnxFolder(root, graph, configs)


def _graph(root: Path, genai: dict[str, Any]) -> Path:
    """The decoder's graph: the one that genai_config.json names, else the only one."""
    model = genai.get("model")
    decoder = model.get("decoder") if isinstance(model, dict) else None
    named = decoder.get("filename") if isinstance(decoder, dict) else None
    if isinstance(named, str):
        if Path(named).name != named or not (root / named).is_file():
            raise not_loaded(root, f"genai_config.json names {named}, which is not there")
        return root / named
    found = sorted(root.glob("*.onnx"))
    if len(found) != 1:
        count = f"{len(found)} .onnx files, and only one is a model" if found else "no .onnx file"
        raise not_loaded(root, f"it holds {count}")
    return found[0]


def _foreign_option(value: Any, inside: str = "") -> str | None:
    """The first option of a session that is not on the list, or names a library; None where there is none."""
    if isinstance(value, list):
        return next((found for one in value if (found := _foreign_option(one, inside))), None)
    if not isinstance(value, dict):
        return None
    for key, one in value.items():
        if "library" in key.lower() or (inside == "session_options" and key not in SESSION_OPTIONS):
            return str(key)
        if found := _foreign_option(one, key):
            return found
    return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise not_loaded(path.parent, f"its {path.name} does not read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise not_loaded(path.parent, f"its {path.name} is no object")
    return found


def not_loaded(path: Path, problem: str) -> ArtifactError:
    """The error that says why a model does not load."""
    return ArtifactError(
        f"onnxruntime does not load {path.name}: {problem}.",
        why="What does not load cannot be measured or served.",
        fix=f"quantgov inspect {path}",
    )
