"""The house: who may import whom, what things are called, and how long they may be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each room, and what it may import of the project beside itself.
MAY_IMPORT = {
    "base": set(),
    "model": {"base"},
    "data_loader": {"base"},
    "logger": {"base"},
    "trainer": {"base", "model", "data_loader", "logger"},
}
SCRIPTS = ("train.py", "test.py", "new_project.py", "make_data.py")
PROJECT = {*MAY_IMPORT, *(Path(script).stem for script in SCRIPTS)}
NO_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "misc"}

LONGEST_FUNCTION = 50  # lines
LONGEST_FILE = 300  # lines


def imports(tree: ast.AST, *, inside_functions: bool = True) -> Iterator[tuple[int, str]]:
    """Yield (line, top-level module) of the absolute imports in `tree`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # for a reader and a type checker only
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, inside_functions=inside_functions)


def relative_imports_that_leave(tree: ast.AST, *, depth: int) -> Iterator[int]:
    """Yield the lines of relative imports that climb out of a package `depth` folders deep."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > depth:
            yield node.lineno


def long_functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (number of lines, name) of the functions that are too long."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = node.end_lineno - node.lineno + 1
            if num_lines > LONGEST_FUNCTION:
                yield num_lines, node.name


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def scripts() -> list[Path]:
    return [ROOT / script for script in SCRIPTS if (ROOT / script).exists()]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room):
    forbidden = PROJECT - MAY_IMPORT[room] - {room}
    wrong = [
        f"{shown(path, line)} imports {module}"
        for path in sources(room)
        for line, module in imports(parse(path))
        if module in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_leaves_itself_by_no_relative_import(room):
    wrong = [
        shown(path, line)
        for path in sources(room)
        for line in relative_imports_that_leave(
            parse(path), depth=len(path.relative_to(ROOT).parts) - 1
        )
    ]
    assert wrong == []


def test_scripts_import_only_typer_and_the_standard_library_at_their_top():
    wrong = [
        f"{shown(path, line)} imports {module}"
        for path in scripts()
        for line, module in imports(parse(path), inside_functions=False)
        if module != "typer" and (module in PROJECT or module not in sys.stdlib_module_names)
    ]
    assert wrong == []


def test_new_project_imports_nothing_of_the_project_anywhere():
    wrong = [
        module
        for path in scripts()
        if path.name == "new_project.py"
        for _, module in imports(parse(path))
        if module in PROJECT
    ]
    assert wrong == []


def test_nothing_is_called_utils_or_the_like():
    wrong = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.iterdir(), *sources(*MAY_IMPORT, "tests")]
        for part in path.relative_to(ROOT).with_suffix("").parts
        if NO_NAMES & set(part.lower().split("_"))
    ]
    assert wrong == []


def test_functions_fit_a_screen():
    wrong = [
        f"{path.relative_to(ROOT)}: {name} has {num_lines} lines"
        for path in [*sources(*MAY_IMPORT), *scripts()]
        for num_lines, name in long_functions(parse(path))
    ]
    assert wrong == []


def test_files_stay_short():
    wrong = [
        f"{path.relative_to(ROOT)} has {num_lines} lines"
        for path in [*sources(*MAY_IMPORT), *scripts()]
        if (num_lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    ]
    assert wrong == []


def test_imports_are_found_wherever_they_hide():
    tree = ast.parse(
        "import model.model as m, os\n"
        "from trainer import Trainer\n"
        "from . import loss\n"
        "if True:\n    import yaml\n"
        "def f():\n    from logger.console import Console\n"
    )
    assert list(imports(tree)) == [
        (1, "model"),
        (1, "os"),
        (2, "trainer"),
        (5, "yaml"),
        (7, "logger"),
    ]
    assert (7, "logger") not in imports(tree, inside_functions=False)


def test_a_relative_import_is_measured_against_the_depth_of_its_package():
    tree = ast.parse("from . import loss\nfrom ..trainer import Trainer\n")
    assert list(relative_imports_that_leave(tree, depth=1)) == [2]
    assert list(relative_imports_that_leave(tree, depth=2)) == []


def test_a_function_is_too_long_from_its_51st_line():
    just_fits = "def f():\n" + "    pass\n" * 49
    assert list(long_functions(ast.parse(just_fits))) == []
    assert list(long_functions(ast.parse(just_fits + "    pass\n"))) == [(51, "f")]
