"""Which modules a config leaves unquantized: none that is packed may be among them.

A loader builds those modules for floats, finds none in the file, and fills them with random numbers. Sources: `is_match` of
compressed-tensors, `should_convert_module` of transformers, `dynamic` of gptqmodel, fnmatch in modelopt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.patterns import matches_from_start

_SKIPPED = ("modules_to_not_convert", "llm_int8_skip_modules", "skip_modules", "ignored_layers", "exclude_modules")
"""Keys of lists of modules that stay as they are."""
_LINEAR = frozenset({"Linear", "LinearBase", "torch.nn.Linear"})
_LONGEST_LIST = 100_000


def check_modules(files: ArtifactFiles, packed: Iterable[str]) -> None:
    """Compare the modules that configs name with those that are packed.

    Args:
        files: The artifact.
        packed: Names of modules whose weights are packed.

    Raises:
        ArtifactError: A config leaves a packed module out.
    """
    names = sorted(packed)
    for place, claim in files.claims:
        inner = claim.get("quantization")
        for one in (claim, inner if isinstance(inner, dict) else {}):
            for name, key, entry in _left_out(one, names):
                raise files.contradiction(
                    place, f"in {key} ({entry[:100]!r}) that {name[:200]} is not packed", "it packed"
                )


def _left_out(claim: dict[str, Any], names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Packed module, key of the config, and the entry there that leaves it out."""
    for key in _SKIPPED:
        for entry in _texts(claim.get(key)):
            yield from ((name, key, entry) for name in names if _skips(entry, name))
    for entry in _texts(claim.get("ignore")):
        yield from ((name, "ignore", entry) for name in names if _ignores(entry, name) or fnmatchcase(name, entry))
    dynamic = claim.get("dynamic")
    for entry in dynamic if isinstance(dynamic, dict) else ():
        if entry.startswith("-:"):
            yield from ((name, "dynamic", entry) for name in names if matches_from_start(entry[2:], name))
    yield from _not_listed(claim, names)


def _not_listed(claim: dict[str, Any], names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Modules that a list of all packed ones does not name."""
    groups = claim.get("config_groups")
    targets = [
        entry
        for group in (groups.values() if isinstance(groups, dict) else ())
        for entry in _texts(group.get("targets") if isinstance(group, dict) else None)
    ]
    if targets and not any(_is_class(entry) for entry in targets):
        missing = (name for name in names if not any(_targets(entry, name) for entry in targets))
        yield from ((name, "targets", targets[0]) for name in missing)
    blocks = claim.get("modules_in_block_to_quantize")
    inside = [entry for one in (blocks if isinstance(blocks, list) else ()) for entry in _texts(one)]
    if inside:
        outside = (
            name for name in names if ".layers." in name and not name.endswith(tuple(f".{one}" for one in inside))
        )
        yield from ((name, "modules_in_block_to_quantize", inside[0]) for name in outside)
    if claim.get("lm_head") is False:
        yield from ((name, "lm_head", "false") for name in names if name.rpartition(".")[2] == "lm_head")


def _texts(value: Any) -> list[str]:
    """Texts of a list, or the one text."""
    listed = value[:_LONGEST_LIST] if isinstance(value, list) else [value]
    return [one for one in listed if isinstance(one, str) and one]


def _skips(entry: str, name: str) -> bool:
    """Whether transformers, or modelopt where there are stars, leaves a module as it is."""
    inside = f".{entry.strip('.')}." in f".{name}."
    pattern = entry.removeprefix("re:")
    glob = ".*" not in entry and fnmatchcase(name, entry)
    return inside or glob or name.endswith(entry) or matches_from_start(pattern, name, at_boundary=True) is True


def _ignores(entry: str, name: str) -> bool:
    """Whether compressed-tensors leaves a module as it is: by its name, a pattern, or its class."""
    if entry.startswith("re:"):
        return matches_from_start(entry.removeprefix("re:"), name) is True
    return entry == name or entry in _LINEAR


def _targets(entry: str, name: str) -> bool:
    """Whether compressed-tensors packs a module; names may have a prefix more or less, patterns may not be known here."""
    if entry.startswith("re:"):
        return matches_from_start(entry.removeprefix("re:"), name) is not False
    return f".{name}".endswith(f".{entry}") or f".{entry}".endswith(f".{name}")


def _is_class(entry: str) -> bool:
    """Whether an entry names a class of modules, whose members cannot be told from the file."""
    return not entry.startswith("re:") and entry[:1].isupper()
