"""Ways around the gate that somebody who knows MLflow tried, each closed."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

from mlflow_quantgov.artifact.manifest import build_manifest
from mlflow_quantgov.errors import EvidenceError
from mlflow_quantgov.flavor.layout import MANIFEST_FILE
from mlflow_quantgov.gate.facts.contents import loading_problem, other_problem
from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.policy.loader import load_policy

ARTIFACTS = Path(__file__).parent.parent / "data" / "artifacts"
GGUF = ARTIFACTS / "tiny-Q4_0.gguf"
SAFETENSORS = ARTIFACTS / "gptq-w4g32" / "model.safetensors"


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(GGUF, "weights")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("model.dat", lambda path: shutil.copy(GGUF, path)),
        ("model", lambda path: shutil.copy(GGUF, path)),
        ("model.GGUF", lambda path: path.write_bytes(b"cut")),
        ("deep/er/model.pkl", lambda path: shutil.copy(GGUF, path)),
        ("model.bin.dat", lambda path: shutil.copy(SAFETENSORS, path)),
        ("archive.zip", zipped),
        ("PYTORCH_MODEL.BIN", lambda path: path.write_bytes(b"\x80\x04.")),
    ],
)
def test_weights_under_another_name_are_no_ordinary_model(
    store: Any, tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    root = tmp_path / "pretender"
    (root / name).parent.mkdir(parents=True)
    (root / "MLmodel").write_text("flavors: {python_function: {loader_module: mine}}\n")
    write(root / name)
    store.create_registered_model("m")
    version = str(store.create_model_version("m", str(root)).version)
    with pytest.raises(MlflowException, match="quantgov refused"):
        store.set_registered_model_alias("m", "champion", version)


def test_a_decoy_beside_the_weights_does_not_help(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pkl").write_bytes(b"a small classifier")
    assert other_problem(tmp_path) is None
    (tmp_path / "artifacts").mkdir()
    shutil.copy(GGUF, tmp_path / "artifacts" / "w.gguf")
    assert "artifacts/w.gguf" in str(other_problem(tmp_path))


def test_many_small_files_are_not_small(tmp_path: Path) -> None:
    for number in range(6):
        with (tmp_path / f"{number}.dat").open("wb") as file:
            file.truncate(10_000_000)
    assert "60,000,000 bytes" in str(other_problem(tmp_path))


@pytest.mark.parametrize(
    ("flavors", "words"),
    [
        ({"transformers": {"source_model_name": "some/other", "task": "text-generation"}}, "fetch 'some/other'"),
        ({"transformers": {"source_model_name": "some/other", "model_binary": "model"}}, "not what was inspected"),
        ({"sklearn": {"pickled_model": "quantgov/plots/late.json"}}, "files may still be added"),
        ({"python_function": {"loader_module": "mine", "data": "./x/../quantgov/plots"}}, "files may still be added"),
        ({"sklearn": "model.pkl"}, "cannot be read"),
        ({"sklearn": {"pickled_model": "model.pkl"}}, None),
        ({"python_function": {"artifacts": {"w": {"path": "quantgov/reports/w.json"}}}}, "files may still be added"),
        ({"python_function": {"config": {"a": [{"b": "x\\..\\QuantGov\\plots\\w.png"}]}}}, "files may still be added"),
        ({"python_function": {"artifacts": {"w": {"path": "artifacts/w", "uri": "/home/me/w"}}}}, None),
        ({"python_function": {"artifacts": {"w": {"path": "/srv/w", "uri": "w"}}}}, "does not lie in the version"),
        ({"python_function": {"data": "../../other/model", "model_code_path": "/home/me/code.py"}}, "does not lie in"),
        ({"mine": {"uri": "/srv/llm"}}, "does not lie in the version"),
        ({"mine": {"files": ["a/../../b"]}}, "does not lie in the version"),
        ({"mine": {"files": "C:\\llm"}}, "does not lie in the version"),
        ({"mine": {"files": "~/llm"}}, "does not lie in the version"),
        ({"python_function": {"config": {"prompt": "Q: what?", "url": "https://example.org/v1"}}}, None),
    ],
)
def test_a_model_of_another_kind_holds_what_it_loads(
    flavors: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    """What would be fetched, or could still be put there, was looked at by nobody."""
    (tmp_path / "MLmodel").write_text(json.dumps({"flavors": flavors}))
    (tmp_path / "model.pkl").write_bytes(b"small")
    said = other_problem(tmp_path)
    assert (said is None) if words is None else (words in str(said))


def test_a_number_that_no_database_holds_is_no_version(store: Any, sklearn_like: Callable[[str], str]) -> None:
    sklearn_like("iris")
    for number in (str(2**31), str(2**63), "9" * 5000):
        with pytest.raises(MlflowException) as raised:
            store.set_registered_model_alias("iris", "champion", number)
        assert raised.value.get_http_status_code() in {400, 404}


def test_an_mlmodel_further_down_is_read_too(tmp_path: Path) -> None:
    """A loader that is pointed at its folder goes by that one."""
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.transformers, data: inner}}\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "MLmodel").write_text("flavors: {sklearn: {pickled_model: m.pkl}}\n")
    assert other_problem(tmp_path) is None
    (tmp_path / "inner" / "MLmodel").write_text("flavors: {transformers: {model_binary: /srv/llm}}\n")
    assert "/srv/llm" in str(other_problem(tmp_path))


def test_a_link_to_a_folder_elsewhere_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "version"
    root.mkdir()
    (root / "model.pkl").write_bytes(b"small")
    (root / "artifacts").symlink_to(tmp_path / "elsewhere")
    assert "artifacts is a link" in str(other_problem(root))


@pytest.mark.parametrize("space", [" ", "\n", "\t"])
def test_weights_are_known_however_their_header_is_laid_out(space: str, tmp_path: Path) -> None:
    header = f'{{{space}"a": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}}}'.encode()
    (tmp_path / "weights.st").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "weights.st" in str(other_problem(tmp_path))


FUNCTION = "python_function: {loader_module: mlflow_quantgov.flavor, data: model}"


def test_what_is_judged_is_what_mlflow_loads(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(GGUF, tmp_path / "model")
    mlmodel = tmp_path / "MLmodel"
    mlmodel.write_text(
        "flavors: {python_function: {loader_module: mlflow_quantgov.flavor, data: model}, quantgov: {}}\n"
    )
    assert loading_problem(tmp_path, tmp_path / "model") is None
    for text, words in (
        ("flavors: {python_function: {loader_module: mine, data: model}}", "'mine'"),
        ("flavors: {python_function: {loader_module: mlflow_quantgov.flavor, data: other}}", "'other'"),
        ("flavors: [", "cannot be read"),
        ("{}", "cannot be read"),
        ("flavors: {python_function: [], quantgov: {}}", "cannot be read"),
        # What somebody who had the weights of an approved version logged anew, with other things around them.
        (f"flavors: {{{FUNCTION}, quantgov: {{}}, sklearn: {{pickled_model: quantgov/plots/m.png}}}}", "'sklearn'"),
        (f"flavors: {{{FUNCTION}, transformers: {{source_model_name: some/other}}}}", "'transformers'"),
        (f"flavors: {{{FUNCTION.replace('}', ', code: quantgov/plots}')}, quantgov: {{}}}}", "code of its own"),
        (f"flavors: {{{FUNCTION}, quantgov: {{code: code}}}}", "code of its own"),
    ):
        good = mlmodel.read_text()
        mlmodel.write_text(text)
        assert words in str(loading_problem(tmp_path, tmp_path / "model"))
        mlmodel.write_text(good)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "xllamacpp.py").write_text("# stands in front of the runtime")
    assert "code of its own" in str(loading_problem(tmp_path, tmp_path / "model"))
    shutil.rmtree(tmp_path / "code")
    shutil.copy(GGUF, tmp_path / "w.dat")
    assert "w.dat" in str(loading_problem(tmp_path, tmp_path / "model"))


def test_a_copy_is_read_where_clients_download_it(store: Any, tmp_path: Path) -> None:
    """A copy names its origin as its source; when that is deleted and made anew, the copy's files stay the old ones."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pkl").write_text(name)
    store.create_registered_model("origin")
    origin = store.create_model_version("origin", str(tmp_path / "first"))
    store.create_registered_model("copy")
    store.copy_model_version(origin, "copy")
    store.delete_registered_model("origin")
    store.create_registered_model("origin")
    store.create_model_version("origin", str(tmp_path / "second"))
    location = store.reference("copy", "1").location
    assert location == store.get_model_version_download_uri("copy", "1") and location.endswith("first")


def test_a_version_that_is_flagged_as_a_prompt_hides_no_other(store: Any, sklearn_like: Callable[[str], str]) -> None:
    """A rollback would find nothing to go to."""
    for _ in range(2):
        sklearn_like("iris")
    store.set_model_version_tag("iris", "2", ModelVersionTag("mlflow.prompt.is_prompt", "true"))
    assert store.search_model_versions("name = 'iris'", max_results=10) == []
    assert [one.version for one in store.references("iris")] == ["2", "1"]


def test_what_a_copy_is_made_of_is_what_was_judged(
    database: str, skills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between judgement and creation the origin is deleted and made again, of weights that nobody measured."""
    (tmp_path / "policy.yaml").write_text(load_policy().text.replace("create: open", "create: gated", 1).replace(
        'models: "*"', 'models: "prod"') + '\n  - models: "*"\n    destinations: {}\n')  # fmt: skip
    monkeypatch.setenv("QUANTGOV_POLICY", str(tmp_path / "policy.yaml"))
    (tmp_path / "harmless").mkdir()
    (tmp_path / "harmless" / "MLmodel").write_text("flavors: {sklearn: {}}\n")
    shutil.copytree(skills, tmp_path / "unmeasured" / "model")
    store, other = (open_store(f"quantgov:{database}") for _ in range(2))
    for name in ("prod", "origin"):
        store.create_registered_model(name)
    store.create_model_version("origin", str(tmp_path / "harmless"))
    store.create_model_version("prod", "models:/origin/1")
    judge = store._judge_creation

    def made_again_meanwhile(*given: Any) -> Any:
        found = judge(*given)
        other.delete_registered_model("origin")
        other.create_registered_model("origin")
        other.create_model_version("origin", str(tmp_path / "unmeasured"))
        return found

    monkeypatch.setattr(store, "_judge_creation", made_again_meanwhile)
    with pytest.raises(MlflowException, match="quantgov refused"):
        store.create_model_version("prod", "models:/origin/1")
    assert [one.version for one in store.search_model_versions("name = 'prod'", max_results=10)] == [1]


def test_a_rollback_goes_to_no_version_that_answers_otherwise(
    store: Any, logged: Callable[..., str], tmp_path: Path
) -> None:
    """The parent's weights, logged anew with another configuration: the newest version with them, and not the parent."""
    parent = logged(tmp_path / "parent", "parent-bf16", None)
    spoiled = Path(shutil.copytree(parent, tmp_path / "spoiled"))
    config = json.loads((spoiled / "model" / "config.json").read_text())
    (spoiled / "model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 10.0}))
    (spoiled / MANIFEST_FILE).write_text(build_manifest(spoiled / "model").to_json())
    for name in ("parents", "chat"):
        store.create_registered_model(name)
    store.create_model_version("parents", parent)
    child = logged(tmp_path / "child", "gptq-w4g32", tmp_path / "parent")
    store.create_model_version("chat", parent)
    quantized = store.create_model_version("chat", child)
    store.create_model_version("chat", str(spoiled))
    lineage = store.quantgov_facts("chat", str(quantized.version)).lineage
    assert lineage is not None and lineage.parent_version == "1"


def test_a_parent_that_is_a_path_is_not_looked_at(store: Any, tmp_path: Path) -> None:
    root = tmp_path / "logged"
    (root / "quantgov").mkdir(parents=True)
    shutil.copytree(ARTIFACTS / "gptq-w4g32", root / "model")
    parent = {"uri": str(ARTIFACTS / "parent-bf16"), "weights": "sha256:" + "0" * 64, "manifest": "sha256:" + "0" * 64}
    (root / "quantgov" / "manifest.json").write_text(build_manifest(root / "model").to_json())
    (root / "quantgov" / "lineage.json").write_text(json.dumps({"role": "quantized", "parent": parent, "target": None}))
    store.create_registered_model("chat")
    store.create_model_version("chat", str(root))
    lineage = store.quantgov_facts("chat", "1").lineage
    assert lineage is not None and lineage.level == "declared" and lineage.parent is None


def test_a_rename_carries_no_pointer_to_where_it_is_protected(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skills: Path
) -> None:
    policy = tmp_path / "p.yaml"
    text = load_policy().text.replace(
        '  - models: "*"', '  - models: "sandbox*"\n    destinations: {"@champion": open}\n  - models: "*"'
    )
    policy.write_text(text)
    monkeypatch.setenv("QUANTGOV_POLICY", str(policy))
    store: Any = open_store(f"quantgov:{database}")
    store.create_registered_model("sandbox")
    store.create_model_version("sandbox", str(skills))
    store.set_registered_model_alias("sandbox", "champion", "1")
    with pytest.raises(MlflowException, match="protected under the new name"):
        store.rename_registered_model("sandbox", "chat")
    store.rename_registered_model("sandbox", "sandbox-2")


@pytest.mark.parametrize("spelling", ["01", " 1", "1\n", "１"])
def test_a_version_is_recorded_by_its_own_number(store: Any, sklearn_like: Callable[[str], str], spelling: str) -> None:
    sklearn_like("iris")
    try:
        store.set_registered_model_alias("iris", "champion", spelling)
    except MlflowException:
        assert dict(store.get_registered_model("iris").aliases) == {}
    else:
        assert store.quantgov_ledger("iris")[0]["version"] == "1"


@pytest.mark.parametrize("name", ["st'aged", 'st"aged', "a b", "a%b", "ａ"])
def test_odd_names_are_guarded_like_others(store: Any, sklearn_like: Callable[[str], str], name: str) -> None:
    version = sklearn_like(name)
    store.transition_model_version_stage(name, version, "Production", False)
    with pytest.raises(MlflowException, match="cannot be deleted"):
        store.delete_model_version(name, version)


def test_leaving_a_protected_stage_is_recorded(store: Any, sklearn_like: Callable[[str], str]) -> None:
    version = sklearn_like("iris")
    store.transition_model_version_stage("iris", version, "Production", False)
    store.transition_model_version_stage("iris", version, "None", False)
    row = store.quantgov_ledger("iris")[0]
    assert (row["kind"], row["version"], row["destination"]) == ("stage-left", version, "Production")


def test_a_statement_from_the_future_is_not_taken_in(store: Any, quantized: str) -> None:
    from mlflow_quantgov.evidence.predicates import Fidelity, Provenance, Side
    from mlflow_quantgov.evidence.predicates.fidelity import DocumentRecord
    from mlflow_quantgov.evidence.statement import Statement

    weights = store.quantgov_facts("chat", quantized).model.weights
    side = Side(weights=weights, runtime="r", version="1")
    document = DocumentRecord(
        id=weights,
        tokens=1,
        parent_nll=1,
        quantized_nll=1,
        kl=0,
        kl_max=0,
        same_top=1,
        identical=1,
        kl_counts=((0, 1),),
    )
    content = Fidelity.measured(
        provenance=Provenance(measured_at="2099-01-01T00:00:00Z", tool_version="0"), parent=side, quantized=side,
        data=weights, settings={}, documents=(document,),
    )  # fmt: skip
    with pytest.raises(EvidenceError, match="still to come"):
        store.quantgov_take_in("chat", quantized, Statement.about(weights, content, name="m").to_bytes())
