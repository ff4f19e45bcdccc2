"""What a producer noted about calibration data in the artifact itself: names, never texts.

Sources: `quantize.imatrix.*` of llama.cpp's quantize tool; `dataset` in the quantization_config of transformers' GPTQ,
AutoRound and optimum-intel; ort_config.json of optimum; recipe.yaml of llm-compressor; rt_info of OpenVINO graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mlflow_quantgov.artifact.files import read_json_object
from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.errors import ArtifactError, PolicyError

MOST = 16
"""Names that are kept."""
LONGEST = 200
"""Characters of a name; what is longer is a text, and stays where it is."""
_GGUF_KEYS = ("quantize.imatrix.dataset", "quantize.imatrix.file")
_KEYS = frozenset(
    {"dataset", "dataset_name", "dataset_id", "calib_dataset", "calib_data", "calibration_dataset", "calibration_data"}
)
_NAMES = ("name", "path", "id", "dataset_name", "data_name")
"""Where a data set is described by an object, what names it."""
_JSON_FILES = ("ort_config.json", "inc_config.json", "olive_config.json", "openvino_config.json")
_RECIPE = "recipe.yaml"
_MOST_VALUES = 100_000


def calibration_notes(files: ArtifactFiles) -> tuple[str, ...]:
    """Names of data sets that the artifact's own metadata give, in the order of the places; empty where none does.

    Notes are hints: a file among them that cannot be read is passed over.
    """
    found = dict.fromkeys(name for name in _all(files) if _is_name(name))
    return tuple(found)[:MOST]


def _all(files: ArtifactFiles) -> Iterator[str]:
    for part in files.ggufs:
        yield from (str(part.metadata[key]) for key in _GGUF_KEYS if isinstance(part.metadata.get(key), str))
    if files.ggufs:
        return
    for place in [claim for _, claim in files.claims] + _side_files(files):
        yield from _in_object(place)
    notes = dict(files.metadata) | (files.openvino.notes if files.openvino else {})
    yield from (text for key, text in notes.items() if key.rpartition("/")[2].rpartition(".")[2] in _KEYS)


def _side_files(files: ArtifactFiles) -> list[Any]:
    found: list[Any] = []
    for name in _JSON_FILES:
        try:
            found.append(read_json_object(files.root / name))
        except ArtifactError:
            continue
    if (files.root / _RECIPE).is_file():
        # Not above: it brings pydantic, which few artifacts need.
        from mlflow_quantgov.yaml_files import parse_yaml, read_yaml

        with suppress(PolicyError):
            found.append(parse_yaml(read_yaml(files.root / _RECIPE), _RECIPE))
    return found


def _in_object(place: Any) -> Iterator[str]:
    """What stands under one of the keys anywhere in a JSON or YAML value."""
    waiting, left = [place], _MOST_VALUES
    while waiting and left:
        one, left = waiting.pop(0), left - 1
        if isinstance(one, list):
            waiting += [inner for inner in one if isinstance(inner, dict | list)]
        elif isinstance(one, dict):
            for key, value in one.items():
                if str(key) in _KEYS:
                    yield from _names(value)
                if isinstance(value, dict | list):
                    waiting.append(value)


def _names(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from (one[key] for key in _NAMES if isinstance(one.get(key), str))


def _is_name(text: str) -> bool:
    return 0 < len(text.strip()) <= LONGEST and text.isprintable() and text.lower() not in {"none", "null"}
