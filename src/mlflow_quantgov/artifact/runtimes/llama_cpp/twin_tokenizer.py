"""GGUF metadata of a byte-level BPE `tokenizer.json`, where llama.cpp has a name for the way it splits text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_quantgov.errors import ArtifactError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types of GGUF."""


@dataclass(frozen=True)
class TokenizerMetadata:
    """What `tokenizer.ggml.*` of a GGUF file says."""

    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    add_bos: bool
    special: dict[str, int]
    """`bos`, `eos`, `unk`, `pad` to token id, where known."""
    chat_template: str | None


def read_tokenizer(folder: Path, vocabulary: int) -> TokenizerMetadata:
    """Read tokenizer and chat template of a Hugging Face folder.

    Args:
        folder: Folder with `tokenizer.json` and, usually, `tokenizer_config.json`.
        vocabulary: Rows of the embedding; ids beyond the tokenizer's become unused tokens.

    Raises:
        ArtifactError: A file is missing or malformed, or llama.cpp has no name for this tokenizer.
    """
    data = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    model = data.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback") or data.get("normalizer"):
        raise _unknown(folder, "it is no plain byte-level BPE")
    try:
        pre = _pre_tokenizer_name(folder, data.get("pre_tokenizer"))
        tokens, types = _tokens(data, vocabulary)
        merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unknown(folder, "its vocabulary is malformed") from error
    ids = {text: i for i, text in enumerate(tokens)}
    special = _special(settings, read_json(folder / "config.json"), ids)
    return TokenizerMetadata(
        pre,
        tokens,
        types,
        merges,
        _adds_bos(data, tokens, special.get("bos")),
        special,
        _chat_template(folder, settings),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 100 MB.

    Raises:
        ArtifactError: It is missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > 100 * 2**20:
            raise ValueError("too large")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path.name} cannot be read: {type(error).__name__}.",
            why="The conversion needs it.",
            fix=f"put a readable {path.name} into {path.parent}",
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(
            f"{path.name} is not a JSON object.", why="The conversion needs it.", fix=f"repair {path.name}"
        )
    return found


def _pre_tokenizer_name(folder: Path, pre: Any) -> str:
    """llama.cpp's name for a pre-tokenizer: only those whose splitting is the same by definition."""
    parts = pre["pretokenizers"] if pre and pre.get("type") == "Sequence" else [pre]
    kinds = [part.get("type") if part else None for part in parts]
    level = parts[-1] or {}
    plain = level.get("type") == "ByteLevel" and not level.get("add_prefix_space") and level.get("use_regex", True)
    if plain and kinds == ["ByteLevel"]:
        return "gpt-2"
    if plain and kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    raise _unknown(folder, f"its pre-tokenizer is {'+'.join(str(kind) for kind in kinds)}")


def _tokens(data: dict[str, Any], vocabulary: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Text and type of every id."""
    texts: dict[int, str] = {int(i): str(text) for text, i in data["model"]["vocab"].items()}
    kinds = dict.fromkeys(texts, NORMAL)
    for added in data.get("added_tokens") or []:
        texts[int(added["id"])] = str(added["content"])
        kinds[int(added["id"])] = CONTROL if added.get("special") else USER_DEFINED
    if max(texts) >= vocabulary:
        raise ValueError("more tokens than embedding rows")
    tokens = tuple(texts.get(i, f"[PAD{i}]") for i in range(vocabulary))
    return tokens, tuple(kinds.get(i, UNUSED) for i in range(vocabulary))


def _special(settings: dict[str, Any], config: dict[str, Any], ids: dict[str, int]) -> dict[str, int]:
    """Ids of the tokens with a role, from the tokenizer's settings, else from the model's config."""
    found: dict[str, int] = {}
    for role in ("bos", "eos", "unk", "pad"):
        named = settings.get(f"{role}_token")
        text = named.get("content") if isinstance(named, dict) else named
        fallback = config.get(f"{role}_token_id")
        if isinstance(text, str) and text in ids:
            found[role] = ids[text]
        elif isinstance(fallback, int) and not isinstance(fallback, bool) and 0 <= fallback < len(ids):
            found[role] = fallback
    return found


def _adds_bos(data: dict[str, Any], tokens: tuple[str, ...], bos: int | None) -> bool:
    """Whether the tokenizer's own post-processor puts the beginning-of-text token in front."""
    post = data.get("post_processor") or {}
    for part in post.get("processors", [post]):
        if part.get("type") == "TemplateProcessing" and part.get("single"):
            first = part["single"][0].get("SpecialToken", {}).get("id")
            return bos is not None and first == tokens[bos]
    return False


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The chat template, from its own file or from the tokenizer's settings."""
    own = folder / "chat_template.jinja"
    if own.is_file() and own.stat().st_size <= 2**20:
        return own.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _unknown(folder: Path, problem: str) -> ArtifactError:
    return ArtifactError(
        f"The tokenizer of {folder.name} has no known llama.cpp name: {problem}.",
        why="A twin that splits text differently would not measure the same model.",
        fix="convert the parent with llama.cpp's own converter and give the .gguf file, or measure with transformers",
    )
