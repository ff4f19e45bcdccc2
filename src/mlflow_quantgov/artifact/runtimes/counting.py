"""How many tokens of a model some texts are, where its tokenizer is at hand; no weights are loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mlflow_quantgov.errors import MissingExtraError, QuantgovError

MAX_TOKENIZER_BYTES = 256 * 1024 * 1024
MAX_CHARACTERS = 50_000_000
"""Characters up to which counting takes seconds."""


def count_tokens(artifact: Path, texts: Sequence[str]) -> int | None:
    """Tokens of all texts together, without special ones; None where no tokenizer is at hand, or the text is too long.

    Args:
        artifact: A model folder with a tokenizer.json, or a GGUF file (or a folder that holds one).
        texts: The texts.
    """
    if sum(len(text) for text in texts) > MAX_CHARACTERS:
        return None
    described = artifact / "tokenizer.json"
    if described.is_file():
        return _by_description(described, texts)
    ggufs = [artifact] if artifact.suffix == ".gguf" else sorted(artifact.glob("*.gguf")) if artifact.is_dir() else []
    return _by_gguf(ggufs[0], texts) if ggufs else None


def _by_description(path: Path, texts: Sequence[str]) -> int | None:
    if importlib.util.find_spec("tokenizers") is None or path.stat().st_size > MAX_TOKENIZER_BYTES:
        return None
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception:  # noqa: BLE001  (the library raises bare Exceptions)
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


def _by_gguf(path: Path, texts: Sequence[str]) -> int | None:
    from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import library
    from mlflow_quantgov.artifact.runtimes.llama_cpp.vocabulary import Vocabulary

    try:
        llama = library()
        with llama.captured_log():
            model = llama.c.llama_model_load_from_file(str(path).encode(), llama.model_params(vocab_only=True))
    except MissingExtraError:
        return None
    if not model:
        return None
    try:
        vocabulary = Vocabulary(llama, model)
        return sum(len(vocabulary.tokenize(text, add_special=False)) for text in texts)
    except QuantgovError:
        return None
    finally:
        llama.c.llama_model_free(model)
