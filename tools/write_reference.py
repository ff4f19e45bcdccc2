"""Write docs/reference/{command-line,python,statements,kernels}.md from the code and the kernel tables, so that they cannot say something else.

python tools/write_reference.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

import click

import mlflow_quantgov as qg
from mlflow_quantgov.cli import COMMANDS, cli
from mlflow_quantgov.evidence.kernel_rows import Row
from mlflow_quantgov.evidence.kernel_table import SEVERITY, load_tables
from mlflow_quantgov.evidence.predicates import PREDICATES

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
_MADE = "<!-- Written by tools/write_reference.py; a test compares it with the code. -->"


def pages() -> dict[str, str]:
    """File name to content of every page that is written from the code."""
    return {
        "command-line.md": _command_line(),
        "python.md": _python(),
        "statements.md": _statements(),
        "kernels.md": _kernels(),
    }


def _command_line() -> str:
    parts = [
        "# Command line",
        _MADE,
        "Every command takes `--json`: stdout then holds one JSON document and nothing else. Options may also come from "
        "`QUANTGOV_*` and `MLFLOW_*` variables, except `QUANTGOV_POLICY` and `QUANTGOV_KEYS`, which only the server reads, and "
        "whoever opens its database as `quantgov:...`.",
        "Exit codes: 0 done or allowed, 1 refused, 2 usage, input or connection error, 3 refused because something is missing "
        "or inconclusive, 4 tampering detected. Where several hold: 2, then 4, 1, 3.",
    ]
    context = click.Context(cli, info_name="quantgov")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"`{usage}`", inspect.cleandoc(command.help or "")]
    rows = [_row(option) for option in command.params if isinstance(option, click.Option)]
    if rows:
        parts.append("\n".join(["| option | means |", "| --- | --- |", *rows]))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            parts += _command(inner, click.Context(inner, info_name=name, parent=context))
    return parts


def _row(option: click.Option) -> str:
    takes = "" if option.is_flag else f" {option.metavar or option.name.upper().split('.')[-1]}"
    default = option.default
    shown = f" Default: {default}." if option.show_default and not callable(default) and default is not None else ""
    needed = " Required." if option.required else ""
    return f"| `{option.opts[0]}{takes}` | {option.help or ''}{shown}{needed} |"


def _python() -> str:
    parts = [
        "# Python",
        _MADE,
        "`import mlflow_quantgov as qg` loads none of the heavy libraries; each name loads on first use.",
    ]
    for name in sorted(one for one in qg.__all__ if not one.startswith("_")):
        value = getattr(qg, name)
        signature = "" if inspect.isclass(value) else _signature(value)
        parts += [f"## qg.{name}{signature}", inspect.cleandoc(value.__doc__ or "")]
        parts[-1] = f"```text\n{parts[-1]}\n```"
    return "\n\n".join(parts) + "\n"


def _signature(function: object) -> str:
    names = []
    star = False
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            names.append("*")
            star = True
        shown = f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name
        names.append(shown if parameter.default is parameter.empty else f"{shown}={parameter.default!r}")
    return f"({', '.join(names)})"


def _statements() -> str:
    rows = [
        f"| `{kind}` | {(inspect.getdoc(predicate) or '').splitlines()[0]} | `{predicate.type_uri()}` |"
        for kind, predicate in PREDICATES.items()
    ]
    return (
        "\n\n".join(
            [
                "# Statements",
                _MADE,
                "A statement is an in-toto Statement v1 with one subject: the sha256 of a model's weights (of the parent's, for "
                "`archive` and `drill`). `quantgov schema KIND` prints the JSON Schema of a kind. The bytes of a statement are its "
                "canonical JSON: keys sorted, no spaces, UTF-8, no NaN; at most 64 MB and 200,000 items.",
                "\n".join(["| kind | says | predicate type |", "| --- | --- | --- |", *rows]),
                "Every predicate carries its records and a `summary`; whoever takes one in computes the summary again from the "
                "records, and refuses the statement where the two differ.",
            ]
        )
        + "\n"
    )


_SUPPORT = {
    "optimized": "the runtime has a kernel for these weights on this hardware that it takes first, and nothing says it is slower "
    "than full precision; the only one that passes",
    "unknown": "no source says; counts as not measured, unless `benchmark` on the target itself shows the very kernel to be no slower than the parent",
    "works-slowly": "it runs, slower than the full-precision parent or with nobody having shown otherwise",
    "emulates": "the weights stay packed in memory and are expanded again for every product",
    "dequantizes": "the weights are expanded on loading; nothing quantized runs",
    "fails": "it does not load, or not where the target wants it",
}


def _kernels() -> str:
    parts = [
        "# Kernels",
        "<!-- Written by tools/write_reference.py from policies/kernels; a test compares it with the tables. -->",
        "`policies/kernels/*.yaml` holds one table for each runtime: of the rows that match, the first counts, and of a model's "
        "matrices those that are served worst. `quantgov schema kernel-table` prints every key. A row is `probed` where a test "
        "compares it with what the runtime chose on the machine that runs the tests, and `table` where it rests on its source "
        "alone. What hangs on something that a target leaves open (instruction sets, GPU, version) is not measured until "
        "the target says it. To plan by these tables: [how to choose a format](../how-to/choose-a-format.md).",
        "\n".join(["| support | means |", "| --- | --- |", *(f"| {name} | {_SUPPORT[name]} |" for name in SEVERITY)]),
    ]
    for runtime, table in load_tables().items():
        probed = sum(row.seen == "probed" for row in table.rows)
        parts += [f"## {runtime}", f"Read in {table.version}; {len(table.rows)} rows, {probed} of them probed."]
        parts += [f"- {note}" for note in table.notes]
        head = ["| row | weights | hardware | support | kernel | seen | source, read on |", "| --- " * 7 + "|"]
        parts.append("\n".join([*head, *(_kernel_row(row) for row in table.rows)]))
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _kernel_row(row: Row) -> str:
    flags = {True: "", False: "not "}
    weights = [
        " or ".join(row.formats),
        f"types {' '.join(row.types)}" if row.types else "",
        f"methods {' '.join(row.methods)}" if row.methods else "",
        f"{_numbers(row.bits)} bit" if row.bits else "",
        f"groups {_numbers(row.group_sizes)}" if row.group_sizes else "",
        f"by {' or '.join(row.granularities)}" if row.granularities else "",
        f"{flags[row.symmetric]}symmetric" if row.symmetric is not None else "",
        f"{flags[row.desc_act]}act-order" if row.desc_act is not None else "",
        f"activations {_numbers(row.activation_bits)} bit" if row.activation_bits else "",
        f"activations in {' or '.join(row.dtypes)}" if row.dtypes else "",
        f"in % {row.in_multiple}" if row.in_multiple else "",
        f"out % {row.out_multiple}" if row.out_multiple else "",
    ]
    hardware = [
        " or ".join(row.devices),
        " or ".join(row.architectures),
        f"capability {row.compute_capability}" if row.compute_capability else "",
        " and ".join(row.cpu_flags),
        f"version {row.versions}" if row.versions else "",
        f"with {', '.join(row.needs)}" if row.needs else "",
    ]
    said = ". ".join(filter(None, (row.source, row.notes)))
    cells = [
        f"`{row.id}`", ", ".join(filter(None, weights)), ", ".join(filter(None, hardware)) or "any", row.support,
        row.kernel or "", row.seen, f"{said} ({row.read_on})",
    ]  # fmt: skip
    return "| " + " | ".join(one.replace("|", "\\|").replace("*", "\\*") for one in cells) + " |"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{one:g}" for one in values)


if __name__ == "__main__":
    for file, content in pages().items():
        (REFERENCE / file).write_text(content, encoding="utf-8")
        print(f"{file}: {len(content.splitlines())} lines")
