"""Make the logs beside this file with Inspect itself: `pip install inspect-ai==0.3.285; python make_logs.py`.

A model that answers from a list stands in for a real one. The quantized side gets two of six sums wrong. No network is needed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import choice, includes, match
from inspect_ai.solver import generate, multiple_choice

HERE = Path(__file__).parent
SUMS = [
    Sample(id=f"q{n}", input=f"What is {n} + {n}?", target=str(2 * n), metadata={"passage": f"p{n // 2}"})
    for n in range(6)
]
PICKS = [Sample(id=n, input=f"Pick {n}.", choices=["one", "two", "three"], target="ABC"[n % 3]) for n in range(4)]


def said(text: str) -> ModelOutput:
    """One answer, with its tokens counted, so that nothing is downloaded to count them."""
    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output


def run(task: Task, answers: list[str], name: str, **options: object) -> None:
    """One evaluation, its log kept under a name."""
    model = get_model("mockllm/model", custom_outputs=[said(one) for one in answers], memoize=False)
    with tempfile.TemporaryDirectory() as folder:
        eval(task, model=model, log_dir=folder, max_samples=1, max_connections=1, display="none", temperature=0,
             log_format=name.rpartition(".")[2], **options)  # fmt: skip
        (made,) = (path for path in Path(folder).iterdir() if path.suffix in {".eval", ".json"})
        shutil.copy(made, HERE / name)


for side, wrong in (("parent", ()), ("quantized", (2, 5))):
    sums = ["no idea" if n in wrong else str(2 * n) for n in range(6)]
    metadata = {"capability": "multi-step-reasoning", "group_by": "passage"}
    for kind in ("eval", "json"):
        task = Task(
            dataset=SUMS, solver=generate(), scorer=[match(numeric=True), includes()], name="sums", metadata=metadata
        )
        run(task, sums, f"{side}.{kind}")
    picks = Task(dataset=PICKS, solver=multiple_choice(), scorer=choice(), name="picks")
    run(picks, [f"ANSWER: {'ABC'[n % 3]}" for n in range(4)], f"{side}-picks.eval")
twice = Task(dataset=SUMS[:2], solver=generate(), scorer=match(numeric=True), name="sums", epochs=2)
run(twice, ["0", "0", "2", "3"], "epochs.eval")
