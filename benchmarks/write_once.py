"""What it costs an upload that the registry is asked first, by the number of registered versions.

    python benchmarks/write_once.py [--versions 10 1000 10000] [--rounds 300]

Prints milliseconds for one small file through a local artifact repository, plain and guarded, on SQLite.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from sqlalchemy import text

from mlflow_quantgov.gate.registry_store import open_store
from mlflow_quantgov.gate.write_once.artifact_repo import guarded
from mlflow_quantgov.gate.write_once.write_guard import WriteGuard

_ROW = text(
    "INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time, current_stage, source, "
    "storage_location) VALUES ('default', 'many', :number, :number, :number, 'None', :place, :place)"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        store: Any = open_store(f"quantgov:sqlite:///{root / 'mlflow.db'}")
        store.create_registered_model("many")
        (root / "file.bin").write_bytes(b"x" * 4096)
        plain = LocalArtifactRepository(str(root / "artifacts"))
        asking: Any = guarded(LocalArtifactRepository(str(root / "artifacts")), WriteGuard(store.engine))
        made = 0
        print("| versions | plain, ms | guarded, ms | after a registration, ms |\n| --- | --- | --- | --- |")
        for count in sorted(arguments.versions):
            with store.engine.begin() as connection:
                rows = [
                    {"number": number, "place": f"{root}/artifacts/1/models/m-{number}/artifacts"}
                    for number in range(made + 1, count + 1)
                ]
                if rows:
                    connection.execute(_ROW, rows)
            made = max(made, count) + 1
            _milliseconds(asking, root, 1)
            with store.engine.begin() as connection:
                connection.execute(_ROW, {"number": made, "place": f"{root}/artifacts/1/models/m-{made}/artifacts"})
            first = _milliseconds(asking, root, 1)
            print(
                f"| {count:,} | {_milliseconds(plain, root, arguments.rounds):.2f} "
                f"| {_milliseconds(asking, root, arguments.rounds):.2f} | {first:.1f} |"
            )


def _milliseconds(repository: LocalArtifactRepository, root: Path, rounds: int) -> float:
    """Median of one upload."""
    found = []
    for number in range(rounds):
        begin = time.perf_counter()
        repository.log_artifact(str(root / "file.bin"), f"2/run/artifacts/{number % 10}")
        found.append(1000 * (time.perf_counter() - begin))
    return statistics.median(found)


if __name__ == "__main__":
    main()
