"""Text to values: YAML and JSON, read with the place of every value."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from base.config.scalars import resolve
from base.errors import ConfigError, ConfigIssue, KeyPath

COMMAND_LINE = "command line"
MAX_LEVELS, MAX_NODES = 50, 10_000

_UNTEXT = re.compile("[\0\ud800-\udfff]")  # what an escape can write, and no file name can hold
# JSON is YAML, but for tabs between values, and what only YAML takes for the end of a line.
_JSON_AS_YAML = {ord("\t"): " "} | {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}


@dataclass(frozen=True)
class Source:
    """Plain values, and where they were read: "FILE:LINE:COLUMN" of a key or a list item.

    The keys of a position's path are all text; a value without a position has that of the value
    that encloses it.
    """

    values: Any
    positions: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Return the place of the value at `path`, or of what encloses it as far as that exists."""
        keys = tuple(map(str, path))
        paths = (keys[:length] for length in range(len(keys), -1, -1))
        return next((self.positions[path] for path in paths if path in self.positions), "")


def parse_text(text: str, name: str, *, path: KeyPath = ()) -> Source:
    """Return the value that a text holds, as JSON where `name` ends in .json, else as YAML.

    `path` holds the keys that the value stands at; its positions have it in front.

    Raises:
        ConfigError: with every issue of the text, or with the one at which reading stopped.
    """
    reader = _NodeReader(name)
    value = None
    try:
        node = _compose(text, is_json=name.lower().endswith(".json"))
        value = reader.read(node, path) if node else None
    except yaml.MarkedYAMLError as error:
        message = ", ".join(filter(None, (error.context, error.problem)))
        reader.add_issue(error.problem_mark, path, message)
    if reader.issues:
        raise ConfigError(reader.issues)
    return Source(value, {path: name} | reader.positions)


class _Composer(yaml.SafeLoader):
    """PyYAML's composer of nodes, which refuses tags."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            message = f"expected no tag, found {tag}; quotes make a string"
            raise _stop(event.start_mark, message)
        return super().compose_node(parent, index)


def _compose(text: str, *, is_json: bool) -> yaml.Node | None:
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        raise _stop_at(found.start(), text, f"expected plain text in UTF-8, found {found[0]!a}")
    composer = _Composer(text.translate(_JSON_AS_YAML) if is_json else text)
    try:
        node = composer.get_single_node()
        if is_json:
            json.loads(text, parse_int=str)
    except RecursionError:
        raise _stop(composer.get_mark(), f"more than {MAX_LEVELS} levels") from None
    except json.JSONDecodeError as error:
        raise _stop_at(error.pos, text, f"not valid JSON: {error.msg}") from None
    except (ValueError, OverflowError):  # "\U99999999", or a %YAML of thousands of digits
        raise _stop(composer.get_mark(), "found a number beyond all range") from None
    return node


def _stop(mark: yaml.Mark, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _stop_at(index: int, text: str, problem: str) -> yaml.MarkedYAMLError:
    before = text[:index].split("\n")
    return _stop(yaml.Mark("", 0, len(before) - 1, len(before[-1]), None, None), problem)


class _NodeReader:
    """Reads nodes as plain values, with their positions and with what is wrong in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.issues: list[ConfigIssue] = []
        self.positions: dict[KeyPath, str] = {}

    def add_issue(self, mark: yaml.Mark, path: KeyPath, message: str) -> None:
        self.issues.append(ConfigIssue(path, message, self.place(mark)))

    def place(self, mark: yaml.Mark) -> str:
        is_file = self.name != COMMAND_LINE
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}" if is_file else COMMAND_LINE

    def read(self, node: yaml.Node, path: KeyPath, key_mark: yaml.Mark | None = None) -> Any:
        if len(path) > MAX_LEVELS:
            raise _stop(node.start_mark, f"more than {MAX_LEVELS} levels")
        if len(self.positions) == MAX_NODES:
            message = f"more than {MAX_NODES:,} values, those of aliases counted each time"
            raise _stop(node.start_mark, message)
        self.positions[path] = self.place(key_mark or node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self.read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, str(i))) for i, item in enumerate(node.value)]
        text = self.read_text(node, path)
        try:
            return text if node.style else resolve(text)
        except ValueError as error:
            self.add_issue(node.start_mark, path, str(error))

    def read_mapping(self, mapping: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in mapping.value:
            mark = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                raise _stop(mark, "expected a name, found another kind of key")
            if key_node.value == "<<" and not key_node.style:
                raise _stop(mark, "YAML 1.2 has no merge key '<<'; write its keys out")
            key = self.read_text(key_node, path)
            if key in values:
                first = self.positions[*path, key]
                self.add_issue(mark, (*path, key), f"found this key twice, first at {first}")
            else:
                values[key] = self.read(value_node, (*path, key), mark)
        return values

    def read_text(self, node: yaml.ScalarNode, path: KeyPath) -> str:
        """Return a scalar's text, the pairs of surrogates in it joined."""
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if found := _UNTEXT.search(text):
            message = f"expected text, found the character {found[0]!a}"
            self.add_issue(node.start_mark, path, message)
        return text
