"""What the documents claim, run: the tutorial as it stands, the README's Python, and the pages that the code writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlflow_quantgov.demo.server import free_port

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if language in languages]


def test_the_reference_is_what_the_code_says() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from write_reference import pages
    finally:
        sys.path.pop(0)
    for name, content in pages().items():
        assert (DOCS / "reference" / name).read_text(encoding="utf-8") == content, (
            f"run tools/write_reference.py: {name}"
        )


def test_links_between_documents_lead_somewhere() -> None:
    dead = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http") and not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert dead == []


def test_the_task_of_the_how_to_is_read_as_it_stands(tmp_path: Path) -> None:
    from mlflow_quantgov.evidence.measure.tasks import load_tasks

    text = (DOCS / "how-to" / "write-tasks.md").read_text(encoding="utf-8")
    (tmp_path / "refund.yaml").write_text(blocks(text, "yaml")[0][1])
    (tmp_path / "refund.jsonl").write_text(blocks(text, "json")[0][1])
    (task,) = load_tasks(tmp_path)
    assert (task.name, task.capability, task.group_by) == ("refund_letter", "instruction-following", "template")


def test_the_recipes_of_the_how_to_fit_their_quantizers(tmp_path: Path) -> None:
    from mlflow_quantgov.artifact.quantizers.recipe import read_recipe
    from mlflow_quantgov.artifact.quantizers.registry import find_quantizer, quantizer_names

    text = (DOCS / "how-to" / "record-a-recipe.md").read_text(encoding="utf-8")
    recipes = blocks(text, "yaml")
    assert len(recipes) == 2
    for _, content in recipes:
        (tmp_path / "recipe.yaml").write_text(content)
        recipe = read_recipe(tmp_path / "recipe.yaml")
        find_quantizer(recipe.quantizer).check(recipe.arguments, has_texts=recipe.calibration is not None)
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| .* \| (none|required) \|$", text, re.MULTILINE))
    assert rows == {name: "required" if find_quantizer(name).needs_texts else "none" for name in quantizer_names()}


def test_the_policies_of_the_how_tos_are_read_as_they_stand() -> None:
    from mlflow_quantgov.policy.loader import load_policy, parse_policy

    found = []
    for name in ("approve.md", "adopt.md"):
        for _, content in blocks((DOCS / "how-to" / name).read_text(encoding="utf-8"), "yaml"):
            text, part = load_policy().text, yaml.safe_load(content)
            whole = yaml.safe_load(text)
            (whole["gates"]["full"] if "approvals" in part else whole).update(part)
            found.append(parse_policy(yaml.safe_dump(whole, sort_keys=False), source=name))
    assert [one.gates["full"].approvals.count for one in found[:2] if one.gates["full"].approvals] == [2, 2]
    assert [one.mode for one in found[2:]] == ["observe", "enforce", "enforce"]
    assert str(found[4].inherited.grace_until if found[4].inherited else None) == "2027-01-31"


@pytest.mark.slow
def test_the_recipe_of_the_how_to_is_run_from_nothing(skills: Path, tmp_path: Path) -> None:
    """Its commands as they stand, in an empty folder that holds the parent and the recipe."""
    from mlflow_quantgov.artifact.quantizers.registry import find_quantizer

    text = (DOCS / "how-to" / "record-a-recipe.md").read_text(encoding="utf-8")
    recipe = yaml.safe_load(blocks(text, "yaml")[0][1]) | {"version": find_quantizer("llama.cpp").version()}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "parent").symlink_to(skills)
    ((_, script),) = blocks(text, "bash")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", f"set -eu\n{script}"], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    words = " ".join(ran.stdout.split())
    for expected in ("models:/chat/1", "models:/chat/2", "outcome pass"):
        assert expected in words, ran.stdout + ran.stderr


def test_every_key_of_the_policy_reference_is_one() -> None:
    from mlflow_quantgov.policy.schema import Capability, Gate, Policy, Rule

    known = {name for model in (Policy, Rule, Gate, Capability) for name in model.model_fields}
    text = (DOCS / "reference" / "policy.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert keys and set(keys) <= known


TUTORIALS = {
    "first-release.md": (
        "story/report.html",
        ("refused skills version 2 at @champion", "exit code 3", "allowed skills version 2 at @champion",
         "skills@champion moved from version 2 to version 1", "report.html written", "chain unbroken"),
    ),
    "strict-release.md": (
        "strict/report.html",
        ("the benchmark statement is signed by nobody", "not counted: benchmark, signed by nobody",
         "ada asks for it, and has also measured or attached benchmark, kernels, task-eval",
         "all 20 items agree",
         "whose key has not the role waiver but approver",
         "allowed with rollback-archive waived skills version 2 at @champion",
         "the key of ben is revoked", "refused skills version 2 at @champion",
         "allowed skills version 2 at @champion", "chain unbroken"),
    ),
}  # fmt: skip
"""What a tutorial leaves behind, and what it says, in this order."""
STORY = (
    "gptq does not run on demo-cpu",
    "(1) task-eval fail: multi-step-reasoning fell",
    "It needs quantization-aware training, and none is recorded for these weights",
    "First look, 40 items per task: inconclusive",
    "items would settle it",
    "allowed skills version 4 at @champion",
    "quantgov rollback skills --alias champion: version 4 -> version 1",
    "chain unbroken",
)
"""What `quantgov demo --quick` says, with which each tutorial begins."""


@pytest.mark.slow
@pytest.mark.timeout(2700)  # llama.cpp's threads wait for each other: on a busy machine it takes ten times as long
@pytest.mark.parametrize("name", TUTORIALS)
def test_the_tutorial_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """All its commands in one shell, on another port; Python blocks through the same interpreter."""
    report, expected = TUTORIALS[name]
    port = str(free_port())
    script = ["set -eu"]
    for language, content in blocks((DOCS / "tutorial" / name).read_text(encoding="utf-8"), "bash", "python"):
        script.append(content if language == "bash" else f"python - <<'END'\n{content}END\n")
    text = "\n".join(script).replace(":5000", f":{port}").replace("--port 5000", f"--port {port}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "said").open("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-c", text], cwd=tmp_path, stdout=said, stderr=subprocess.STDOUT,
            env=os.environ | {"PATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=2400)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
        said.seek(0)
        out = said.read()
    assert code == 0, out[-6000:]
    words, place = " ".join(out.split()), 0
    for one in expected:
        place = words.find(one, place)
        assert place >= 0, f"{one}: {out[-9000:]}"
    assert [one for one in STORY if one not in words] == []
    reports = list((tmp_path / report).parent.glob("report-*.html"))
    assert len(reports) == 4 and all("http" not in one.read_text().replace("http-equiv", "") for one in reports)
    assert (tmp_path / report).stat().st_size > 10_000


def test_shipped_policies_are_sound() -> None:
    from mlflow_quantgov.policy.loader import load_policy

    for path in sorted((ROOT / "policies").glob("*.yaml")):
        assert load_policy(path).name == yaml.safe_load(path.read_text(encoding="utf-8"))["name"]


def test_the_commands_of_the_how_tos_take_what_they_are_given() -> None:
    """Each is parsed as the shell would hand it over, and not run: what needs a server or hours of measuring is elsewhere."""
    import shlex

    import click

    from mlflow_quantgov.cli import LazyGroup

    group, seen = LazyGroup("quantgov"), 0
    for page in sorted((DOCS / "how-to").glob("*.md")):
        for _, content in blocks(page.read_text(encoding="utf-8"), "console", "bash"):
            for line in content.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] != ["quantgov"] or any(word in "|&;>" for word in words):
                    continue
                command: click.Command | None = group
                words = words[1:]
                while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                    command = command.get_command(click.Context(command), words.pop(0))
                assert command is not None, f"{page.name}: {line}"
                known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
                given = {word.split("=")[0] for word in words if word.startswith("-")}
                assert given <= known, f"{page.name}: {line}"
                seen += 1
    assert seen > 10
