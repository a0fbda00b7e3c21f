"""YAML and JSON text, read as a tree in which every value knows its place."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from base.errors import ConfigIssue

COMMAND_LINE = "command line"
MAX_LEVELS, MAX_NODES, MAX_DIGITS = 50, 10_000, 1_000

# The scalars of YAML 1.2's core schema; PyYAML's own are those of YAML 1.1 (off, 010, 1:30, dates).
_WORDS = {"null": None, "true": True, "false": False}
_WORDS |= {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
_WORDS = {case(word): _WORDS[word] for word in _WORDS for case in (str.lower, str.title, str.upper)}
_WORDS |= {"": None, "~": None, ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_JSON_TOKEN = re.compile(r'\n|[][{}]|"[^"\\]*(?:\\.[^"\\]*)*"|[^][{}\s,:"]+')
_UNREADABLE = yaml.reader.Reader.NON_PRINTABLE
_UNTEXT = re.compile("[\0\ud800-\udfff]")  # what an escape can write, and no file name can hold

_ADVICE = {  # what a problem of PyYAML's contains -> what the user can do about it
    r"'\t'": "found a tab where YAML takes only spaces; indent with spaces",
    "cannot start any token": "found a character that begins no value; quote the value",
    "mapping values are not": "found ': ' inside a value; quote the value or start a new line",
    "<block end>": "this does not belong to the lines above; check indentation, quotes and commas",
    "<stream end>": "the text ends too early; check brackets and quotes",
}


@dataclass(slots=True)
class Node:
    """A value and its place: "FILE:LINE:COLUMN", counted from 1, of its key or list item."""

    value: "dict[str, Node] | list[Node] | str | int | float | bool | None"
    where: str


def children(value: Any) -> dict[str, Node]:
    """Return what a mapping or a list holds, by key or by number; nothing for a scalar."""
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def parse_text(
    text: str, source: str, issues: list[ConfigIssue], *, path: tuple[str, ...] = ()
) -> Node | None:
    """Return the value that a text holds, as JSON where `source` ends in .json, else as YAML.

    What is wrong is added to `issues`; None is returned where reading could not go on. `path`
    holds the keys that the value stands at.
    """
    events = (_json_events if source.lower().endswith(".json") else _yaml_events)(text)
    composer = _Composer(events, source, issues)
    node = Node(None, source)
    try:
        _check_characters(text)
        for event in events:
            node = composer.compose(event, path)
    except yaml.MarkedYAMLError as error:
        composer.blame(error.problem_mark, path, _explain(error))
        return None
    return node


def _check_characters(text: str) -> None:
    if found := _UNREADABLE.search(text):
        code, before = ord(found[0]), text[: found.start()].split("\n")
        is_byte = 0xDC80 <= code <= 0xDCFF  # as errors="surrogateescape" decodes what is no UTF-8
        name = f"byte 0x{code - 0xDC00:02X}" if is_byte else f"character U+{code:04X}"
        mark = _mark(len(before) - 1, len(before[-1]))
        raise _stop(mark, f"found the {name}, expected plain text in UTF-8")


def _mark(line: int, column: int) -> yaml.Mark:
    return yaml.Mark("", 0, line, column, None, None)


def _stop(mark: yaml.Mark, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = next((text for sign, text in _ADVICE.items() if sign in error.problem), error.problem)
    if error.context_mark is None:
        return problem
    return f"{problem} ({error.context}, from line {error.context_mark.line + 1})"


def _yaml_events(text: str) -> Iterator[yaml.Event]:
    loader = yaml.SafeLoader(text)
    num_documents = 0
    try:
        while loader.check_event():
            event = loader.get_event()
            num_documents += isinstance(event, yaml.DocumentStartEvent)
            if num_documents > 1:
                raise _stop(event.start_mark, "expected one document, found a second")
            if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                yield event
    except (ValueError, OverflowError):  # "\U99999999", or a %YAML of thousands of digits
        raise _stop(loader.get_mark(), "found a number beyond all range") from None


def _json_events(text: str) -> Iterator[yaml.Event]:
    """Yield JSON as YAML's events; read as YAML, its tabs, long keys and U+2028 would differ."""
    try:
        json.loads(text if text.strip() else "null", parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        mark = _mark(error.lineno - 1, error.colno - 1)
        raise _stop(mark, f"not valid JSON: {error.msg}") from None
    except RecursionError:
        raise _stop(_mark(0, 0), f"more than {MAX_LEVELS} levels") from None
    line = line_start = 0
    for match in _JSON_TOKEN.finditer(text):
        token, mark = match[0], _mark(line, match.start() - line_start)
        if token == "\n":
            line, line_start = line + 1, match.end()
        elif token == "{":
            yield yaml.MappingStartEvent(None, None, True, mark, mark)
        elif token == "[":
            yield yaml.SequenceStartEvent(None, None, True, mark, mark)
        elif token in "]}":
            yield yaml.CollectionEndEvent(mark, mark)
        elif token[0] == '"':
            yield yaml.ScalarEvent(None, None, (False, True), json.loads(token), mark, mark, '"')
        elif token in ("NaN", "Infinity", "-Infinity"):
            raise _stop(mark, f"not valid JSON: {token} is no number there")
        else:
            yield yaml.ScalarEvent(None, None, (True, False), token, mark, mark)


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar; ValueError for a number too long or too large."""
    if text in _WORDS:
        return _WORDS[text]
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected at most {MAX_DIGITS:,} digits, found {len(text):,}")
    if is_integer:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is too large; infinity is written .inf")
    return number


class _Composer:
    """Nodes from events, counted as they come, so that no small text becomes a large tree."""

    def __init__(
        self, events: Iterator[yaml.Event], source: str, issues: list[ConfigIssue]
    ) -> None:
        self.events = events
        self.source = source
        self.issues = issues
        self.anchors: dict[str, Any] = {}
        self.num_nodes = 0

    def place(self, mark: yaml.Mark) -> str:
        if self.source == COMMAND_LINE:
            return COMMAND_LINE
        return f"{self.source}:{mark.line + 1}:{mark.column + 1}"

    def blame(self, mark: yaml.Mark, path: tuple[str, ...], message: str) -> None:
        self.issues.append(ConfigIssue(path, message, self.place(mark)))

    def compose(self, event: yaml.Event, path: tuple[str, ...], where: str = "") -> Node:
        """Return the value that `event` starts; `where` is the place of its key, if it has one."""
        where = where or self.place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return Node(self.alias(event, path), where)
        self.admit(event.start_mark, None, len(path))
        self.check_tag(event, path)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.items(path)
        else:
            value = self.entries(path)
        if event.anchor:
            self.anchors[event.anchor] = value
        return Node(value, where)

    def alias(self, event: yaml.AliasEvent, path: tuple[str, ...]) -> Any:
        if event.anchor not in self.anchors:
            message = f"found the alias *{event.anchor}, expected its &{event.anchor} to end before"
            self.blame(event.start_mark, path, message)
        value = self.anchors.get(event.anchor)
        self.admit(event.start_mark, value, len(path))
        return value

    def admit(self, mark: yaml.Mark, value: Any, depth: int) -> None:
        """Count a value with all that it already holds."""
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise _stop(mark, f"more than {MAX_NODES:,} values, those of aliases counted each time")
        if depth > MAX_LEVELS:
            raise _stop(mark, f"more than {MAX_LEVELS} levels")
        for child in children(value).values():
            self.admit(mark, child.value, depth + 1)

    def items(self, path: tuple[str, ...]) -> list[Node]:
        items = []
        while not isinstance(event := next(self.events), yaml.CollectionEndEvent):
            items.append(self.compose(event, (*path, str(len(items)))))
        return items

    def entries(self, path: tuple[str, ...]) -> dict[str, Node]:
        entries = {}
        while not isinstance(event := next(self.events), yaml.CollectionEndEvent):
            key = self.key(event, path)
            if key in entries:
                message = f"found this key twice, first at {entries[key].where}"
                self.blame(event.start_mark, (*path, key), message)
            where = self.place(event.start_mark)
            entries[key] = self.compose(next(self.events), (*path, key), where)
        return entries

    def key(self, event: yaml.Event, path: tuple[str, ...]) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _stop(event.start_mark, "expected a name, found another kind of key")
        if event.value == "<<" and not event.style:
            self.blame(event.start_mark, path, "YAML 1.2 has no merge key '<<'; write its keys out")
        self.check_tag(event, path)
        if event.anchor:
            self.anchors[event.anchor] = event.value
        return self.text(event, path)

    def scalar(self, event: yaml.ScalarEvent, path: tuple[str, ...]) -> Any:
        text = self.text(event, path)
        if event.style:
            return text
        try:
            return resolve(text)
        except ValueError as error:
            self.blame(event.start_mark, path, str(error))
            return None

    def text(self, event: yaml.ScalarEvent, path: tuple[str, ...]) -> str:
        """Return a scalar's text, the pairs of surrogates in it joined."""
        text = event.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if found := _UNTEXT.search(text):
            self.blame(event.start_mark, path, f"expected text, found the character {found[0]!a}")
        return text

    def check_tag(self, event: yaml.NodeEvent, path: tuple[str, ...]) -> None:
        if event.tag:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"expected no tag, found {tag[:40]}; quotes make a string"
            self.blame(event.start_mark, path, message)
