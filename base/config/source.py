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

_UNREADABLE = yaml.reader.Reader.NON_PRINTABLE
_UNTEXT = re.compile("[\0\ud800-\udfff]")  # what an escape can write, and no file name can hold
# Tabs stand between the values of JSON; what YAML takes for the end of a line only inside strings.
_JSON_AS_YAML = {ord("\t"): " "} | {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}

_ADVICE = {  # what a problem of PyYAML's contains -> what the user can do about it
    r"'\t'": "found a tab where YAML takes only spaces; indent with spaces",
    "cannot start any token": "found a character that begins no value; quote the value",
    "mapping values are not": "found ': ' inside a value; quote the value or start a new line",
    "<block end>": "this does not belong to the lines above; check indentation, quotes and commas",
    "<stream end>": "the text ends too early; check brackets and quotes",
    "another document": "expected one document, found a second",
    "second occurrence": "found an anchor (&) of this name a second time",
}


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
        _check_characters(text)
        node = _compose(_json_as_yaml(text) if name.lower().endswith(".json") else text)
        value = reader.read(node, path) if node else None
    except yaml.MarkedYAMLError as error:
        reader.blame(error.problem_mark, path, _explain(error))
    if reader.issues:
        raise ConfigError(reader.issues)
    return Source(value, {path: name} | reader.positions)


def _check_characters(text: str) -> None:
    if found := _UNREADABLE.search(text):
        code, before = ord(found[0]), text[: found.start()].split("\n")
        is_byte = 0xDC80 <= code <= 0xDCFF  # as errors="surrogateescape" decodes what is no UTF-8
        name = f"byte 0x{code - 0xDC00:02X}" if is_byte else f"character U+{code:04X}"
        mark = _mark(len(before) - 1, len(before[-1]))
        raise _stop(mark, f"found the {name}, expected plain text in UTF-8")


def _check_size(mark: yaml.Mark, *, num_nodes: int, num_levels: int) -> None:
    if num_nodes > MAX_NODES:
        raise _stop(mark, f"more than {MAX_NODES:,} values, those of aliases counted each time")
    if num_levels > MAX_LEVELS:
        raise _stop(mark, f"more than {MAX_LEVELS} levels")


def _mark(line: int, column: int) -> yaml.Mark:
    return yaml.Mark("", 0, line, column, None, None)


def _stop(mark: yaml.Mark, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = next((text for sign, text in _ADVICE.items() if sign in error.problem), error.problem)
    if error.context_mark is None or not error.context.startswith("while"):
        return problem
    return f"{problem} ({error.context}, from line {error.context_mark.line + 1})"


# --- text to nodes ------------------------------------------------------------------------------


class _Composer(yaml.SafeLoader):
    """PyYAML's composer, which refuses tags, and stops where a text is too large."""

    num_nodes = num_levels = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if tag := getattr(event, "tag", None):
            tag = tag.replace("tag:yaml.org,2002:", "!!")[:40]
            message = f"expected no tag, found {tag}; quotes make a string"
            raise _stop(event.start_mark, message)
        self.num_nodes += 1  # of keys and values, while only values are counted in the end
        _check_size(event.start_mark, num_nodes=self.num_nodes // 2, num_levels=self.num_levels)
        self.num_levels += 1
        node = super().compose_node(parent, index)
        self.num_levels -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    composer = _Composer(text)
    try:
        return composer.get_single_node()
    except (ValueError, OverflowError):  # "\U99999999", or a %YAML of thousands of digits
        raise _stop(composer.get_mark(), "found a number beyond all range") from None


def _json_as_yaml(text: str) -> str:
    """Return JSON as YAML, every value at its place; as it is, some characters would differ."""
    constants: list[str] = []
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=constants.append)
    except json.JSONDecodeError as error:
        mark = _mark(error.lineno - 1, error.colno - 1)
        raise _stop(mark, f"not valid JSON: {error.msg}") from None
    except RecursionError:
        pass  # the composer says where it is nested too deep
    if constants:
        raise _stop(_mark(0, 0), f"not valid JSON: {constants[0]} is no number there")
    return text.translate(_JSON_AS_YAML)


# --- nodes to values ----------------------------------------------------------------------------


class _NodeReader:
    """Reads nodes as plain values, with their positions and with what is wrong in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.issues: list[ConfigIssue] = []
        self.positions: dict[KeyPath, str] = {}
        self.num_nodes = 0

    def blame(self, mark: yaml.Mark, path: KeyPath, message: str) -> None:
        self.issues.append(ConfigIssue(path, message, self.place(mark)))

    def place(self, mark: yaml.Mark) -> str:
        is_file = self.name != COMMAND_LINE
        return f"{self.name}:{mark.line + 1}:{mark.column + 1}" if is_file else COMMAND_LINE

    def read(self, node: yaml.Node, path: KeyPath, key_mark: yaml.Mark | None = None) -> Any:
        self.num_nodes += 1
        _check_size(node.start_mark, num_nodes=self.num_nodes, num_levels=len(path))
        self.positions[path] = self.place(key_mark or node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self.read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, str(i))) for i, item in enumerate(node.value)]
        text = self.read_text(node, path)
        try:
            return text if node.style else resolve(text)
        except ValueError as error:
            self.blame(node.start_mark, path, str(error))

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
                self.blame(mark, (*path, key), f"found this key twice, first at {first}")
            values[key] = self.read(value_node, (*path, key), mark)
        return values

    def read_text(self, node: yaml.ScalarNode, path: KeyPath) -> str:
        """Return a scalar's text, the pairs of surrogates in it joined."""
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if found := _UNTEXT.search(text):
            message = f"expected text, found the character {found[0]!a}"
            self.blame(node.start_mark, path, message)
        return text
