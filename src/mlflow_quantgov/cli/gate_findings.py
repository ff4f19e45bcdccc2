"""What `quantgov doctor` finds about a gate: the store, its policy and keys, and what stands around it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mlflow_quantgov.cli.findings import Finding
from mlflow_quantgov.errors import QuantgovError

if TYPE_CHECKING:
    from mlflow_quantgov.gate.clients.interface import Gate

_WORKERS_ASKED = 8
_SKEW_SECONDS = 120.0
_TRUST = "quantgov keys trust NAME.pub.pem --name NAME --role {}; quantgov server --keys keys.yaml ..."


def gate_findings() -> list[Finding]:
    """Examine the gate in front of the registry that MLflow is set to."""
    import mlflow

    from mlflow_quantgov.gate.clients.finding import find_gate

    uri = mlflow.get_registry_uri()
    gate = find_gate()
    if gate is None:
        fix = (
            "quantgov server --backend-store-uri sqlite:///mlflow.db & export MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
        )
        return [Finding("gate", "fail", f"{uri} is not gated: any version can be promoted without evidence", fix)]
    status = gate.status()
    return [
        Finding("gate", "pass", f"{uri} is gated by mlflow-quantgov {status['version']}"),
        _policy(status["policy"]),
        _keys(status.get("keys")),
        _pointers(gate.pointers()),
        _ledger(gate.verify()),
        _triggers(gate.triggers()),
        *_around(gate, uri),
    ]


def _policy(policy: dict[str, Any]) -> Finding:
    rules = policy.get("observing", [])
    observing = policy["mode"] == "observe" or bool(rules)
    said = f"{policy['name']} {policy['digest'][:19]}, mode {policy['mode']}"
    said += f"; only observed, and never refused: {', '.join(rules)}" if rules else ""
    fix = "set `mode: enforce` in the policy and restart the server" if observing else ""
    return Finding("policy", "fail" if observing else "pass", said, fix)


def _keys(found: dict[str, Any] | None) -> Finding:
    """Whose signatures are believed, and whether the policy asks for more than anybody can give."""
    if not found:
        return Finding("keys", "inconclusive", "this gate is of a version that knows no signatures")
    said = f"{found['count']} trusted {found['digest'][:19]}" if found["count"] else "nobody's signature counts"
    for role, count in found.get("too_few", {}).items():
        return Finding(
            "keys", "fail", f"{said}; the policy wants {count} people to approve, and fewer are {role}",
            _TRUST.format(role),
        )  # fmt: skip
    if not found["lacking"]:
        return Finding("keys", "pass", said)
    role = found["lacking"][0]
    return Finding(
        "keys", "fail", f"{said}; the policy wants signatures by a {role}, and no key has that role",
        _TRUST.format(role),
    )  # fmt: skip


def _pointers(found: list[dict[str, Any]]) -> Finding:
    """Whether everything at protected places is there by a decision, and how long what is not may stay."""
    said = f"{len(found)} at protected aliases and stages"
    left = [one["days_left"] for one in found if one["days_left"] is not None and one["days_left"] >= 1]
    for how in ("inherited", "observed", "renamed"):
        count = sum(one["how"] == how for one in found)
        said += f", {count} {how}" if count else ""
    said += f"; {min(left)} days of grace left" if left else ""
    lost = next((one for one in found if not one["believed"]), None)
    if lost is not None:
        where = f"{lost['model']} version {lost['version']} at {lost['destination']}"
        return Finding("pointers", "fail", f"{said}; {where} is not loaded: {lost['words']}", "quantgov recheck")
    unjudged = any(one["how"] != "approved" for one in found)
    return Finding("pointers", "inconclusive" if unjudged else "pass", said, "quantgov recheck" if unjudged else "")


def _ledger(chain: dict[str, Any]) -> Finding:
    said = f"{chain['rows']} rows, "
    if chain["first_bad"] is not None:
        said += f"row {chain['first_bad']} was changed"
    elif not chain["ok"]:
        said += "chain unbroken, but a protected pointer stands where no row has put it"
    else:
        said += "chain unbroken"
    return Finding("ledger", "pass" if chain["ok"] else "fail", said, "" if chain["ok"] else "quantgov audit verify")


def _triggers(found: dict[str, Any]) -> Finding:
    said = f"{found['present']} of {found['expected']} triggers and functions are in the database"
    if found["changed"]:
        said += f"; changed: {', '.join(found['changed'][:3])}"
    if found["ok"]:
        return Finding("triggers", "pass", said)
    said += "; an ungated server or a script on the same database could move a protected alias"
    return Finding("triggers", "fail", said, "quantgov db triggers --backend-store-uri URI")


def _around(gate: Gate, uri: str) -> Iterator[Finding]:
    asked = datetime.now(UTC)
    try:
        found = gate.deployment()
    except QuantgovError as error:
        yield Finding("deployment", "inconclusive", f"the server does not say: {error.what}", error.fix)
        return
    waited = datetime.now(UTC) - asked
    from mlflow_quantgov.gate.doors.supported import SUPPORTED

    in_process = not uri.startswith("http")
    supported = SUPPORTED.contains(found["mlflow"])
    yield Finding(
        "store", "pass", f"quantgov: on {found['database']}, each decision in one transaction with its change"
    )
    if "stale" in found:
        yield _in_force(found["stale"])
    if not in_process:
        yield Finding(
            "server's mlflow", "pass" if supported else "fail", f"{found['mlflow']}; supported are {SUPPORTED}",
            "" if supported else "on the server: pip install 'mlflow>=3.17,<4'",
        )  # fmt: skip
        yield _write_once(bool(found["write_once"]))
        yield _login(found["login"])
        yield _clock(datetime.fromisoformat(found["time"]), asked + waited / 2)
        yield _workers(uri)
    yield _ledger_time(gate, datetime.fromisoformat(found["time"]))
    reach = found["reach"]
    yield Finding("database", reach["outcome"], reach["words"], reach["fix"])


def _in_force(stale: str | None) -> Finding:
    if stale is None:
        return Finding("in force", "pass", "the policy and keys that it has read are in force on this database")
    return Finding("in force", "fail", f"it decides nothing: {stale}", "restart it with the files that are in force")


def _write_once(is_guarded: bool) -> Finding:
    if is_guarded:
        return Finding("write-once", "pass", "the server changes and deletes no files of registered versions")
    said = "files of registered versions can be overwritten through this server"
    return Finding("write-once", "fail", said, "start it with `quantgov server`")


def _login(source: str | None) -> Finding:
    if source is not None:
        return Finding("login", "pass", f"who asks is known by {source}")
    said = "nobody checks who asks: names in the ledger are what requests claim"
    return Finding("login", "inconclusive", said, "quantgov server --basic-auth ...")


def _clock(server: datetime, here: datetime) -> Finding:
    """By the server's clock drills, approvals and keys expire."""
    apart = abs((server - here).total_seconds())
    if apart <= _SKEW_SECONDS:
        return Finding("clock", "pass", "the server's clock and this machine's agree within two minutes")
    said = f"the server's clock and this machine's lie {apart:,.0f} s apart; by it drills, approvals and keys expire"
    return Finding("clock", "fail", said, "on the server: timedatectl set-ntp true")


def _ledger_time(gate: Gate, server: datetime) -> Finding:
    """A row that is later than now: a clock was set back since, or wrong then."""
    rows = gate.ledger(None, 1)
    if rows and (datetime.fromisoformat(rows[0]["created_at"]) - server).total_seconds() > _SKEW_SECONDS:
        said = (
            f"the newest row of the ledger is of {rows[0]['created_at'][:19]}, which the server's clock has not reached"
        )
        return Finding("time of the ledger", "fail", said, "on the server: timedatectl; quantgov audit log --limit 5")
    return Finding("time of the ledger", "pass", "no row is later than the server's clock")


def _workers(uri: str) -> Finding:
    """Every worker should hold the same policy and keys: each reads its files when it starts."""
    from mlflow_quantgov.gate.clients.http_gate import HttpGate

    answers = [HttpGate(uri).status() for _ in range(_WORKERS_ASKED)]
    held = {(one["policy"]["digest"], one["keys"]["digest"], one["version"]) for one in answers}
    if len(held) == 1:
        return Finding("workers", "pass", f"{_WORKERS_ASKED} connections met the same policy, keys and version")
    said = f"{_WORKERS_ASKED} connections met {len(held)} different policies, keys or versions"
    return Finding("workers", "fail", said, "restart every worker of the server")
