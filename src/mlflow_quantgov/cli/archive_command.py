"""`quantgov archive`, `quantgov drill` and `quantgov restore`."""

from __future__ import annotations

from pathlib import Path

import click

from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, print_json, print_note, stdout
from mlflow_quantgov.errors import TamperingError
from mlflow_quantgov.evidence.predicates import Drill

store_option = click.option("--store", envvar="QUANTGOV_ARCHIVE", help="Folder or URL of the archive.")


@click.command()
@click.argument("uri")
@store_option
@key_option
@json_option
def archive(uri: str, store: str | None, key: Path | None, as_json: bool) -> None:
    """Archive the full-precision parent of a version by digest."""
    from mlflow_quantgov import api

    measure("archive", lambda _: api.archive(uri, store, key=key), as_json=as_json)


@click.command()
@click.argument("uri")
@store_option
@click.option("--prompt", default="The capital of France is", show_default=True, help="What it has to answer.")
@key_option
@json_option
def drill(uri: str, store: str | None, prompt: str, key: Path | None, as_json: bool) -> int:
    """Restore the archived parent, verify every digest, load it and have it answer."""
    from mlflow_quantgov import api

    statement = measure("drill", lambda _: api.drill(uri, store, prompt=prompt, key=key), as_json=as_json)
    content = statement.content()
    assert isinstance(content, Drill)
    for problem in content.problems:
        print_note(problem, word="problem", error=True)
    if content.problems:
        print_note(f"quantgov archive {uri}, then quantgov drill {uri}", word="Fix:", error=True)
        return TamperingError.exit_code
    return 0 if content.stated()["outcome"] == "pass" else 1


@click.command()
@click.argument("uri")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
@json_option
def restore(uri: str, folder: Path, store: str | None, as_json: bool) -> None:
    """Bring the archived parent of a version back into a new FOLDER."""
    from mlflow_quantgov import api

    manifest = api.restore(uri, folder, store)
    if as_json:
        print_json({"folder": str(folder), "digest": manifest.digest, "files": len(manifest.files)})
    else:
        stdout.print(f"{len(manifest.files)} files restored into {folder}, every digest verified")
