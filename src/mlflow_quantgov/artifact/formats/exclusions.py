"""Which modules a config leaves unquantized: none that is packed may be among them.

A loader builds those modules for floats, finds none in the file, and makes their weights up. Sources: `is_match` of
compressed-tensors, `should_convert_module` of transformers, `dynamic` of gptqmodel, fnmatch in modelopt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mlflow_quantgov.artifact.formats.interface import ArtifactFiles
from mlflow_quantgov.artifact.formats.module_names import ModuleNames, UnknownPatternError, is_name
from mlflow_quantgov.errors import ArtifactError

_SKIPPED = ("modules_to_not_convert", "llm_int8_skip_modules", "skip_modules", "ignored_layers", "exclude_modules")
"""Keys of lists of modules that stay as they are: ends of names, patterns, or names with stars."""
_IGNORED = "ignore"
"""The same of compressed-tensors: names, classes, or patterns after `re:`."""
_PATTERN = "re:"
_LINEAR = frozenset({"Linear", "LinearBase", "torch.nn.Linear"})
_MOST_LISTED = 100_000

_Found = tuple[str, str, str]
"""Packed module, key of the config, and the entry there that leaves it out."""


def check_exclusions(files: ArtifactFiles, packed: Iterable[str]) -> None:
    """Refuse a config that leaves out a module whose packed tensors lie in the files.

    Args:
        files: The artifact.
        packed: Names of the quantized modules.

    Raises:
        ArtifactError: A module is excluded and packed, or a pattern is too involved to be run.
    """
    stored = {part for name in files.tensors for part in name.split(".")}
    modules = ModuleNames(packed, stored)
    for place, claim in files.claims:
        inner = claim.get("quantization")
        for one in (claim, inner if isinstance(inner, dict) else {}):
            try:
                found = next(_left_out(one, modules), None)
            except UnknownPatternError as error:
                raise ArtifactError(
                    f"{place} of {files.root.name} chooses modules by {str(error)[:100]!r}, which is not run here.",
                    why="Which weights a loader would take cannot be told.",
                    fix="name the modules, or use a simpler pattern",
                ) from error
            if found is not None:
                name, key, entry = found
                raise files.contradiction(
                    place,
                    f"that {name[:200]} is not quantized (by {entry[:100]!r} in {key})",
                    f"packed weights for {name[:200]}",
                )


def _left_out(claim: dict[str, Any], modules: ModuleNames) -> Iterator[_Found]:
    for key in _SKIPPED:
        for entry in _texts(claim.get(key)):
            if (name := _skipped(entry, modules)) is not None:
                yield name, key, entry
    for entry in _texts(claim.get(_IGNORED)):
        if (name := _ignored(entry, modules)) is not None:
            yield name, _IGNORED, entry
    dynamic = claim.get("dynamic")
    for entry in list(dynamic)[:_MOST_LISTED] if isinstance(dynamic, dict) else ():
        # gptqmodel: `-:` excludes, `+:` and a bare pattern set anew.
        if entry.startswith("-:") and (name := modules.of_pattern(entry.removeprefix("-:"))) is not None:
            yield name, "dynamic", entry
    yield from _not_listed(claim, modules)


def _skipped(entry: str, modules: ModuleNames) -> str | None:
    """A module that transformers, or modelopt where there are stars, leaves as it is.

    A pattern of transformers matches beginnings of names; here it has to end where a part does, for `model.layers.1` means
    no other layers.
    """
    found = modules.of_parts(entry) or modules.ending(entry)
    if found is not None or modules.knows_parts(entry):
        return found
    if entry.startswith(_PATTERN):
        return modules.of_pattern(entry.removeprefix(_PATTERN), at_boundary=True)
    if not is_name(entry) and ".*" not in entry:
        found = modules.of_stars(entry)
        return found if found is not None or entry.startswith("*") else modules.of_pattern(entry, at_boundary=True)
    return modules.of_pattern(entry, at_boundary=True)


def _ignored(entry: str, modules: ModuleNames) -> str | None:
    """A module that compressed-tensors leaves as it is: by its name, a pattern, or its class."""
    if entry.startswith(_PATTERN):
        return modules.of_pattern(entry.removeprefix(_PATTERN))
    if entry in _LINEAR:
        return next(iter(modules.names), None)
    return modules.of_parts(entry) if is_name(entry) else modules.of_stars(entry)


def _not_listed(claim: dict[str, Any], modules: ModuleNames) -> Iterator[_Found]:
    """Modules that a list of all packed ones does not name."""
    groups = claim.get("config_groups")
    targets = [
        entry
        for group in (groups.values() if isinstance(groups, dict) else ())
        for entry in _texts(group.get("targets") if isinstance(group, dict) else None)
    ]
    if targets and not any(_is_class(entry) for entry in targets):
        missing = modules.without(
            [entry for entry in targets if not entry.startswith(_PATTERN)],
            [entry.removeprefix(_PATTERN) for entry in targets if entry.startswith(_PATTERN)],
        )
        yield from ((name, "targets", targets[0]) for name in missing)
    blocks = claim.get("modules_in_block_to_quantize")
    inside = [entry for one in (blocks if isinstance(blocks, list) else ()) for entry in _texts(one)]
    if inside:
        ends = tuple(f".{one}" for one in inside)
        outside = (name for name in modules.names if ".layers." in name and not name.endswith(ends))
        yield from ((name, "modules_in_block_to_quantize", inside[0]) for name in outside)
    if claim.get("lm_head") is False:
        yield from ((name, "lm_head", "false") for name in modules.names if name.rpartition(".")[2] == "lm_head")


def _texts(value: Any) -> list[str]:
    """Texts of a list, or the one text."""
    listed = value[:_MOST_LISTED] if isinstance(value, list) else [value]
    return [one for one in listed if isinstance(one, str) and one]


def _is_class(entry: str) -> bool:
    """Whether an entry names a class of modules, whose members cannot be told from the file."""
    return not entry.startswith(_PATTERN) and entry[:1].isupper()
