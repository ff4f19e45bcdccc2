"""`quantgov evaluate`: the user's own tasks on both sides, or what others measured of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table
from rich.text import Text

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import coloured, json_option, print_json, print_note, progress_bar, stdout
from mlflow_quantgov.errors import UsageError
from mlflow_quantgov.evidence.measure.progress import duration

if TYPE_CHECKING:
    from mlflow_quantgov.api import EvaluationPlan

_FILE = click.Path(path_type=Path)
Source = Literal["lm-eval", "inspect", "jsonl"]


def _two(name: str, metavar: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that takes both sides' files."""
    return click.option(name, nargs=2, type=_FILE, metavar=metavar, help=text)


@click.command()
@click.argument("uri")
@click.option("--tasks", type=_FILE, help="Folder of lm-eval task YAML.")
@click.option("--task", "names", multiple=True, metavar="NAME", help="A task, group or tag that lm-eval ships.")
@click.option("--runtime", help="Runtime for both sides; default: the target's.")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    metavar="TASK=NAME",
    help="Capability of a task; NAME alone with --from-jsonl.",
)
@click.option("--metric", "metrics", multiple=True, metavar="TASK=NAME", help="Metric of a task.")
@click.option("--limit", type=click.IntRange(1), help="Use only the first items of each task.")
@click.option(
    "--repeats",
    type=click.IntRange(0),
    help="Items of each task that the parent answers twice; default: 200 where its runtime is not deterministic.",
)
@click.option("--plan", is_flag=True, help="Say how many items are needed and how long it takes; attach nothing.")
@click.option("--pilot", type=click.IntRange(1), help="With --plan: items of each task to run on both sides first.")
@click.option("--discordance", type=float, help="With --plan: share of items whose score is expected to differ.")
@click.option("--to", help="With --plan: destination whose gate is planned for.")
@_two(
    "--served",
    "PARENT.yaml QUANTIZED.yaml",
    "Ask the endpoints that these files describe, instead of running the models here.",
)
@click.option("--served-parent", type=_FILE, metavar="FILE.yaml", help="Ask an endpoint for the parent alone.")
@click.option(
    "--served-quantized", type=_FILE, metavar="FILE.yaml", help="Ask an endpoint for the quantized version alone."
)
@_two("--from-lm-eval", "PARENT_DIR QUANTIZED_DIR", "Take samples that lm-eval logged elsewhere.")
@_two("--from-inspect", "PARENT.eval QUANTIZED.eval", "Take logs that Inspect wrote elsewhere.")
@_two("--from-jsonl", "PARENT.jsonl QUANTIZED.jsonl", "Take lines {id, score, group, output} made elsewhere.")
@key_option
@json_option
def evaluate(
    uri: str,
    tasks: Path | None,
    names: tuple[str, ...],
    runtime: str | None,
    capabilities: tuple[str, ...],
    metrics: tuple[str, ...],
    limit: int | None,
    repeats: int | None,
    plan: bool,
    pilot: int | None,
    discordance: float | None,
    to: str | None,
    served: tuple[Path, Path] | None,
    served_parent: Path | None,
    served_quantized: Path | None,
    from_lm_eval: tuple[Path, Path] | None,
    from_inspect: tuple[Path, Path] | None,
    from_jsonl: tuple[Path, Path] | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Run tasks on the version and its parent, item by item, and attach the scores.

    Killed and run again, it goes on where it stopped. With one of the --from options, take scores that were made elsewhere;
    they are labelled `imported`. With --plan, say what is needed before anything runs.
    """
    from mlflow_quantgov import api

    sources: dict[Source, tuple[Path, Path] | None] = {
        "lm-eval": from_lm_eval,
        "inspect": from_inspect,
        "jsonl": from_jsonl,
    }
    given = (
        [f"--from-{name}" for name, one in sources.items() if one]
        + ["--tasks"] * bool(tasks)
        + ["--task"] * bool(names)
    )
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given)} were given together." if given else "There is nothing to evaluate.",
            why="Scores come from one source at a time.",
            fix=f"quantgov evaluate {uri} --tasks DIR",
        )
    if plan and (limit is not None or repeats is not None or given[0].startswith("--from")):
        raise UsageError(
            "--plan goes with --tasks or --task, and without --limit and --repeats.",
            why="It says what the whole evaluation needs, before anything runs.",
            fix=f"quantgov evaluate {uri} --tasks DIR --plan --pilot 20",
        )
    if not plan and (pilot is not None or discordance is not None or to is not None):
        raise UsageError(
            "--pilot, --discordance and --to go with --plan.",
            why="They change what is planned, and nothing that is measured.",
            fix=f"quantgov evaluate {uri} --tasks DIR --plan",
        )
    made = next(((name, one) for name, one in sources.items() if one), None)
    if made is not None:
        kind, (left, right) = made
        plain = kind == "jsonl"
        measure(
            "importing",
            lambda _: api.import_scores(
                uri,
                kind,
                left,
                right,
                capabilities={} if plain else _pairs(capabilities),
                metrics=_pairs(metrics),
                capability=_single(capabilities) if plain else None,
                key=key,
            ),
            as_json=as_json,
        )
        return
    endpoints = (served_parent, served_quantized) if served is None else served
    if served is not None and (served_parent or served_quantized):
        raise UsageError(
            "--served names both sides already.", fix="use --served, or one of --served-parent and --served-quantized"
        )
    if tasks is not None and any(tasks.glob("*.py")) and not as_json:
        print_note(f"the Python code in {tasks} runs on this machine", error=True)
    common: dict[str, Any] = {
        "runtime": runtime,
        "capabilities": _pairs(capabilities),
        "metrics": _pairs(metrics),
        "served": endpoints,
    }
    if plan:
        with progress_bar("planning", quiet=as_json) as progress:
            found = api.plan_evaluation(
                uri, tasks or names, to=to, pilot=pilot, discordance=discordance, progress=progress, **common
            )
        print_json(found.to_dict()) if as_json else _print_plan(uri, found)
        return
    measure(
        "evaluating",
        lambda progress: api.evaluate(
            uri,
            tasks if tasks is not None else names,
            limit=limit,
            repeats=repeats,
            progress=progress,
            key=key,
            **common,
        ),
        as_json=as_json,
    )


def _print_plan(uri: str, plan: EvaluationPlan) -> None:
    """What is needed, what there is, and what to do about the difference."""
    stdout.print(
        Text("plan", style="bold"), f"for {plan.destination} under the policy {plan.policy}; nothing was attached"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    longest = max((len(one.capability) for one in plan.capabilities), default=0)
    table.add_column("capability", overflow="fold", min_width=min(longest, 30))
    for column in ("margin", "expected\nto differ", "items\nneeded", "items\nhere", "chance of\na pass", "enough"):
        table.add_column(column, overflow="fold", justify="right")
    for one in plan.capabilities:
        table.add_row(
            one.capability,
            f"{one.margin:g}",
            f"{one.discordance:.1%} ({one.assumed_from})",
            f"{one.items_needed:,}" if one.items_needed else "-",
            f"{one.items:,}",
            f"{one.power:.0%}",
            coloured("yes" if one.enough else "no"),
        )
    stdout.print(table)
    for one in plan.capabilities:
        if one.note:
            print_note(f"{one.capability}: {one.note}")
        if one.not_counted:
            print_note(f"{one.capability}: not counted, since multiple choice: {', '.join(one.not_counted)}")
    each = f"{plan.items:,} items on both sides"
    if plan.minutes is None:
        print_note(f"{each}; how long that takes, a pilot tells: quantgov evaluate {uri} --tasks DIR --plan --pilot 20")
    else:
        print_note(f"{each}: about {duration(60 * plan.minutes)}, as {plan.pilot_items:,} items of the pilot took")


def _single(values: tuple[str, ...]) -> str:
    if len(values) != 1 or "=" in values[0]:
        raise UsageError(
            "--from-jsonl takes one --capability NAME.",
            why="All lines of a file measure one capability.",
            fix="quantgov evaluate URI --from-jsonl PARENT.jsonl QUANTIZED.jsonl --capability instruction-following",
        )
    return values[0]


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
