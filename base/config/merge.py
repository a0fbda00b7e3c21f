"""Config files and command-line overrides as one source: `extends`, `key.path=value`, merging."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from base.config.source import COMMAND_LINE, Source, parse_text
from base.errors import ConfigError, ConfigIssue, KeyPath, format_value

MAX_BYTES, MAX_EXTENDS = 1_000_000, 10
ASSIGNMENT = re.compile(r"([^\s.=]+(?:\.[^\s.=]+)*)=(.*)", re.DOTALL)
# Where victoresque/pytorch-template keeps what we keep elsewhere.
ANCESTORS_KEYS: dict[KeyPath, KeyPath] = {
    ("arch",): ("model",),
    ("n_gpu",): ("device",),
    ("trainer", "verbosity"): ("logger", "verbosity"),
    ("trainer", "tensorboard"): ("logger", "tensorboard"),
}


def read_config(path: Path, *, num_above: int = 0) -> Source:
    """Read a `.json` file, or any other as YAML, laid over the files that its `extends` names.

    `num_above` counts the files that extend this one, each the next.

    Raises: ConfigError with every issue found in these files.
    """
    source = parse_text(_read_text(path, num_above), str(path))
    if not isinstance(source.values, dict):
        message = f"expected keys with values, found {format_value(source.values)}"
        raise ConfigError([ConfigIssue((), message, source.where(()))])
    named = source.values.pop("extends", None) or []
    layers, issues = [], []
    for number, name in enumerate(named if isinstance(named, list) else [named]):
        try:
            layers.append(read_config(path.parent / str(name), num_above=num_above + 1))
        except ConfigError as error:
            where = source.where(("extends", number))
            issues += [i if i.where else replace(i, where=where) for i in error.issues]
    if issues:
        raise ConfigError(issues)
    _rename_ancestors_keys(source)
    return reduce(merge, [*layers, source])


def _read_text(path: Path, num_above: int) -> str:
    try:
        if num_above > MAX_EXTENDS:
            raise OSError(f"more than {MAX_EXTENDS} files extend one another")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise OSError(f"larger than {MAX_BYTES:,} bytes")
    except OSError as error:
        path_in_config = ("extends",) if num_above else ()
        message = f"cannot read {path}: {error.strerror or error}"
        raise ConfigError([ConfigIssue(path_in_config, message)]) from None
    return raw.decode("utf-8-sig", "surrogateescape")  # what is no UTF-8 is refused with its place


def _rename_ancestors_keys(source: Source) -> None:
    """Move what stands under the ancestor's keys to ours; it stays where ours are given too."""
    for theirs, ours in ANCESTORS_KEYS.items():
        section, target = (
            source.values if len(path) == 1 else source.values.get(path[0], {})
            for path in (theirs, ours)
        )
        is_clear = isinstance(section, dict) and isinstance(target, dict)
        if not is_clear or theirs[-1] not in section or ours[-1] in target:
            continue
        value = section.pop(theirs[-1])
        if theirs == ("n_gpu",) and isinstance(value, int):
            value = "cpu" if value == 0 else "auto"
        target[ours[-1]] = value
        if len(ours) > 1:
            source.values[ours[0]] = target
        for path in [path for path in source.positions if path[: len(theirs)] == theirs]:
            source.positions[ours + path[len(theirs) :]] = source.positions.pop(path)


def parse_overrides(assignments: Sequence[str]) -> Source:
    """Collect assignments such as "optimizer.args.lr=0.1" into one source, to merge over a config.

    Raises: ConfigError with every one that is not `key.path=value`, the value in YAML.
    """
    issues: list[ConfigIssue] = []
    sources: dict[str, Source] = {}
    for assignment in assignments:
        try:
            key, source = _parse_assignment(assignment)
        except ConfigError as error:
            issues += error.issues
        else:
            sources.pop(key, None)  # of two values for one key the later counts, in its place
            sources[key] = source
    if issues:
        raise ConfigError(issues)
    source = reduce(merge, sources.values(), Source({}, {(): COMMAND_LINE}))
    _rename_ancestors_keys(source)
    return source


def _parse_assignment(assignment: str) -> tuple[str, Source]:
    if not (match := ASSIGNMENT.fullmatch(assignment)):
        message = f"expected key.path=value, found {format_value(assignment)}"
        if Path(assignment).suffix in (".yaml", ".yml", ".json"):
            message += "; a config goes with -c"
        raise ConfigError([ConfigIssue((), message, COMMAND_LINE)])
    path = tuple(match[1].split("."))
    source = parse_text(match[2], COMMAND_LINE, path=path)
    values = reduce(lambda value, key: {key: value}, reversed(path), source.values)
    parents = {path[:length]: COMMAND_LINE for length in range(len(path))}
    return match[1], Source(values, parents | source.positions)


def merge(base: Source, over: Source) -> Source:
    """Lay one source over another: mappings merge, lists and nodes of another `type` replace.

    A mapping of numbers changes the items of a list, counted from 0.

    Raises: ConfigError for an item that is not there.
    """
    positions = base.positions | over.positions

    def lay_over(below: Any, above: Any, path: KeyPath) -> Any:
        is_list = isinstance(below, list) and _counts_items(above)
        if is_list:
            below = {str(number): item for number, item in enumerate(below)}
        if "args" not in path:  # outside args a bare string stands for {type: string}
            if isinstance(below, str) and isinstance(above, dict):
                below = {"type": below}
            elif isinstance(below, dict) and isinstance(above, str):
                above = {"type": above}
                positions[*path, "type"] = over.where(path)
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        both_typed = "type" in below and "type" in above and path[-1:] != ("args",)
        if both_typed and below["type"] != above["type"]:
            return above
        positions[path] = base.where(path)
        merged = below.copy()
        for key, value in above.items():
            if is_list and key not in below:
                message = f"no item {key} in a list of {len(below)}, counted from 0"
                raise ConfigError([ConfigIssue((*path, key), message, over.where((*path, key)))])
            merged[key] = lay_over(below[key], value, (*path, key)) if key in below else value
        return [*merged.values()] if is_list else merged

    values = lay_over(base.values, over.values, ())
    return Source(values, {p: positions[p] for p in _paths_in(values) if p in positions})


def _counts_items(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(str.isdecimal, value))


def _paths_in(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    yield path
    items = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else items:
        yield from _paths_in(item, (*path, str(key)))
