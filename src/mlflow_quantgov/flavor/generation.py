"""The loaded model: one object for `mlflow_quantgov.load_model`, `mlflow.pyfunc` and `mlflow models serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_quantgov.artifact.runtimes.interface import Runtime
from mlflow_quantgov.errors import UsageError

DEFAULT_MAX_TOKENS = 128


class GenerationModel:
    """A language model that answers prompts, greedily, in the runtime that its target names.

    Attributes:
        runtime: The loaded runtime, for scores, logits and facts.
        path: The folder or file that was loaded.
    """

    def __init__(self, runtime: Runtime, path: Path) -> None:
        """Keep the loaded runtime."""
        self.runtime = runtime
        self.path = path

    def generate(self, prompts: Sequence[str], *, max_tokens: int = DEFAULT_MAX_TOKENS, chat: bool = True) -> list[str]:
        """Answer each prompt.

        Args:
            prompts: One text each; a user's turn where `chat` is true and the model has a chat template.
            max_tokens: Longest answer, in tokens.
            chat: Wrap each prompt in the model's own chat template.
        """
        if chat and self.runtime.chat_template is not None:
            prompts = [self.runtime.render_chat([{"role": "user", "content": text}]) for text in prompts]
        return self.runtime.generate(list(prompts), max_tokens=max_tokens)

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> list[str]:
        """MLflow's pyfunc interface: a list, series, array or one-column frame of prompts.

        Raises:
            UsageError: The input is not a list of texts, or a parameter is unknown.
        """
        settings = dict(params or {})
        unknown = settings.keys() - {"max_tokens", "chat"}
        if unknown:
            raise UsageError(
                f"predict does not know the parameter {sorted(unknown)[0]!r}.",
                why="Only max_tokens and chat change an answer; decoding is greedy, so that answers can be compared.",
                fix='model.predict(["..."], params={"max_tokens": 64})',
            )
        return self.generate(_texts(data), **settings)

    def close(self) -> None:
        """Free the model."""
        self.runtime.close()


def _texts(data: Any) -> list[str]:
    if isinstance(data, str):
        return [data]
    if hasattr(data, "columns"):
        if len(data.columns) != 1:
            raise UsageError(
                f"The input frame has {len(data.columns)} columns.",
                why="Each row is one prompt, so there has to be exactly one column of texts.",
                fix='model.predict(["What is MLflow?"])',
            )
        data = data.iloc[:, 0]
    texts = data.tolist() if hasattr(data, "tolist") else list(data)
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(
            "The input is not a list of texts.",
            why="Each entry is one prompt.",
            fix='model.predict(["What is MLflow?"])',
        )
    return texts
