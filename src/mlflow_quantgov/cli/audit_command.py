"""`quantgov audit`: the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from mlflow_quantgov.cli.output import coloured, json_option, plain, print_fix, print_json, print_note, stdout
from mlflow_quantgov.errors import TamperingError, UsageError

_FILE = click.Path(path_type=Path)


@click.group()
def audit() -> None:
    """Show and verify the append-only record of decisions."""


@audit.command()
@click.option("--model", help="Only rows of this registered model.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@json_option
def log(model: str | None, limit: int, as_json: bool) -> None:
    """Print the newest rows of the ledger."""
    from rich.table import Table

    from mlflow_quantgov.gate.clients.finding import require_gate

    rows = require_gate("show its ledger").ledger(model, limit)
    if as_json:
        print_json({"rows": rows})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("row", "time (UTC)", "what", "model", "version", "destination", "decision", "who"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            str(row.get("seq")),
            str(row.get("created_at", ""))[:19].replace("T", " "),
            ": ".join(str(part) for part in (row.get("kind"), row.get("about")) if part),
            plain(_model(row)),
            plain(row.get("version") or ""),
            plain(row.get("destination") or ""),
            _decision(row),
            plain(f"{row.get('actor') or 'unknown'} ({row.get('actor_source') or 'not known how'})"),
        )
    stdout.print(table)


def _model(row: dict[str, Any]) -> str:
    """The model, and where it lies unless that is MLflow's default workspace."""
    from mlflow_quantgov.gate.database.workspaces import DEFAULT

    model, workspace = row.get("model") or "", row.get("workspace") or DEFAULT
    return model if workspace == DEFAULT or not model else f"{model} (workspace {workspace})"


def _decision(row: dict[str, Any]) -> Text:
    """What was decided, with what was waived for it in red."""
    waived = row.get("waived") or ()
    said = coloured(f" ({', '.join(waived)} waived)" if waived else "", as_="waived")
    return Text.assemble(coloured(str(row.get("decision") or "")), said)


@audit.command()
@click.option("--checkpoint", "checkpoints", multiple=True, type=_FILE, help="Signed checkpoint; repeat for several.")
@click.option(
    "--public-key", "public_keys", multiple=True, type=_FILE, help="Believe this auditor's key, beside the gate's."
)
@click.option("--export", "exported", type=_FILE, help="Verify an exported file instead; needs no server.")
@json_option
def verify(checkpoints: tuple[Path, ...], public_keys: tuple[Path, ...], exported: Path | None, as_json: bool) -> int:
    """Recompute the hash chain, and compare it with the registry and with checkpoints; exit 4 where they disagree.

    Of an exported file only the chain and the checkpoints are compared: what stands in the registry is not in it.
    """
    from mlflow_quantgov.evidence.signing import NO_KEYS, parse_trusted_keys, read_public_key
    from mlflow_quantgov.gate.clients.finding import require_gate
    from mlflow_quantgov.gate.ledger.checkpoints import compare, read

    believed = [read_public_key(path) for path in public_keys]
    if exported is not None:
        points = [(path.name, read(path, NO_KEYS, believed)) for path in checkpoints]
        found = _exported(exported, [point.seq for _, point in points])
    else:
        gate = require_gate("verify its ledger")
        keys = parse_trusted_keys(gate.keys()["text"], source="the gate's keys") if checkpoints else NO_KEYS
        points = [(path.name, read(path, keys, believed)) for path in checkpoints]
        found = gate.verify([point.seq for _, point in points])
    compared = compare(found, points)
    bad = [one.first_bad for one in compared if one.first_bad is not None]
    first_bad = min([*bad, *([] if found["first_bad"] is None else [found["first_bad"]])], default=None)
    ok = found["ok"] and not bad
    if as_json:
        print_json(
            {
                "ok": ok,
                "rows": found["rows"],
                "first_bad": first_bad,
                "pointers": found["pointers"],
                "checkpoints": [asdict(one) for one in compared],
            }
        )
        return 0 if ok else 4
    if found["first_bad"] is None:
        stdout.print(coloured("pass"), f" {found['rows']} rows, chain unbroken")
    else:
        stdout.print(coloured("fail"), f" the first bad row is {found['first_bad']} of {found['rows']}")
    for one in compared:
        said = f"the checkpoint {one.file} " + (f"agrees: row {one.seq}" if one.ok else f"disagrees: {one.problem}")
        stdout.print(coloured("pass" if one.ok else "fail"), f" {said}", soft_wrap=True)
    for pointer in found["pointers"]:
        place = f"{pointer['model']} {pointer['destination']} at version {pointer['version']}"
        stdout.print(coloured("fail"), f" {place}: {pointer['problem']}", soft_wrap=True)
    if found["pointers"]:
        print_fix("quantgov db triggers --status; then take the pointer away, and ask for it again: quantgov promote")
    return 0 if ok else 4


def _exported(path: Path, wanted: list[int]) -> dict[str, Any]:
    from mlflow_quantgov.gate.ledger.chain import walk
    from mlflow_quantgov.gate.ledger.export import read

    return asdict(walk(read(path), wanted))


@audit.command()
@click.option("--key", required=True, type=_FILE, help="The auditor's private key (quantgov keys new).")
@click.option("-o", "--output", required=True, type=_FILE, help="File to write; keep it where no database admin can.")
@json_option
def checkpoint(key: Path, output: Path, as_json: bool) -> int:
    """Sign how far the ledger has come, after verifying it; kept elsewhere, it shows truncation and rewriting."""
    from mlflow_quantgov.evidence.signing import load_signer
    from mlflow_quantgov.gate.clients.finding import require_gate
    from mlflow_quantgov.gate.ledger.checkpoints import take

    signer = load_signer(key)
    found = require_gate("vouch for its ledger").verify()
    if not found["ok"]:
        raise TamperingError(
            "The ledger does not verify, so no checkpoint was made.",
            why="It would vouch for what somebody has changed.",
            fix="quantgov audit verify",
        )
    output.write_bytes(take(found, signer).to_bytes())
    result = {"file": str(output), "seq": found["rows"], "row_hash": found["last_hash"], "key": signer.public.id}
    if as_json:
        print_json(result)
    else:
        stdout.print(f"{output}: row {found['rows']}, {found['last_hash'][:12]}", soft_wrap=True)
    return 0


@audit.command()
@click.argument("file", type=_FILE)
@json_option
def export(file: Path, as_json: bool) -> int:
    """Write every row of the ledger, whole, into FILE as JSON lines."""
    from mlflow_quantgov.gate.clients.finding import require_gate
    from mlflow_quantgov.gate.ledger.export import write

    found = write(file, require_gate("export its ledger").export())
    if as_json:
        print_json({"file": str(file), "ok": found.ok, "rows": found.rows, "first_bad": found.first_bad})
    else:
        chain = "chain unbroken" if found.ok else f"the first bad row is {found.first_bad}"
        stdout.print(f"{file}: {found.rows} rows,", coloured(chain, as_="pass" if found.ok else "fail"), soft_wrap=True)
    return 0 if found.ok else 4


@audit.command()
@click.argument("decision_id", required=False)
@click.option("--record", type=_FILE, help="Use what was saved; needs no server.")
@click.option("-o", "--output", type=_FILE, help="Save everything that the decision rests on.")
@json_option
def replay(decision_id: str | None, record: Path | None, output: Path | None, as_json: bool) -> int:
    """Make a recorded decision again from what was kept; exit 4 where it comes out otherwise.

    Policy, statements and facts are taken by the digests that the ledger holds, and decided here, by this version.
    """
    from mlflow_quantgov.gate.clients.finding import require_gate
    from mlflow_quantgov.gate.ledger.replay import read_record, replay
    from mlflow_quantgov.version import __version__

    if (decision_id is None) == (record is None):
        raise UsageError(
            "Name either a decision or a saved record.", why="One is made again.", fix="quantgov audit replay ID"
        )
    kept = read_record(record) if record is not None else require_gate("give its records").record(str(decision_id))
    if output is not None:
        output.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    found = replay(kept)
    if as_json:
        print_json(asdict(found))
    elif found.same:
        stdout.print(coloured("pass"), f" {found.recorded}, as it was recorded (engine {found.engine})")
    else:
        differs = f"recorded {found.recorded}, comes out {found.replayed}; {', '.join(found.differs)} differ"
        stdout.print(coloured("fail"), f" {differs}", soft_wrap=True)
    if found.same:
        return 0
    if found.engine != __version__:
        print_note(f"it was made by version {found.engine}, this is {__version__}", error=True)
        print_fix(f"pip install mlflow-quantgov=={found.engine}", error=True)
        return 2
    return 4
