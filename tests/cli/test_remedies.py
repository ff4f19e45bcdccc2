"""Every `quantgov ...` command that a message or a document names exists, with the options that stand in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlflow_quantgov.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent.parent
NAMED = re.compile(r"quantgov ((?:" + "|".join(sorted(COMMANDS, key=len, reverse=True)) + r")\b[^\n`;)\"]*)")


def messages() -> Iterator[tuple[str, str]]:
    """File with line, and text, of every string of the sources; what is filled in stands as X."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield where, "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield where, node.value


def documents() -> Iterator[tuple[str, str]]:
    """Name and text of every document."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        yield path.name, path.read_text(encoding="utf-8")


def options_of(words: list[str]) -> set[str] | None:
    """Options of the command that these words begin with; None where it passes on what it does not know."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words.pop(0))
        if found is None:
            break
        command = found
    if command.context_settings.get("ignore_unknown_options"):
        return None
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("source", [messages, documents])
def test_named_commands_have_the_options_that_stand_beside_them(source: object) -> None:
    checked, wrong = 0, []
    for where, text in source():  # type: ignore[operator]
        for named in NAMED.findall(text):
            words = named.split("#")[0].split()
            known = options_of(list(words))
            given = {word.split("=")[0].rstrip(",.:]") for word in words if word.startswith("--")}
            checked += 1
            if known is not None and not given <= known:
                wrong.append(f"{where}: quantgov {named.strip()}: {', '.join(sorted(given - known))}")
    assert not wrong, "\n".join(wrong)
    assert checked > 5


def test_commands_in_documents_exist() -> None:
    """Anything that stands after `quantgov` in a shell block is a command."""
    wrong = []
    for where, text in documents():
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL):
            wrong += [
                f"{where}: {name}" for name in re.findall(r"^quantgov (\S+)", block, re.M) if name not in COMMANDS
            ]
    assert wrong == []
