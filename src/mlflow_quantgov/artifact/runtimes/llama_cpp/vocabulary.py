"""Tokens of a loaded GGUF model: text to ids, ids to bytes, and which ids end an answer."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from mlflow_quantgov.artifact.runtimes.llama_cpp.binding import Llama
from mlflow_quantgov.errors import UsageError


class Vocabulary:
    """The vocabulary inside a loaded model."""

    def __init__(self, llama: Llama, model: int) -> None:
        self._c = llama.c
        self._pointer = llama.c.llama_model_get_vocab(model)
        self.size = int(llama.c.llama_vocab_n_tokens(self._pointer))
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids; special tokens written out are parsed; `add_special` adds what the model's file asks for."""
        data = text.encode("utf-8")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = self._c.llama_tokenize(self._pointer, data, len(data), buffer, room, add_special, True)
        if count < 0:
            room = -count
            buffer = (ctypes.c_int32 * room)()
            count = self._c.llama_tokenize(self._pointer, data, len(data), buffer, room, add_special, True)
        if count < 0:
            raise UsageError(
                f"llama.cpp could not tokenize a text of {len(data)} bytes.",
                why="Nothing can be measured on a text that is not tokenized.",
                fix="shorten the text",
            )
        tokens = list(buffer[:count])
        if add_special and len(tokens) > 1 and tokens[0] == tokens[1] == self.bos:
            return tokens[1:]
        return tokens

    def piece(self, token: int) -> bytes:
        """Bytes of one token, special ones written out; they need not be whole characters."""
        if token not in self._pieces:
            if not 0 <= token < self.size:
                raise UsageError(
                    f"Token id {token} is outside the vocabulary of {self.size}.",
                    why="It stands for no text in this model.",
                    fix="tokenize with this model's own tokenizer",
                )
            room = 64
            while (
                count := self._c.llama_token_to_piece(self._pointer, token, (b := _buffer(room)), room, 0, True)
            ) < 0:
                room = -count
            self._pieces[token] = b.raw[:count]
        return self._pieces[token]

    def text(self, tokens: Sequence[int]) -> str:
        """Text of token ids; bytes that are no character become U+FFFD."""
        return b"".join(self.piece(token) for token in tokens).decode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer (end of text, of turn, of message)."""
        return bool(self._c.llama_vocab_is_eog(self._pointer, token))

    @property
    def bos(self) -> int:
        """Beginning-of-text token, -1 where there is none."""
        return int(self._c.llama_vocab_bos(self._pointer))

    @property
    def start(self) -> int:
        """What stands before a text that has nothing before it: beginning of text, else end of text, else token 0."""
        for token in (self.bos, int(self._c.llama_vocab_eos(self._pointer))):
            if token >= 0:
                return token
        return 0


def _buffer(room: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(room)
