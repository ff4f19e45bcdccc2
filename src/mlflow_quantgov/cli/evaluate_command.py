"""`quantgov evaluate`: the user's own tasks on both sides."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import measure
from mlflow_quantgov.cli.output import json_option, print_note
from mlflow_quantgov.errors import UsageError


@click.command()
@click.argument("uri")
@click.option("--tasks", required=True, type=click.Path(path_type=Path), help="Folder of lm-eval task YAML.")
@click.option("--runtime", help="Runtime for both sides; default: the target's.")
@click.option("--capability", "capabilities", multiple=True, metavar="TASK=NAME", help="Capability of a task.")
@click.option("--metric", "metrics", multiple=True, metavar="TASK=NAME", help="Metric of a task.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first items of each task.")
@click.option(
    "--served",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="PARENT.yaml QUANTIZED.yaml",
    help="Ask the endpoints that these files describe, instead of running the models here.",
)
@json_option
def evaluate(
    uri: str,
    tasks: Path,
    runtime: str | None,
    capabilities: tuple[str, ...],
    metrics: tuple[str, ...],
    limit: int | None,
    served: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Run tasks on the version and its parent, item by item, and attach the scores."""
    from mlflow_quantgov import api

    if any(tasks.glob("*.py")) and not as_json:
        print_note(f"the Python code in {tasks} runs on this machine", error=True)
    measure(
        "evaluating",
        lambda progress: api.evaluate(
            uri,
            tasks,
            runtime=runtime,
            capabilities=_pairs(capabilities),
            metrics=_pairs(metrics),
            limit=limit,
            served=served,
            progress=progress,
        ),
        as_json=as_json,
    )


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for value in values:
        task, separator, name = value.partition("=")
        if not separator or not task or not name:
            raise UsageError(
                f"{value!r} is not TASK=NAME.",
                why="It says which capability or metric a task stands for.",
                fix="quantgov evaluate URI --tasks DIR --capability my_task=instruction-following",
            )
        result[task] = name
    return result
