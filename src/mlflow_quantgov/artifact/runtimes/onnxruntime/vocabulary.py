"""Tokens of an ONNX model, by its tokenizer.json: the same ids that every other runtime gives the same text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow_quantgov.artifact.runtimes.onnxruntime.files import PURPOSE, OnnxFolder, not_loaded
from mlflow_quantgov.errors import require


class Vocabulary:
    """The tokenizer of a model folder.

    Raises:
        MissingExtraError: `tokenizers` is not installed.
        ArtifactError: tokenizer.json does not read.
    """

    def __init__(self, folder: OnnxFolder) -> None:
        tokenizers = require("tokenizers", extra="onnx", purpose=PURPOSE)
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder.root / "tokenizer.json"))
        except Exception as error:
            raise not_loaded(folder.root, f"its tokenizer.json does not read: {str(error)[:200]}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.size = int(self._tokenizer.get_vocab_size())
        named = self._named(folder, "eos_token")
        self.ends = frozenset([*folder.token_ids("eos"), *named])
        # In the order of the transformers runtime: the tokenizer's own word first.
        starts = [*self._named(folder, "bos_token"), *folder.token_ids("bos"), *sorted(self.ends)]
        self.start = starts[0] if starts else 0

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; special tokens written out are parsed; `add_special` adds what the tokenizer's file asks for."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=add_special).ids]

    def text(self, tokens: Sequence[int]) -> str:
        """Text of token ids, special tokens written out."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def _named(self, folder: OnnxFolder, role: str) -> list[int]:
        """Id of the token that tokenizer_config.json gives a role, if any."""
        value = folder.configs["tokenizer_config.json"].get(role)
        if isinstance(value, dict):
            value = value.get("content")
        token = self._tokenizer.token_to_id(value) if isinstance(value, str) else None
        return [] if token is None else [int(token)]
