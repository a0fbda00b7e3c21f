"""Config files and command-line overrides: `extends`, `key.path=value`, and how trees merge."""

import errno
import os
import reprlib
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from base.config.text import COMMAND_LINE, Node, children, parse_text
from base.errors import ConfigError, ConfigIssue, KeyPath, did_you_mean, format_value

MAX_BYTES, MAX_FILES = 1_000_000, 100
# Where victoresque/pytorch-template keeps what we keep elsewhere.
ANCESTORS_KEYS = {
    ("arch",): ("model",),
    ("n_gpu",): ("device",),
    ("trainer", "verbosity"): ("logger", "verbosity"),
    ("trainer", "tensorboard"): ("logger", "tensorboard"),
}


def read_config(path: Path) -> Node:
    """Read a `.json` file, or any other as YAML, laid over the files that its `extends` names.

    Raises: ConfigError with every issue found in these files.
    """
    reader = _Reader()
    node = reader.read(Path(path))
    if node is None or reader.issues:
        raise ConfigError(reader.issues)
    return node


def parse_overrides(assignments: Sequence[str]) -> Node:
    """Collect assignments such as "optimizer.args.lr=0.1" into one tree, to merge over a config.

    Raises: ConfigError with every one that is not `key.path=value`, the value in YAML.
    """
    issues: list[ConfigIssue] = []
    trees: dict[str, Node] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        path = tuple(key.split("."))
        if not (equals and key.isprintable() and all(name == name.strip() != "" for name in path)):
            message = f"expected key.path=value, found {reprlib.repr(assignment)}"
            if Path(assignment).suffix in (".yaml", ".yml", ".json"):
                message += "; a config goes with -c"
            issues.append(ConfigIssue((), message, COMMAND_LINE))
        elif node := parse_text(text, COMMAND_LINE, issues, path=path):
            trees.pop(key, None)  # of two values for one key the later counts, in its later place
            trees[key] = _nest(path, node)
    tree = _with_our_keys(reduce(merge, trees.values(), Node({}, COMMAND_LINE)), issues)
    if issues:
        raise ConfigError(issues)
    return tree


def merge(base: Node, over: Node) -> Node:
    """Lay one tree over another: mappings merge, lists and nodes of another `type` replace.

    Raises: ConfigError with every override of a list item that is not there.
    """
    issues: list[ConfigIssue] = []
    merged = _merge(base, over, (), issues)
    if issues:
        raise ConfigError(issues)
    return merged


def plain(node: Node) -> Any:
    """Return the values of a tree without their places."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def where_is(node: Node, path: Sequence[str | int]) -> str:
    """Return the place of the value at `path`, or of what encloses it as far as that exists."""
    for key in map(str, path):
        if key not in (entries := children(node.value)):
            break
        node = entries[key]
    return node.where


def _merge(base: Node, over: Node, path: tuple[str, ...], issues: list[ConfigIssue]) -> Node:
    below, above = base.value, over.value
    if changes_items := isinstance(below, list) and _counts_items(over):
        below = children(below)
        for key in sorted(above.keys() - below.keys()):
            message = f"no item {key} in a list of {len(below)}, counted from 0; none can be added"
            issues.append(ConfigIssue((*path, key), message, over.where))
    elif "args" not in path:  # outside args a bare string stands for {type: string}
        if isinstance(below, str) and isinstance(above, dict):
            below = {"type": base}
        elif isinstance(below, dict) and isinstance(above, str):
            above = {"type": over}
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return over
    both_typed = "type" in below and "type" in above and path[-1:] != ("args",)
    if both_typed and plain(below["type"]) != plain(above["type"]):
        return over
    merged = {
        key: _merge(below[key], node, (*path, key), issues) if key in below else node
        for key, node in above.items()
    }
    # What a mapping lacks, it lacks in the file, whatever an override changed in it.
    where = base.where if over.where == COMMAND_LINE else over.where
    return Node([*(below | merged).values()] if changes_items else below | merged, where)


def _with_our_keys(tree: Node, issues: list[ConfigIssue]) -> Node:
    """Return a file's own tree, or the command line's, with the ancestor's keys under our names."""
    for theirs, ours in ANCESTORS_KEYS.items():
        if (found := _at(tree, theirs)) is None:
            continue
        where = found.where
        if also := _at(tree, ours):
            message = f"stands for {'.'.join(ours)!r}, which is given too, at {also.where}"
            issues.append(ConfigIssue(theirs, message, where))
        if theirs == ("n_gpu",):
            if not isinstance(found.value, int | None):
                message = f"expected a whole number, found {format_value(plain(found))}"
                issues.append(ConfigIssue(theirs, message, where))
            found = Node("cpu" if found.value == 0 else "auto", where)
        tree = merge(_nest(ours, found), _without(tree, theirs))
    return tree


def _at(tree: Node | None, path: Sequence[str]) -> Node | None:
    for key in path:
        tree = children(tree.value).get(key) if tree else None
    return tree


def _nest(path: Sequence[str], node: Node) -> Node:
    for key in reversed(path):
        node = Node({key: node}, node.where)
    return node


def _without(tree: Node, path: Sequence[str]) -> Node:
    key, *below = path
    rest = {key: _without(tree.value[key], below)} if below else {}
    return Node({name: node for name, node in tree.value.items() if name != key} | rest, tree.where)


def _counts_items(over: Node) -> bool:
    keys = over.value if over.where == COMMAND_LINE and isinstance(over.value, dict) else ()
    return bool(keys) and all(key.isascii() and key.isdigit() for key in keys)


class _Reader:
    """One reading of a config and of all that it extends, with the issues found on the way."""

    def __init__(self) -> None:
        self.issues: list[ConfigIssue] = []
        self.num_files = 0

    def read(self, path: Path, where: str = "", chain: tuple[Path, ...] = ()) -> Node | None:
        """Read `path`, which the last file of `chain` extends, naming it at `where`."""
        key = ("extends",) if chain else ()
        self.num_files += 1
        if self.num_files > MAX_FILES:
            issue = ConfigIssue(key, f"more than {MAX_FILES} files", where)
            raise ConfigError([*self.issues, issue])
        try:
            text = _read_text(path, chain)
        except OSError as error:
            near = _near_file(path) if isinstance(error, FileNotFoundError) else ""
            message = f"cannot read {path}: {error.strerror or error}{near}"
            self.issues.append(ConfigIssue(key, message, where))
            return None
        node = parse_text(text, str(path), self.issues)
        if node and not isinstance(node.value, dict):
            self.expect("keys with values", node, ())
            return None
        return node and self.extend(node, (*chain, path))

    def extend(self, node: Node, chain: tuple[Path, ...]) -> Node:
        """Lay what the last file of `chain` holds over the files that it extends."""
        own = node.value.copy()
        extends = own.pop("extends", Node([], ""))
        layers = []
        for said in extends.value if isinstance(extends.value, list) else [extends]:
            if isinstance(said.value, str) and said.value:
                layers.append(self.read(chain[-1].parent / said.value, said.where, chain))
            elif extends.value is not None:
                self.expect("a file or a list of files", said, ("extends",))
        own = _with_our_keys(Node(own, node.where), self.issues)
        return reduce(merge, [*filter(None, layers), own])

    def expect(self, what: str, found: Node, path: KeyPath) -> None:
        kinds = {dict: "a mapping", list: "a list", type(None): "nothing"}
        kind = kinds.get(type(found.value)) or reprlib.repr(found.value)
        self.issues.append(ConfigIssue(path, f"expected {what}, found {kind}", found.where))


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
