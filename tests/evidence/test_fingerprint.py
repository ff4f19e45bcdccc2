"""Hardware: what a container leaves of it, what the GPU's driver says, and where it is not the target's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_quantgov.evidence.measure.cgroup import ControlGroups
from mlflow_quantgov.evidence.measure.fingerprint import differences, free_memory, this_machine, usable_cores
from mlflow_quantgov.evidence.measure.gpus import parse, visible_gpus
from mlflow_quantgov.evidence.predicates import Fingerprint
from mlflow_quantgov.evidence.targets import Target, find_target

LIBRARIES = {"xllamacpp": "2026.10", "torch": "2.13.0"}
MACHINE = Fingerprint(
    machine="x86_64", cpu_model="EPYC 9354", cpu_id="AuthenticAMD 25/17/1", cpu_flags=("avx2", "avx512f"), cores=16,
    memory_bytes=64 * 10**9, system="Linux 6.1", libraries=LIBRARIES,
)  # fmt: skip
GPU = MACHINE.model_copy(
    update={
        "accelerator": "NVIDIA H100 80GB HBM3",
        "accelerators": 1,
        "accelerator_memory_bytes": 85 * 10**9,
        "compute_capability": "9.0",
        "driver": "570.86",
    }
)
OLD = Fingerprint(
    machine="x86_64", cpu_model="EPYC 9354", cpu_flags=("avx2", "avx512f"), cores=16, memory_bytes=64 * 10**9
)


def captured(machine: Fingerprint, match: str = "exact", base: str = "cpu-llamacpp") -> Target:
    """A target with a fingerprint."""
    found = find_target(base)
    return found.model_copy(
        update={"hardware": found.hardware.model_copy(update={"fingerprint": machine, "match": match})}
    )


@pytest.mark.parametrize(
    ("target", "changes", "words"),
    [
        (MACHINE, {}, []),
        (MACHINE, {"cores": 2}, ["cores: 2 here, 16 on the target"]),
        (MACHINE, {"cpu_model": "EPYC 7763"}, ["CPU: EPYC 7763 here, EPYC 9354 on the target"]),
        (MACHINE, {"cpu_id": "AuthenticAMD 25/1/1"}, ["CPU family/model/stepping: AuthenticAMD 25/1/1 here, AuthenticAMD 25/17/1 on the target"]),
        (MACHINE, {"cpu_flags": ("avx2", "amx_int8")}, ["instruction sets: avx512f only on the target, amx_int8 only here"]),
        (MACHINE, {"cpu_limit": 2.5}, ["CPU quota of the cgroup: 2.5 here, none on the target"]),
        (MACHINE, {"machine": "aarch64"}, ["architecture: aarch64 here, x86_64 on the target"]),
        (MACHINE, {"memory_bytes": 16 * 10**9}, ["memory: 16.0 GB here, 64.0 GB on the target"]),
        (MACHINE, {"memory_bytes": 60 * 10**9}, []),
        (MACHINE, {"system": "Linux 6.2"}, []),
        (MACHINE, {"accelerator": "L4"}, ["GPU: L4 here, none on the target"]),
        (MACHINE, {"libraries": LIBRARIES | {"xllamacpp": "2026.11"}}, ["xllamacpp: 2026.11 here, 2026.10 on the target"]),
        (MACHINE, {"libraries": LIBRARIES | {"torch": "2.14.0"}}, []),
        (MACHINE, {"cores": 2, "memory_bytes": 8 * 10**9}, ["cores: 2 here, 16 on the target", "memory: 8.0 GB here, 64.0 GB on the target"]),
        (GPU, {}, []),
        (GPU, {"driver": "535.1"}, ["GPU driver: 535.1 here, 570.86 on the target"]),
        (GPU, {"accelerators": 8}, ["GPUs: 8 here, 1 on the target"]),
        (GPU, {"compute_capability": "8.0"}, ["compute capability: 8.0 here, 9.0 on the target"]),
        (GPU, {"accelerator_memory_bytes": 40 * 10**9}, ["GPU memory: 40.0 GB here, 85.0 GB on the target"]),
        (GPU, {"accelerator_memory_bytes": None}, ["GPU memory: 0.0 GB here, 85.0 GB on the target"]),
        (OLD, {}, []),
        (OLD, {"cores": 2}, ["cores: 2 here, 16 on the target"]),
    ],
)  # fmt: skip
def test_an_exact_match_names_every_difference(target: Fingerprint, changes: dict[str, Any], words: list[str]) -> None:
    measured = (MACHINE if target is OLD else target).model_copy(update=changes)
    assert differences(captured(target), measured) == words


@pytest.mark.parametrize(
    ("target", "base", "changes", "words"),
    [
        (MACHINE, "cpu-llamacpp", {"cores": 2, "memory_bytes": 1}, []),
        (MACHINE, "cpu-llamacpp", {"cpu_model": "Xeon"}, ["CPU: Xeon here, EPYC 9354 on the target"]),
        (MACHINE, "cpu-llamacpp", {"cpu_flags": ()}, ["instruction sets: avx2 avx512f only on the target"]),
        (GPU, "cpu-llamacpp", {"cpu_model": "Xeon"}, ["CPU: Xeon here, EPYC 9354 on the target"]),
        (GPU, "cpu-llamacpp", {"accelerator": "L4"}, []),
        (GPU, "gpu-vllm-hopper", {"cpu_model": "Xeon", "driver": "1"}, []),
        (GPU, "gpu-vllm-hopper", {"accelerator": "L4"}, ["GPU: L4 here, NVIDIA H100 80GB HBM3 on the target"]),
    ],
)
def test_a_match_by_class_asks_for_the_model_and_a_cpus_instruction_sets(
    target: Fingerprint, base: str, changes: dict[str, Any], words: list[str]
) -> None:
    assert differences(captured(target, "class", base), target.model_copy(update=changes)) == words


def test_a_template_matches_no_machine_and_this_one_matches_itself() -> None:
    assert "template" in differences(find_target("cpu-llamacpp"), this_machine())[0]
    assert differences(captured(this_machine()), this_machine()) == []


def test_facts_that_came_later_change_no_digest_of_a_target_that_lacks_them() -> None:
    """Policies pin targets by digest, and statements name them by it."""
    written = OLD.model_dump(mode="json")
    assert set(written) == {"machine", "cpu_model", "cpu_flags", "cores", "memory_bytes", "accelerator"}
    assert Fingerprint.model_validate(MACHINE.model_dump(mode="json")) == MACHINE


def files(root: Path, **contents: str) -> None:
    """Files of one group; `__` stands for a dot, since they are written as keywords."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (root / name.replace("__", ".")).write_text(content)


def groups(tmp_path: Path, membership: str) -> ControlGroups:
    (tmp_path / "cgroup").write_text(membership)
    return ControlGroups(tmp_path / "mounted", tmp_path / "cgroup")


def test_limits_of_version_2_hold_from_any_group_above(tmp_path: Path) -> None:
    top = tmp_path / "mounted"
    files(top, cgroup__controllers="cpu memory")
    files(top / "pod", cpu__max="250000 100000\n", memory__max="max\n")
    files(
        top / "pod" / "box",
        cpu__max="max 100000\n",
        cpu__stat="usage_usec 1\nnr_throttled 7\n",
        memory__max="8000000000\n",
        memory__current="3000000000\n",
        memory__stat="anon 1\ninactive_file 1000000000\n",
        memory__events="low 0\noom_kill 2\n",
    )
    found = groups(tmp_path, "0::/pod/box\n")
    assert (found.cpu_limit(), found.memory_limit(), found.memory_used()) == (2.5, 8 * 10**9, 2 * 10**9)
    assert (found.out_of_memory_kills(), found.throttled_periods()) == (2, 7)


def test_limits_of_version_1(tmp_path: Path) -> None:
    top = tmp_path / "mounted"
    files(top / "cpu" / "box", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000", cpu__stat="nr_throttled 0")
    files(
        top / "memory" / "box",
        memory__limit_in_bytes="4000000000",
        memory__usage_in_bytes="1000000000",
        memory__stat="total_inactive_file 400000000",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 0",
    )
    found = groups(tmp_path, "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    assert (found.cpu_limit(), found.memory_limit(), found.memory_used()) == (1.5, 4 * 10**9, 6 * 10**8)
    assert (found.out_of_memory_kills(), found.throttled_periods()) == (0, 0)


@pytest.mark.parametrize(
    ("membership", "contents"),
    [
        ("4:memory:/box\n1:cpu:/box\n", {"memory__limit_in_bytes": "9223372036854771712", "cpu__cfs_quota_us": "-1"}),
        ("", {}),
        ("nonsense", {}),
        ("4:memory:/box\n1:cpu:/box\n", {"memory__limit_in_bytes": "", "cpu__cfs_quota_us": "x"}),
    ],
)
def test_no_limit_is_none(tmp_path: Path, membership: str, contents: dict[str, str]) -> None:
    for controller in ("cpu", "memory"):
        files(tmp_path / "mounted" / controller / "box", cpu__cfs_period_us="100000", **contents)
    found = groups(tmp_path, membership)
    assert (found.cpu_limit(), found.memory_limit(), found.memory_used(), found.throttled_periods()) == (None,) * 4


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """The path is that on the host, and the mount shows the group itself."""
    files(tmp_path / "mounted", cgroup__controllers="cpu memory", memory__max="5000000000", cpu__max="100000 100000")
    found = groups(tmp_path, "0::/kubepods/pod1/box\n")
    assert (found.memory_limit(), found.cpu_limit()) == (5 * 10**9, 1.0)


def test_cores_are_those_that_the_quota_leaves() -> None:
    assert usable_cores(0.3) == 1 and usable_cores(None) == usable_cores(10_000.0) >= 1
    assert 0 < free_memory() <= this_machine().memory_bytes


SMI = (
    "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 9.0, 570.86.10\n"
    "1, GPU-bbbb, NVIDIA H100 80GB HBM3, [N/A], 9.0, 570.86.10\n"
    "no devices\n"
)


def test_the_drivers_tool_is_read_as_it_writes() -> None:
    first, second = parse(SMI)
    assert (first.name, first.memory_bytes, first.capability, first.driver) == (
        "NVIDIA H100 80GB HBM3", 81559 * 2**20, "9.0", "570.86.10",
    )  # fmt: skip
    assert second.memory_bytes == 0 and parse("") == []


@pytest.mark.parametrize(
    ("visible", "seen"),
    [(None, ["0", "1"]), ("1", ["1"]), ("1,0", ["1", "0"]), ("GPU-b", ["1"]), ("", []), ("-1", []), ("0,7,1", ["0"])],
)
def test_a_process_sees_the_gpus_that_the_variable_names(
    visible: str | None, seen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [one.index for one in visible_gpus()] == seen
