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
        by_source: dict[str, list[str]] = {}
        for name, source in REGISTRIES[section].names().items():
            by_source.setdefault(source, []).append(name)
        print(f"{section}")
        for source, names in sorted(
            by_source.items(), key=lambda item: not item[0].endswith(".py")
        ):
            print(f"  {source}: {', '.join(sorted(names))}")
