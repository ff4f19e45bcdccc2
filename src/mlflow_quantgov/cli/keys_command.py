"""`quantgov keys`: make keys, and keep the file that says whose are believed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlflow_quantgov.cli.dates import end, start
from mlflow_quantgov.cli.output import coloured, json_option, pairs_table, print_json, print_note, stdout
from mlflow_quantgov.errors import UsageError, short

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mlflow_quantgov.evidence.signing import TrustedKey, TrustedKeys

Model = TypeVar("Model", bound="BaseModel")
_FILE = click.Path(path_type=Path)
_ROLES = click.Choice(["measurer", "approver", "waiver", "auditor"])
_file_option = click.option(
    "--file", default="keys.yaml", show_default=True, type=_FILE, help="The server's file of trusted keys."
)
_RESTART = "quantgov server reads the file at start: restart it"


@click.group()
def keys() -> None:
    """Keys that sign evidence, and the file of those that a server believes."""


@keys.command()
@click.argument("name")
@click.option("--out", default=".", show_default=True, type=_FILE, help="Folder for the two files.")
@json_option
def new(name: str, out: Path, as_json: bool) -> None:
    """Make a key: NAME.key.pem for its owner alone, NAME.pub.pem for whoever trusts it.

    Set QUANTGOV_KEY_PASSPHRASE to lock the private half.
    """
    from mlflow_quantgov.evidence.signing import make_key

    private, public, made = make_key(name, out)
    result = {"private_key": str(private), "public_key": str(public), "id": made.id}
    if as_json:
        print_json(result)
        return
    pairs_table("key", result)
    print_note(f"keep {private} to yourself; give {public} to whoever runs the server")


@keys.command()
@click.argument("public_key", type=_FILE)
@click.option("--name", required=True, help="Whose it is: the name under which MLflow knows that person.")
@click.option(
    "--role", "roles", required=True, multiple=True, type=_ROLES, help="What it may vouch for; repeat for several."
)
@click.option(
    "--from", "begin", metavar="DATE", type=start, help="Signatures received earlier do not count; default: now."
)
@click.option("--until", metavar="DATE", type=end, help="Signatures received later do not count; default: no end.")
@_file_option
@json_option
def trust(
    public_key: Path,
    name: str,
    roles: tuple[Any, ...],
    begin: datetime | None,
    until: datetime | None,
    file: Path,
    as_json: bool,
) -> None:
    """Trust a public key, in the server's file; the server reads it at start."""
    from mlflow_quantgov.evidence.signing import TrustedKey, read_public_key, write_trusted_keys

    public, known = read_public_key(public_key), _read(file, must_exist=False)
    before = known.find(public.id)
    if before is not None:
        raise UsageError(
            f"{public_key} is in {file} already: the key of {before.name}.",
            why="One key is one person's, and what it may do is decided once.",
            fix=f"quantgov keys list --file {file}   (change the file by hand, or trust a new key)",
        )
    now = datetime.now(UTC).replace(microsecond=0)
    given = {"id": public.id, "public_key": public.text, "name": name, "roles": roles}
    added = _checked(TrustedKey, {**given, "not_before": begin or now, "until": until})
    changed = known.model_copy(update={"keys": (*known.keys, added)})
    write_trusted_keys(file, _checked(type(known), changed.model_dump(by_alias=True)))
    if as_json:
        print_json(_described(added, now) | {"file": str(file)})
    else:
        stdout.print(f"{added.name} is trusted as {' and '.join(added.roles)}: {added.id}", soft_wrap=True)
        print_note(_RESTART)


@keys.command(name="list")
@_file_option
@json_option
def list_(file: Path, as_json: bool) -> None:
    """List the trusted keys, and whether each is valid now."""
    from rich.table import Table

    found, now = _read(file), datetime.now(UTC)
    rows = [_described(one, now) for one in found.keys]
    if as_json:
        print_json({"digest": found.digest, "keys": rows})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("id", "name", "roles", "from", "until", "now"):
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        said = f"{row['standing']}{': ' + row['reason'] if row['reason'] else ''}"
        table.add_row(row["id"][:19], row["name"], ", ".join(row["roles"]), row["not_before"][:10],
                      (row["until"] or "no end")[:10], coloured(said, as_=row["standing"]))  # fmt: skip
    stdout.print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--reason", required=True, help="Why, in words that an auditor will read.")
@_file_option
@json_option
def revoke(key_id: str, reason: str, file: Path, as_json: bool) -> None:
    """Revoke the key of an ID (or of its first digits): nothing that it signed counts any more, whenever it signed.

    A key that is merely retired gets an end instead (`until` in the file): what it signed before still counts.
    """
    from mlflow_quantgov.evidence.signing import write_trusted_keys

    known = _read(file)
    chosen, now = _one(known, key_id, file), datetime.now(UTC).replace(microsecond=0)
    if chosen.revoked_at is not None:
        raise UsageError(
            f"The key of {chosen.name} was revoked on {chosen.revoked_at.isoformat()[:10]}.",
            why="Nothing was changed.",
            fix=f"quantgov keys list --file {file}",
        )
    gone = _checked(type(chosen), {**chosen.model_dump(), "revoked_at": now, "reason": reason})
    changed = tuple(gone if one.id == gone.id else one for one in known.keys)
    write_trusted_keys(file, known.model_copy(update={"keys": changed}))
    if as_json:
        print_json(_described(gone, now) | {"file": str(file)})
    else:
        stdout.print(f"the key of {gone.name} is revoked: {gone.id}", soft_wrap=True)
        print_note(_RESTART)


def _read(file: Path, *, must_exist: bool = True) -> TrustedKeys:
    from mlflow_quantgov.evidence.signing import NO_KEYS, load_trusted_keys

    return load_trusted_keys(file) if must_exist or file.exists() else NO_KEYS


def _one(known: TrustedKeys, given: str, file: Path) -> TrustedKey:
    """The one key whose id begins with what was given, with or without `sha256:`."""
    digits = given.removeprefix("sha256:")
    found = [one for one in known.keys if digits and one.id.removeprefix("sha256:").startswith(digits)]
    if len(found) != 1:
        raise UsageError(
            f"{len(found) or 'No'} trusted keys begin with {short(given)}.",
            why="One key is revoked at a time.",
            fix=f"quantgov keys list --file {file}",
        )
    return found[0]


def _described(one: TrustedKey, now: datetime) -> dict[str, Any]:
    described: dict[str, Any] = one.model_dump(mode="json", exclude={"public_key"})
    return described | {"standing": one.standing(now, now)}


def _checked(model: type[Model], values: Any) -> Model:
    """What stands in the file, from what was given here.

    Raises:
        UsageError: It contradicts itself, or is no plain words.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise UsageError(
            f"{place or 'The key'}: {problem['msg']}.", why="Nothing was written.", fix="quantgov keys --help"
        ) from error
