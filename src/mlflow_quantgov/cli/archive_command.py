"""`quantgov archive`, `quantgov drill` and `quantgov restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_quantgov.artifact.describe import size_words
from mlflow_quantgov.cli.measuring import key_option, measure
from mlflow_quantgov.cli.output import json_option, print_fix, print_json, print_note, progress_bar, stdout
from mlflow_quantgov.errors import TamperingError
from mlflow_quantgov.evidence.predicates import Drill

store_option = click.option(
    "--store", envvar="QUANTGOV_ARCHIVE", help="Folder or URL of the archive (s3://bucket/archive, ...)."
)


@click.command()
@click.argument("uri")
@store_option
@key_option
@json_option
def archive(uri: str, store: str | None, key: Path | None, as_json: bool) -> None:
    """Archive the full-precision parent of a version by digest, compressed without loss; what lies there already costs nothing."""
    from mlflow_quantgov import api

    measure(
        "archive",
        lambda progress: api.archive(uri, store, progress=progress, key=key),
        as_json=as_json,
        show=_show_archived,
    )


def _show_archived(numbers: dict[str, Any]) -> None:
    """What it holds, what it cost now, and what was saved."""
    size = numbers["size_bytes"]
    saved = {
        "already there": numbers["saved_by_deduplication"],
        "saved by compression": numbers["saved_by_compression"],
        "stored now": numbers["stored_bytes"],
    }
    rows = {"archived": f"{numbers['files']} files, {size_words(size)} in {numbers['pieces']:,} pieces"}
    rows |= {name: f"{size_words(count)} ({count / max(1, size):.1%})" for name, count in saved.items()}
    if numbers["repaired_pieces"]:
        count = numbers["repaired_pieces"]
        rows["repaired"] = f"{count:,} damaged piece{'s were' if count != 1 else ' was'} replaced"
    for name, words in rows.items():
        stdout.print(f"{name}  {words}")


@click.command()
@click.argument("uri")
@store_option
@click.option("--prompt", default="The capital of France is", show_default=True, help="What it has to answer.")
@key_option
@json_option
def drill(uri: str, store: str | None, prompt: str, key: Path | None, as_json: bool) -> int:
    """Restore the archived parent, verify every digest, load it and have it answer as it did before."""
    from mlflow_quantgov import api

    statement = measure(
        "drill", lambda progress: api.drill(uri, store, prompt=prompt, progress=progress, key=key), as_json=as_json
    )
    content = statement.content()
    assert isinstance(content, Drill)
    for problem in content.problems:
        print_note(problem, word="problem", error=True)
    if content.problems:
        where = f"{uri} --store {content.store}"
        if content.verified_files == 0:
            print_fix(f"quantgov archive {where} && quantgov drill {where}", error=True)
            return TamperingError.exit_code
        # Archiving again would not help: every byte came back.
        print_fix(f"quantgov doctor; quantgov drill {where} --prompt 'another question'", error=True)
    return 0 if content.stated()["outcome"] == "pass" else 1


@click.command()
@click.argument("uri")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
@json_option
def restore(uri: str, folder: Path, store: str | None, as_json: bool) -> None:
    """Bring the archived parent of a version back into a new FOLDER."""
    from mlflow_quantgov import api

    with progress_bar("restore", quiet=as_json) as progress:
        manifest = api.restore(uri, folder, store, progress=progress)
    if as_json:
        print_json({"folder": str(folder), "digest": manifest.digest, "files": len(manifest.files)})
    else:
        stdout.print(f"{len(manifest.files)} files restored into {folder}, every digest verified")
