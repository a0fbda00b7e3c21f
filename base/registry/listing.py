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
            near, known = did_you_mean(section, REGISTRIES), ", ".join(REGISTRIES)
            raise UsageError(f"no section {section!r}{near}, expected one of {known}")
    for section in sections or REGISTRIES:
        print(section)
        names = REGISTRIES[section].names()
        for source in sorted({*names.values()}, key=lambda s: (not s.endswith(".py"), s)):
            print(f"  {source}: {', '.join(sorted(n for n in names if names[n] == source))}")
