"""The house: who may import whom, what is a room, what things are called, how long they may be."""

import ast
import configparser
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ROOMS = tomllib.loads((ROOT / "rooms.toml").read_text(encoding="utf-8"))

# Each layer, and what it may import of the project beside itself.
MAY_IMPORT = {
    "base": set(),
    "model": {"base"},
    "data_loader": {"base"},
    "logger": {"base"},
    "trainer": {"base", "model", "data_loader", "logger"},
}
COUNTED = ("train.py", "test.py", "make_data.py")  # scripts that count as code of a project
SCRIPTS = (*COUNTED, "new_project.py")
PROJECT = {*MAY_IMPORT, *(Path(script).stem for script in SCRIPTS)}
NO_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "misc"}
CORE_OF = {"model": {"__init__", "loss", "metric"}, "data_loader": {"__init__"}}  # the rest: rooms

KINDS = ("code", "configs", "tests", "long_tests", "docs")  # of a room's files

LONGEST_FUNCTION = 40  # lines
LONGEST_FILE = 250  # lines
MOST_MODULES = 15  # in one folder
# Lines; the aims are 5,000 and, with all rooms, 9,000. These limits may only shrink.
LARGEST_CORE = 6_850
LARGEST_TEMPLATE = 10_400


def sources(*layers: str) -> list[Path]:
    return sorted(path for layer in layers for path in (ROOT / layer).rglob("*.py"))


def scripts(names: Iterable[str] = SCRIPTS) -> list[Path]:
    return [ROOT / script for script in names if (ROOT / script).exists()]


def code() -> list[Path]:
    return [*sources(*MAY_IMPORT), *scripts(COUNTED)]


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def files_of(room: str, *kinds: str) -> list[str]:
    """Return a room's files, relative to the root, of the kinds code, configs, tests, docs."""
    found = []
    for place in (place for kind in kinds for place in ROOMS[room].get(kind, ())):
        files = sorted((ROOT / place).rglob("*")) if place.endswith("/") else [ROOT / place]
        found += [file.relative_to(ROOT).as_posix() for file in files if file.is_file()]
    return [file for file in found if "__pycache__" not in file]


def needed(room: str) -> set[str]:
    """Return a room and all that it needs."""
    return {room}.union(*(needed(other) for other in ROOMS[room].get("needs", ())))


ROOM_OF = {file: room for room in ROOMS for file in files_of(room, "code", "configs", "docs")}


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


ROOM_OF_MODULE = {module_name(file): room for file, room in ROOM_OF.items() if file[-3:] == ".py"}


# --- reading sources ------------------------------------------------------------------------------


def imports(
    tree: ast.AST, *, inside_functions: bool = True, for_types: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of the absolute imports in `tree`: modules and what is in them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            if for_types:
                yield from imports(node, inside_functions=inside_functions)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, inside_functions=inside_functions, for_types=for_types)


def top(name: str) -> str:
    return name.partition(".")[0]


def rooms_imported(tree: ast.AST) -> Iterator[str]:
    """Yield the rooms of what is imported of rooms, for types only as well."""
    for _, name in imports(tree, for_types=True):
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        room = next((ROOM_OF_MODULE[p] for p in prefixes if p in ROOM_OF_MODULE), None)
        if room is not None:
            yield room


def rooms_named(tree: ast.AST) -> Iterator[str]:
    """Yield the rooms whose modules are named in strings, as of code that another process runs."""
    for text in strings(tree):
        for name in re.findall(r"\w+(?:\.\w+)+", text):
            if name in ROOM_OF_MODULE:
                yield ROOM_OF_MODULE[name]


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield the strings in `tree` that are no docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield from [node.value] if isinstance(node.value, str) else []


def relative_imports_that_leave(tree: ast.AST, *, depth: int) -> Iterator[int]:
    """Yield the lines of relative imports that climb out of a package `depth` folders deep."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > depth:
            yield node.lineno


def long_functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (number of lines, name) of the functions that are too long."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield length, node.name


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_imports_only_what_lies_below_it(layer):
    forbidden = PROJECT - MAY_IMPORT[layer] - {layer}
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path in sources(layer)
        for line, name in imports(parse(path))
        if top(name) in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_a_layer_leaves_itself_by_no_relative_import(layer):
    wrong = [
        shown(path, line)
        for path in sources(layer)
        for line in relative_imports_that_leave(
            parse(path), depth=len(path.relative_to(ROOT).parts) - 1
        )
    ]
    assert wrong == []


def test_commands_import_no_library_but_typer_at_their_top():
    mains = [path for path in sources("trainer") if path.name == "__main__.py"]
    wrong = [
        f"{shown(path, line)} imports {name}"
        for path in [*scripts(), *mains]
        for line, name in imports(parse(path), inside_functions=False)
        if not name.startswith(("typer.", "trainer.command.", "rooms."))
        if name not in ("typer", "trainer.command")
        if (top(name) in PROJECT or top(name) not in sys.stdlib_module_names)
    ]
    assert wrong == []


def test_new_project_imports_nothing_of_the_project_anywhere():
    names = [top(name) for _, name in imports(parse(ROOT / "new_project.py"), for_types=True)]
    assert PROJECT.isdisjoint(names)


# --- rooms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_of_a_room_are_there_and_its_own(room):
    entry = ROOMS[room]
    assert entry.keys() <= {
        *("about", "starter", "code", "configs", "tests", "long_tests", "docs", "needs", "pip"),
    }
    assert re.fullmatch(r"[A-Z`].{9,79}[^.]", entry["about"])
    assert set(entry.get("needs", ())) <= ROOMS.keys() - {room}
    for place in (p for kind in KINDS for p in entry.get(kind, ())):
        assert (ROOT / place).is_dir() if place.endswith("/") else (ROOT / place).is_file(), place
    others = {file for other in ROOMS for file in files_of(other, *KINDS) if other != room}
    assert others.isdisjoint(files_of(room, *KINDS))


def is_core(path: Path) -> bool:
    """Tell whether a file of code lies where the core is; all others belong to a room."""
    layer, *folders = path.relative_to(ROOT).with_suffix("").parts
    if layer in CORE_OF:
        return folders[-1] in CORE_OF[layer]
    if path.name == "__init__.py" and folders[0] == "callbacks":
        return True
    return layer == "base" or (len(folders) < 2 and layer != "make_data")


def test_every_file_that_is_not_of_the_core_belongs_to_a_room():
    configs = [path for path in (ROOT / "configs").rglob("*") if path.is_file()]
    files = {
        str(p.relative_to(ROOT)) for p in [*code(), *configs] if p in configs or not is_core(p)
    }
    assert files == ROOM_OF.keys()


def test_the_core_and_its_tests_import_no_room():
    of_rooms = {file for room in ROOMS for file in files_of(room, "tests", "long_tests")}
    tests = [path for layer in MAY_IMPORT for path in sources(f"tests/{layer}")]
    wrong = [
        f"{path.relative_to(ROOT)} imports of the room {room}"
        for path in [*code(), *(p for p in tests if str(p.relative_to(ROOT)) not in of_rooms)]
        if path.relative_to(ROOT).as_posix() not in ROOM_OF
        for room in rooms_imported(parse(path))
    ]
    assert wrong == []


def test_the_core_names_no_room_in_a_string():
    modules = {name for name in ROOM_OF_MODULE if "." in name}
    modules |= {name.rpartition(".")[0] for name in modules} - {
        *("model", "data_loader", "logger", "trainer", "trainer.callbacks"),
    }
    classes = {
        node.name
        for file in ROOM_OF
        if file.endswith(".py")
        for node in parse(ROOT / file).body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    }
    named = re.compile(rf"\b({'|'.join(map(re.escape, sorted(modules | classes)))})\b")
    wrong = [
        f"{path.relative_to(ROOT)} names {found[1]}"
        for path in code()
        if path.relative_to(ROOT).as_posix() not in ROOM_OF
        for text in strings(parse(path))
        if (found := named.search(text))
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_and_its_tests_import_only_the_core_and_the_rooms_it_needs(room):
    wrong = [
        f"{file} imports of the room {other}"
        for file in files_of(room, *KINDS)
        if file.endswith(".py")
        for other in {*rooms_imported(parse(ROOT / file)), *rooms_named(parse(ROOT / file))}
        if other not in needed(room)
    ]
    assert wrong == []


def test_the_rooms_that_the_reference_names_are_there():
    reference = (ROOT / "docs" / "CONFIG.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\broom `(\w+)`", reference))
    assert named >= {"sweep", "mixing", "plots"}
    assert named <= ROOMS.keys()


MODULE_OF = {"scikit-learn": "sklearn", "pyyaml": "yaml"}


def test_a_requirement_that_only_rooms_need_stands_in_each_that_imports_it():
    of_rooms = {MODULE_OF.get(pip, pip) for room in ROOMS.values() for pip in room.get("pip", ())}
    wrong = []
    for path in code():
        room = ROOM_OF.get(path.relative_to(ROOT).as_posix())
        rooms = needed(room) if room else ()
        taken = {MODULE_OF.get(p, p) for each in rooms for p in ROOMS[each].get("pip", ())}
        wrong += [
            f"{path.relative_to(ROOT)} imports {top(name)}"
            for _, name in imports(parse(path), for_types=True)
            if top(name) in of_rooms - taken
        ]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_an_extra_of_its_name_for_what_is_not_always_installed(room):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    always, extra = (
        {
            Requirement(line).name
            for line in setup.get(section, key, fallback="").split("\n")
            if line
        }
        for section, key in (("options", "install_requires"), ("options.extras_require", room))
    )
    assert set(ROOMS[room].get("pip", ())) - always == extra


# --- names and sizes ------------------------------------------------------------------------------


def test_nothing_is_called_utils_or_the_like():
    wrong = [
        str(path.relative_to(ROOT))
        for path in [*ROOT.iterdir(), *sources(*MAY_IMPORT, "tests")]
        for part in path.relative_to(ROOT).with_suffix("").parts
        if NO_NAMES & set(part.lower().split("_"))
    ]
    assert wrong == []


def test_functions_fit_a_screen():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}": f"{length} lines"
        for path in [*code(), ROOT / "new_project.py"]
        for length, name in long_functions(parse(path))
    }
    assert wrong == {}


def test_files_stay_short():
    lengths = {
        str(path.relative_to(ROOT)): num_lines(path) for path in [*code(), ROOT / "new_project.py"]
    }
    long = {file for file, length in lengths.items() if length > LONGEST_FILE}
    assert {file: lengths[file] for file in long} == {}


def test_a_folder_holds_few_modules():
    folders = {path.parent for path in sources(*MAY_IMPORT)}
    counts = {str(folder.relative_to(ROOT)): len([*folder.glob("*.py")]) for folder in folders}
    crowded = {folder for folder, count in counts.items() if count > MOST_MODULES}
    assert {folder: counts[folder] for folder in crowded} == {}


def size_of_core() -> int:
    return sum(num_lines(p) for p in code() if p.relative_to(ROOT).as_posix() not in ROOM_OF)


def size_of_template() -> int:
    return sum(map(num_lines, code()))


@pytest.mark.parametrize(
    ("measure", "limit"), [(size_of_core, LARGEST_CORE), (size_of_template, LARGEST_TEMPLATE)]
)
def test_core_and_template_stay_small(measure, limit):
    assert measure() <= limit


# --- that these tests can fail --------------------------------------------------------------------


def test_imports_are_found_wherever_they_hide():
    tree = ast.parse(
        "import model.model as m, os\n"
        "from trainer import Trainer\n"
        "from . import loss\n"
        "if True:\n    import yaml\n"
        "def f():\n    from logger.console import Console\n"
        "if TYPE_CHECKING:\n    import torch\n"
    )
    assert list(imports(tree)) == [
        (1, "model.model"),
        (1, "os"),
        (2, "trainer.Trainer"),
        (5, "yaml"),
        (7, "logger.console.Console"),
    ]
    assert (7, "logger.console.Console") not in imports(tree, inside_functions=False)
    assert (9, "torch") in imports(tree, for_types=True)


def test_rooms_are_found_in_all_forms_of_imports():
    tree = ast.parse(
        "from data_loader import datasets\n"
        "import data_loader.datasets\n"
        "from data_loader.datasets import Digits\n"
        "from data_loader import other\n"
    )
    assert list(rooms_imported(tree)) == ["digits"] * 3


def test_rooms_are_found_in_code_that_is_text():
    tree = ast.parse('run("import os, data_loader.datasets; from data_loader import x")')
    assert list(rooms_named(tree)) == ["digits"]


def test_strings_are_told_from_docstrings():
    tree = ast.parse('"""Doc."""\ndef f():\n    """Doc."""\n    return g("Unfreeze", f"a {x}")\n')
    assert list(strings(tree)) == ["Unfreeze", "a "]


def test_a_relative_import_is_measured_against_the_depth_of_its_package():
    tree = ast.parse("from . import loss\nfrom ..trainer import Trainer\n")
    assert list(relative_imports_that_leave(tree, depth=1)) == [2]
    assert list(relative_imports_that_leave(tree, depth=2)) == []


def test_a_function_is_too_long_from_its_41st_line():
    just_fits = "def f():\n" + "    pass\n" * 39
    assert list(long_functions(ast.parse(just_fits))) == []
    assert list(long_functions(ast.parse(just_fits + "    pass\n"))) == [(41, "f")]
