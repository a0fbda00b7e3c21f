"""Prints what a config can name, by section."""

from collections.abc import Sequence

from base.errors import UsageError, did_you_mean
from base.registry import REGISTRIES


def print_names(sections: Sequence[str]) -> None:
    """Print every name of the sections, or of all, with the file or module it comes from.

    Raises:
        UsageError: there is no such section.
    """
    for section in sections:
        if section not in REGISTRIES:
            known = ", ".join(REGISTRIES)
            near = did_you_mean(section, REGISTRIES)
            raise UsageError(f"no section {section!r}{near}, expected one of {known}")
    for section in sections or REGISTRIES:
        print(section)
        sources = REGISTRIES[section].names()
        own_first = sorted(dict.fromkeys(sources.values()), key=lambda s: not s.endswith(".py"))
        for source in own_first:
            print(f"  {source}: {', '.join(sorted(n for n in sources if sources[n] == source))}")
