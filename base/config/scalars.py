"""The scalars of YAML 1.2's core schema, read and written; PyYAML's own are those of YAML 1.1."""

import math
import re
from typing import Any

import yaml

MAX_DIGITS = 1_000

_WORDS = {"null": None, "true": True, "false": False}
_WORDS |= {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
_WORDS = {case(word): _WORDS[word] for word in _WORDS for case in (str.lower, str.title, str.upper)}
_WORDS |= {"": None, "~": None, ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


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


class _Dumper(yaml.SafeDumper):
    """Leaves without quotes only what `resolve` reads as the same value."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode or not implicit[0]:
            return super().resolve(kind, value, implicit)
        try:
            name = "merge" if value == "<<" else type(resolve(value)).__name__
        except ValueError:  # it looks like a number, and is none
            name = "float"
        return f"tag:yaml.org,2002:{name.replace('NoneType', 'null')}"

    def choose_scalar_style(self) -> str:
        return super().choose_scalar_style() if self.event.value.isprintable() else '"'

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(value: Any) -> str:
    """Return a value of mappings, lists and scalars as YAML that is read back as the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
