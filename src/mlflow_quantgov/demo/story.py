"""The main job, told step by step on real files, a real server and real measurements."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mlflow_quantgov.demo.cast import Cast
from mlflow_quantgov.demo.refusals import three_ways
from mlflow_quantgov.demo.screen import Screen
from mlflow_quantgov.demo.server import gated_server
from mlflow_quantgov.errors import QuantgovError

CHAMPION = "@champion"


class DemoError(QuantgovError):
    """The story did not end as it should; what it showed instead is said."""


def tell(cast: Cast, folder: Path, screen: Screen, *, keep: bool) -> None:
    """Tell the whole story.

    Args:
        cast: Who plays.
        folder: Folder of the demo's own: database, artifacts, archive, reports.
        screen: Where it is told.
        keep: Leave the server up until Enter is pressed.

    Raises:
        DemoError: A step did not come out as the story promises.
    """
    with _environment(folder):
        target, policy = _declare(cast, folder, screen)
        screen.step("A gated MLflow server starts")
        with gated_server(folder, policy) as url:
            _point_mlflow_to(url)
            screen.say(f"MLflow with the gate: {url}   pages of the gate: {url}/quantgov/")
            parent = _parent(cast, target, screen)
            wrong = _wrong_format(cast, folder, target, parent, screen)
            low = _refused(cast, target, parent, url, screen)
            high = _promoted(cast, target, parent, screen)
            _answers(cast, screen, "The champion answers")
            _rolled_back(cast, screen)
            _reports(cast, [parent, wrong, low, high], folder, screen)
            screen.say(f"The server: {url}/quantgov/   everything lies in {folder}")
            if keep:
                screen.wait(f"The server stays up at {url}. Press Enter to stop it.")


def _declare(cast: Cast, folder: Path, screen: Screen) -> tuple[Path, Path]:
    """This machine as the target, and the demo's policy with its yardsticks pinned."""
    from mlflow_quantgov.evidence.measure.tasks import folder_digest
    from mlflow_quantgov.evidence.targets import capture, find_target
    from mlflow_quantgov.lineage import facts_of
    from mlflow_quantgov.policy.schema import ParentPin

    screen.step("The deployment and the policy are declared first")
    base = find_target("cpu-llamacpp").model_copy(update={"must_improve": cast.must_improve})
    captured = capture("demo-cpu", base, folder / "demo-cpu.yaml")
    policy = yaml.safe_load(cast.policy.read_text(encoding="utf-8"))
    policy["rules"][0]["yardsticks"] = {
        "parents": [ParentPin.of(facts_of(cast.parent)).model_dump(mode="json")],
        "tasks": [folder_digest(cast.tasks)],
        "targets": [captured.digest],
    }
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(policy, sort_keys=False), encoding="utf-8")
    margins = {one["margin"] for one in policy["gates"]["full"]["capabilities"].values()}
    gain = "speed and memory" if cast.must_improve == "both" else cast.must_improve
    screen.say(f"Target: this machine with llama.cpp; formats {', '.join(captured.formats)}; it must gain {gain}.")
    screen.say(
        f"Policy: the demo's own ({cast.policy.name}), with wider margins (up to {max(margins):.0%}) and fewer items than "
        "the default. It pins the parent (weights and behaviour), the tasks and the target by digest."
    )
    if cast.model == "smollm2-chat":
        screen.say("The parent's weights lie on a 4-bit grid; without the pin it would be refused.")
    return folder / "demo-cpu.yaml", path


def _parent(cast: Cast, target: Path, screen: Screen) -> str:
    import mlflow_quantgov as qg

    screen.step("The full-precision parent is logged, registered and archived; the restore drill runs")
    with screen.quiet():
        info = qg.log_parent(cast.parent, name="parent", registered_model_name=cast.model, target=target)
    uri = f"models:/{cast.model}/{info.registered_model_version}"
    stored = qg.archive(uri).content().stated()
    size, taken = (stored[key] / 1e6 for key in ("size_bytes", "stored_bytes"))
    screen.say(f"{uri}: {stored['files']} files, {size:.1f} MB archived by digest, in {taken:.1f} MB.")
    drill = qg.drill(uri, prompt=cast.prompt).content().stated()
    _must(drill["outcome"] == "pass", "the restore drill failed")
    screen.say(
        f"Drill: {drill['verified_files']} files restored and verified, it loaded and answered as the original does.",
        good=True,
    )
    return uri


def _wrong_format(cast: Cast, folder: Path, target: Path, parent: str, screen: Screen) -> str:
    import mlflow_quantgov as qg
    from mlflow_quantgov.demo.gptq_layout import pack_gptq

    screen.step("A GPTQ file is offered to the same CPU target")
    packed = folder / "models" / "gptq-w4g32"
    if not packed.is_dir():
        pack_gptq(cast.parent, packed)
    with screen.quiet():
        info = qg.log_model(packed, name="gptq", parent=parent, target=target, registered_model_name=cast.model)
    uri = f"models:/{cast.model}/{info.registered_model_version}"
    decision = qg.promote(uri, CHAMPION)
    fit = next(check for check in decision.checks if check.check == "format-fit")
    _must(not decision.allowed and fit.outcome == "fail", "the GPTQ file was not refused for its format")
    screen.say(f"Refused at once, without a measurement: {fit.reason}", good=False)
    return uri


def _refused(cast: Cast, target: Path, parent: str, url: str, screen: Screen) -> str:
    import mlflow_quantgov as qg

    screen.step(f"{cast.low_label} is logged, measured, and refused: {cast.lost} has collapsed")
    with screen.quiet():
        info = qg.log_model(cast.low, name="low", parent=parent, target=target, registered_model_name=cast.model)
    uri = f"models:/{cast.model}/{info.registered_model_version}"
    _measure(cast, uri, screen)
    decision = three_ways(uri, CHAMPION, url, screen)
    task = next(check for check in decision.checks if check.check == "task-eval")
    _must(not decision.allowed and task.outcome == "fail", f"{cast.low_label} was not refused for a lost capability")
    screen.decision(decision)
    return uri


def _promoted(cast: Cast, target: Path, parent: str, screen: Screen) -> str:
    import mlflow_quantgov as qg

    screen.step(f"{cast.high_label} is logged, measured, and promoted by evidence")
    with screen.quiet():
        info = qg.log_model(cast.high, name="high", parent=parent, target=target, registered_model_name=cast.model)
    uri = f"models:/{cast.model}/{info.registered_model_version}"
    _measure(cast, uri, screen, limit=cast.first_items)
    decision = qg.check(uri, CHAMPION)
    task = next(check for check in decision.checks if check.check == "task-eval")
    screen.say(
        f"First look, {cast.first_items} items per task: {task.outcome}. {task.reason}", good=task.outcome == "pass"
    )
    if task.outcome == "inconclusive":
        screen.say("Too few items to tell is not a pass. All items are run (the parent's answers are kept).")
        with screen.progress("evaluating") as progress:
            qg.evaluate(uri, cast.tasks, progress=progress)
    decision = qg.promote(uri, CHAMPION)
    screen.decision(decision)
    _must(decision.allowed, f"{cast.high_label} was not allowed: {decision.one_line()}")
    return uri


def _measure(cast: Cast, uri: str, screen: Screen, limit: int | None = None) -> None:
    """Everything that the policy asks for; cheap measurements first."""
    import mlflow_quantgov as qg

    kernels = qg.confirm_kernels(uri).content().stated()
    screen.say(f"kernels: {kernels['support']} ({kernels['kernel']})")
    with screen.progress("benchmark") as progress:
        summary = qg.benchmark(uri, rounds=9, progress=progress).content().stated()
    decode = summary["loads"][0]["decode"]
    screen.say(
        f"benchmark: {decode['quantized']:.0f} tokens/s against the parent's {decode['parent']:.0f}, "
        f"{summary['memory_ratio']:.0%} of its memory"
    )
    with screen.progress("fidelity") as progress:
        found = qg.measure_fidelity(uri, cast.text, progress=progress).content().stated()
    screen.say(
        f"fidelity: perplexity {found['parent_perplexity']:.2f} -> {found['quantized_perplexity']:.2f}, "
        f"KL {found['kl_mean']:.3f}, same top token {found['same_top_rate']:.1%}"
    )
    with screen.progress("evaluating") as progress:
        tasks = qg.evaluate(uri, cast.tasks, limit=limit, progress=progress).content().stated()
    for name, one in tasks.items():
        screen.say(f"{name}: {one['parent_mean']:.1%} -> {one['quantized_mean']:.1%} on {one['items']} items")


def _answers(cast: Cast, screen: Screen, heading: str) -> None:
    """Load the alias both ways and ask the same question."""
    import mlflow

    import mlflow_quantgov as qg

    screen.step(heading)
    uri = f"models:/{cast.model}{CHAMPION}"
    through_mlflow = mlflow.pyfunc.load_model(uri).predict([cast.prompt], params={"max_tokens": 32})[0]
    own = qg.load_model(uri)
    answer = own.predict([cast.prompt], params={"max_tokens": 32})[0]
    own.close()
    _must(bool(answer.strip()) and answer == through_mlflow, "the loaded model did not answer")
    screen.say("Through mlflow.pyfunc and through mlflow_quantgov, the same answer:")
    screen.say(f"{cast.prompt}  ->  {' '.join(answer.split())[:160]}", good=True)


def _rolled_back(cast: Cast, screen: Screen) -> None:
    import mlflow_quantgov as qg

    screen.step("One operation goes back to the full-precision parent")
    done = qg.rollback(cast.model, alias="champion")
    screen.say(
        f"quantgov rollback {cast.model} --alias champion: version {done.before} -> version {done.after}", good=True
    )
    _answers(cast, screen, "The parent answers")


def _reports(cast: Cast, uris: list[str], folder: Path, screen: Screen) -> None:
    from mlflow_quantgov import api
    from mlflow_quantgov.gate.clients.finding import require_gate

    screen.step("Reports and ledger")
    for uri in uris:
        path = folder / f"report-{uri.rsplit('/', 1)[1]}.html"
        api.report(uri, path, CHAMPION)
        screen.say(f"report: {path}")
    gate = require_gate("show its ledger")
    screen.ledger(gate.ledger(cast.model, 100))
    chain = gate.verify()
    _must(bool(chain["ok"]), "the ledger's chain is broken")
    screen.say(f"ledger: {chain['rows']} rows, chain unbroken", good=True)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Caches, archive and MLflow's address are the demo's own, and go with it."""
    names = ("QUANTGOV_CACHE", "QUANTGOV_ARCHIVE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "QUANTGOV_POLICY")
    before = {name: os.environ.get(name) for name in names}
    os.environ["QUANTGOV_CACHE"] = str(folder / "cache")
    os.environ["QUANTGOV_ARCHIVE"] = str(folder / "archive")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _point_mlflow_to(url: str) -> None:
    import mlflow

    os.environ["MLFLOW_TRACKING_URI"] = url
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)


def _must(true: bool, otherwise: str) -> None:
    if not true:
        raise DemoError(
            f"The story broke: {otherwise}.",
            why="The demo shows what was measured, whatever it is.",
            fix="quantgov doctor",
        )


def elapsed(since: float) -> str:
    """Minutes and seconds since a moment of `time.monotonic`."""
    seconds = int(time.monotonic() - since)
    return f"{seconds // 60} min {seconds % 60} s"
