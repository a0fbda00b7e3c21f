"""Config files and command-line overrides as one source: `extends`, `key.path=value`, merging."""

import errno
import os
import reprlib
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from base.config.source import COMMAND_LINE, Source, parse_text
from base.errors import ConfigError, ConfigIssue, KeyPath, did_you_mean, format_value

MAX_BYTES, MAX_FILES = 1_000_000, 100
# Where victoresque/pytorch-template keeps what we keep elsewhere.
ANCESTORS_KEYS: dict[KeyPath, KeyPath] = {
    ("arch",): ("model",),
    ("n_gpu",): ("device",),
    ("trainer", "verbosity"): ("logger", "verbosity"),
    ("trainer", "tensorboard"): ("logger", "tensorboard"),
}


def read_config(path: Path) -> Source:
    """Read a `.json` file, or any other as YAML, laid over the files that its `extends` names.

    Raises: ConfigError with every issue found in these files.
    """
    return _read_file(Path(path), opened=[])


def _read_file(
    path: Path, *, opened: list[Path], chain: tuple[Path, ...] = (), where: str = ""
) -> Source:
    """Read a file, which the last one of `chain` names at `where`; `opened` are all so far."""
    opened.append(path)
    try:
        if len(opened) > MAX_FILES:
            raise OSError(errno.EMFILE, f"more than {MAX_FILES} files")
        text = _read_text(path, chain)
    except OSError as error:
        near = _near_file(path) if isinstance(error, FileNotFoundError) else ""
        message = f"cannot read {path}: {error.strerror or error}{near}"
        raise ConfigError([ConfigIssue(("extends",) if chain else (), message, where)]) from None
    source = parse_text(text, str(path))
    if not isinstance(source.values, dict):
        found = "nothing" if source.values is None else format_value(source.values)
        message = f"expected keys with values, found {found}"
        raise ConfigError([ConfigIssue((), message, source.where(()))])
    return _extend(source, (*chain, path), opened)


def _extend(source: Source, chain: tuple[Path, ...], opened: list[Path]) -> Source:
    """Lay what the last file of `chain` holds over the files that it extends."""
    named = source.values.pop("extends", None)
    names = named if isinstance(named, list) else [] if named is None else [named]
    layers, issues = [], _rename_ancestors_keys(source)
    for number, name in enumerate(names):
        where = source.where(("extends", number))
        if not isinstance(name, str) or not name:
            message = f"expected a file or a list of files, found {format_value(name)}"
            issues.append(ConfigIssue(("extends",), message, where))
            continue
        file = chain[-1].parent / name
        try:
            layers.append(_read_file(file, opened=opened, chain=chain, where=where))
        except ConfigError as error:
            issues += error.issues
    if issues:
        raise ConfigError(issues)
    return reduce(merge, [*layers, source])


def _read_text(path: Path, chain: tuple[Path, ...]) -> str:
    if os.path.realpath(path) in map(os.path.realpath, chain):
        route = " -> ".join(map(str, (*chain, path)))
        raise OSError(errno.ELOOP, f"a file cannot extend itself ({route})")
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {MAX_BYTES:,} bytes")
    return raw.decode("utf-8-sig", "surrogateescape")  # what is no UTF-8 is refused with its place


def _near_file(path: Path) -> str:
    files = [file for file in path.parent.glob("*") if os.path.isfile(file)]
    near = [file.name for file in files if did_you_mean(path.stem, [file.stem])]
    return did_you_mean(path.name, near)


def parse_overrides(assignments: Sequence[str]) -> Source:
    """Collect assignments such as "optimizer.args.lr=0.1" into one source, to merge over a config.

    Raises: ConfigError with every one that is not `key.path=value`, the value in YAML.
    """
    issues: list[ConfigIssue] = []
    sources: dict[str, Source] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = tuple(key.split("."))
        if not (equals and key.isprintable() and all(name == name.strip() != "" for name in path)):
            message = f"expected key.path=value, found {reprlib.repr(assignment)}"
            if Path(assignment).suffix in (".yaml", ".yml", ".json"):
                message += "; a config goes with -c"
            issues.append(ConfigIssue((), message, COMMAND_LINE))
            continue
        sources.pop(key, None)  # of two values for one key the later counts, in its later place
        try:
            sources[key] = _nested(parse_text(text, COMMAND_LINE, path=path), path)
        except ConfigError as error:
            issues += error.issues
    source = reduce(merge, sources.values(), Source({}, {(): COMMAND_LINE}))
    issues += _rename_ancestors_keys(source)
    if issues:
        raise ConfigError(issues)
    return source


def _nested(source: Source, path: KeyPath) -> Source:
    values = reduce(lambda value, key: {key: value}, reversed(path), source.values)
    parents = {path[:length]: COMMAND_LINE for length in range(len(path))}
    return Source(values, parents | source.positions)


# --- merging ------------------------------------------------------------------------------------


def merge(base: Source, over: Source) -> Source:
    """Lay one source over another: mappings merge, lists and nodes of another `type` replace.

    Raises: ConfigError with every override of a list item that is not there.
    """
    merger = _Merger(base, over)
    values = merger.merge(base.values, over.values, ())
    if merger.issues:
        raise ConfigError(merger.issues)
    positions = merger.positions
    return Source(values, {p: positions[p] for p in _paths_in(values) if p in positions})


class _Merger:
    """Merges the values of two sources, and keeps the positions of what they become."""

    def __init__(self, base: Source, over: Source) -> None:
        self.base, self.over = base, over
        self.is_override = over.where(()) == COMMAND_LINE
        self.positions = base.positions | over.positions
        self.issues: list[ConfigIssue] = []

    def merge(self, below: Any, above: Any, path: KeyPath) -> Any:
        """Return the values at `path`, `above` being laid over `below`."""
        if isinstance(below, list) and self.is_override and _counts_items(above):
            return [*self.merge_entries(_entries(below), above, path, is_list=True).values()]
        given = above
        if "args" not in path:  # outside args a bare string stands for {type: string}
            if isinstance(below, str) and isinstance(above, dict):
                below = {"type": below}
                self.positions.setdefault((*path, "type"), self.base.where(path))
            elif isinstance(below, dict) and isinstance(above, str):
                above = {"type": above}
                self.positions[*path, "type"] = self.over.where(path)
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return given
        both_typed = "type" in below and "type" in above and path[-1:] != ("args",)
        if both_typed and below["type"] != above["type"]:
            return given
        return self.merge_entries(below, above, path)

    def merge_entries(
        self, below: dict[str, Any], above: dict[str, Any], path: KeyPath, *, is_list: bool = False
    ) -> dict[str, Any]:
        if self.is_override:  # what a mapping lacks, it lacks in the file
            self.positions[path] = self.base.where(path)
        merged = below.copy()
        for key, value in sorted(above.items()) if is_list else above.items():
            if key in below:
                merged[key] = self.merge(below[key], value, (*path, key))
            elif is_list:
                count = f"in a list of {len(below)}, counted from 0; none can be added"
                issue = ConfigIssue((*path, key), f"no item {key} {count}", COMMAND_LINE)
                self.issues.append(issue)
            else:
                merged[key] = value
        return merged


def _counts_items(value: Any) -> bool:
    keys = value if isinstance(value, dict) else ()
    return bool(keys) and all(key.isascii() and key.isdigit() for key in keys)


def _entries(value: Any) -> dict[str, Any]:
    """Return what a mapping or a list holds, by key or by number; nothing for a scalar."""
    if isinstance(value, list):
        return {str(number): item for number, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _paths_in(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    below = [p for key, item in _entries(value).items() for p in _paths_in(item, (*path, key))]
    return [path, *below]


def _rename_ancestors_keys(source: Source) -> list[ConfigIssue]:
    """Move what stands under the ancestor's keys to ours; return what stands under both."""
    issues = []
    for theirs, ours in ANCESTORS_KEYS.items():
        section = _section(source.values, theirs)
        if theirs[-1] not in section:
            continue
        where, value = source.where(theirs), section.pop(theirs[-1])
        if theirs == ("n_gpu",):
            if not isinstance(value, int | None):
                message = f"expected a whole number, found {format_value(value)}"
                issues.append(ConfigIssue(theirs, message, where))
            value = "cpu" if value == 0 else "auto"
        if len(ours) > 1:
            source.values.setdefault(ours[0], {})
            source.positions.setdefault(ours[:1], where)
        target = _section(source.values, ours)
        if ours[-1] in target:
            also = f"{'.'.join(ours)!r}, which is given too, at {source.where(ours)}"
            issues.append(ConfigIssue(theirs, f"stands for {also}", where))
        target[ours[-1]] = value
        for path in [path for path in source.positions if path[: len(theirs)] == theirs]:
            source.positions[ours + path[len(theirs) :]] = source.positions.pop(path)
    return issues


def _section(values: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return the mapping that holds the last key of a path of one or two."""
    section = values if len(path) == 1 else values.get(path[0])
    return section if isinstance(section, dict) else {}
