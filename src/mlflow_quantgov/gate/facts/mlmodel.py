"""What MLmodel makes MLflow load: what its flavors say, and whether all of that lies where it was looked at."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.language import architectures_of, is_encoder_class

NAME = "MLmodel"
OURS = "quantgov"
"""Folder of a version in which evidence and reports are added after the registration."""
UNREADABLE = (OSError, yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError, AttributeError)
"""What reading an MLmodel raises where it is not one, or not what MLflow writes."""
_MAX_BYTES = 1_000_000
_MAX_VALUES = 100_000
_NOTES = (("source_model_name",), ("model_code_path",), ("artifacts", "*", "uri"))
"""Where MLflow notes what a model was made from; it loads nothing from there (of a code path, only the last name counts)."""
_ELSEWHERE = ("source_model_revision", "local_base_model_path")
"""With either, the transformers flavor loads from a hub or another folder, whatever else it says."""
_DRIVE = re.compile(r"^[a-zA-Z]:\S")
_LOADERS = {"mlflow.transformers", "mlflow.sentence_transformers"}
"""They make of safetensors what the config beside them says."""
_TASKS = frozenset({
    "audio-classification", "automatic-speech-recognition", "depth-estimation", "document-question-answering",
    "feature-extraction", "fill-mask", "image-classification", "image-feature-extraction", "image-segmentation",
    "image-to-image", "keypoint-matching", "mask-generation", "ner", "object-detection", "question-answering",
    "sentiment-analysis", "table-question-answering", "text-classification", "token-classification",
    "video-classification", "visual-question-answering", "vqa", "zero-shot-audio-classification",
    "zero-shot-classification", "zero-shot-image-classification", "zero-shot-object-detection", "llm/v1/embeddings",
})  # fmt: skip
"""Tasks of transformers' pipelines that an encoder can have; whatever is not among them may generate."""
_GENERATES = "which may generate text: language models are logged with mlflow_quantgov.log_model."
_PIPELINES = re.compile(
    r"(Classification|FeatureExtraction|Detection|Segmentation|Matching|ImageToImage|MaskGeneration|FillMask"
    r"|QuestionAnswering|DepthEstimation|SpeechRecognition)Pipeline$"
)


class _PlainLoader(yaml.SafeLoader):
    """Safe loader without merge keys, with which a file of a kilobyte fills any memory."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys are not read here")
        super().flatten_mapping(node)


def flavors_of(path: Path) -> Any:
    """What an MLmodel says of its flavors; raises any of `UNREADABLE` where it is not one."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError("MLmodel is too large to be one")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES)
    return yaml.load(content.decode("utf-8"), Loader=_PlainLoader)["flavors"]  # noqa: S506  (a SafeLoader)


def unreadable(error: Exception) -> str:
    """One line for what reading an MLmodel raised."""
    return f"MLmodel cannot be read ({type(error).__name__}), so nobody knows what would be loaded."


def elsewhere_problem(path: Path, files: ArtifactFiles | None) -> str | None:
    """Whether an MLmodel loads what was not looked at: from a hub, another place, or where files may come later.

    Args:
        path: The MLmodel.
        files: What was inspected in the version; None where nothing could be.
    """
    try:
        for name, described in flavors_of(path).items():
            if not isinstance(described, dict):
                raise TypeError("a flavor is described by names and values")
            shown = str(name)[:100]
            if name != "sentence_transformers" and "source_model_name" in described and "model_binary" not in described:
                # As MLflow's transformers flavor writes it with `save_pretrained=False`; the other one only notes it.
                return f"MLmodel has {shown!r} fetch {str(described['source_model_name'])[:100]!r}, which does not lie here."
            for text in _texts(described):
                if _is_ours(text):
                    return f"MLmodel has {shown!r} load from {OURS}/, where files may still be added."
                if _leads_out(text):
                    return f"MLmodel has {shown!r} load {text[:100]!r}, which does not lie in the version."
            problem = _transformers_problem(path.parent, described, files) if name == "transformers" else None
            problem = problem or _code_problem(described, files)
            if problem is not None:
                return problem
    except UNREADABLE as error:
        return unreadable(error)
    return None


def _transformers_problem(folder: Path, described: dict[str, Any], files: ArtifactFiles | None) -> str | None:
    """Why the transformers flavor would make something else than the encoder that was inspected, or None."""
    for key in _ELSEWHERE:
        if key in described:
            return f"MLmodel has 'transformers' load by {key} {str(described[key])[:100]!r}, which does not lie here."
    binary = described.get("model_binary", "pipeline")
    if files is None or not _is_place(folder, binary, files.root):
        return f"MLmodel has 'transformers' load {str(binary)[:100]!r}, which is not what was inspected."
    for key in ("task", "inference_task"):
        if described.get(key) is not None and described[key] not in _TASKS:
            return f"MLmodel gives it the task {str(described[key])[:100]!r}, {_GENERATES}"
    pipeline = described.get("instance_type")
    if pipeline is not None and not _PIPELINES.search(str(pipeline)):
        return f"MLmodel makes it a {str(pipeline)[:100]!r}, {_GENERATES}"
    made, named = str(described.get("pipeline_model_type")), architectures_of(files)
    if made not in named or not is_encoder_class(made):
        return f"MLmodel makes it a {made[:100]!r}, which is not the class in its config.json."
    return None


def _code_problem(described: dict[str, Any], files: ArtifactFiles | None) -> str | None:
    """Why weights that were taken for an encoder's may be given to something else, or None; a graph says itself what it is."""
    if files is None or not files.config or files.onnx is not None or files.openvino is not None:
        return None
    if described.get("code"):
        return "It brings code of its own, which may make a language model of the weights that were inspected."
    loader = described.get("loader_module", "mlflow.transformers")
    if loader not in _LOADERS:
        return f"MLmodel has {str(loader)[:100]!r} load the weights that were inspected, and nobody knows what that makes of them."
    return None


def _is_place(folder: Path, binary: object, inspected: Path) -> bool:
    """Whether a path in MLmodel is that of the folder that was inspected, spelled as the folder is."""
    return isinstance(binary, str) and Path(posixpath.normpath(folder / binary)) == Path(posixpath.normpath(inspected))


def _texts(described: object) -> Iterator[str]:
    """Every text in what a flavor says, at any depth, but for notes."""
    left: list[tuple[tuple[str, ...], object]] = [((), described)]
    seen = 0
    while left:
        trail, one = left.pop()
        seen += 1
        if seen > _MAX_VALUES:  # aliases of YAML make much out of little
            raise ValueError("MLmodel holds more values than MLflow writes")
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += [((*trail, str(key)), value) for key, value in one.items() if not _is_note((*trail, str(key)))]
        elif isinstance(one, list | tuple | set):
            left += [((*trail, ""), value) for value in one]


def _is_note(trail: tuple[str, ...]) -> bool:
    return any(
        len(note) == len(trail) and all(wanted in {"*", key} for wanted, key in zip(note, trail, strict=True))
        for note in _NOTES
    )


def _parts(text: str) -> tuple[str, ...]:
    return PurePosixPath(posixpath.normpath(text.replace("\\", "/"))).parts


def _is_ours(text: str) -> bool:
    return OURS in (part.casefold() for part in _parts(text))


def _leads_out(text: str) -> bool:
    """Whether a text is a path to somewhere else, as Linux or Windows spell one."""
    parts = _parts(text)
    return text.startswith(("/", "\\", "~")) or bool(_DRIVE.match(text)) or parts[:1] == ("..",)
