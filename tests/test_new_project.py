"""new_project.py: a whole project or none, under a name that serves everywhere."""

import configparser
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import new_project
from new_project import ProjectError, add_rooms, create_project
from rooms import choose_rooms, project_files, read_rooms, read_template

ROOT = Path(__file__).resolve().parent.parent
ROOMS = """# what each key means

[stay]
about = "Comes with every project"
starter = true
code = ["trainer/stay/"]
long_tests = ["tests/trainer/stay/test_long.py"]
tests = ["tests/trainer/stay/"]

[search]
about = "Searches"
code = ["trainer/search/"]
tests = ["tests/trainer/search/"]
needs = ["paper"]
pip = ["optuna"]

[other]
about = "Does something else"
code = ["trainer/other/"]
tests = ["tests/trainer/other/"]

[paper]
about = "Draws"
code = ["logger/paper.py"]
"""
LONG_TESTS = 'long_tests = ["tests/trainer/stay/test_long.py"]\n'
SETUP = """[metadata]
name = the-template
version = 0.1.0

[options.extras_require]
search =
    optuna >= 4
dev =
    pytest >= 9.0
    optuna >= 4
"""
SETUP_OF_PROJECT = b"""[metadata]
name = my-project2
version = 0.1.0

[options.extras_require]
dev =
    pytest >= 9.0
"""
NEXT = "  cd {path}\n  make demo\n  .venv/bin/python train.py -c digits.yaml\n"


def write(path, text="x\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def snapshot(folder):
    """Map everything below `folder` to its contents, its target (a link) or None (a folder)."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def template(tmp_path):
    """A small template with all that a project needs, under tmp_path/template."""
    root = tmp_path / "template"
    write(root / "model" / "vision" / "unet.py", "UNET = 1\n")
    write(root / "configs" / "vision" / "cifar.yml", "name: cifar\n")
    for layer in ("base", "model", "data_loader", "logger", "trainer"):
        write(root / layer / "__init__.py", f"# {layer}\n")
    for file in ("conftest", "test_template", "project/test_owner", "trainer/conftest"):
        write(root / "tests" / f"{file}.py", f"# {file}\n")
    for room in ("stay", "search", "other"):
        write(root / "trainer" / room / "__init__.py", f"# {room}\n")
        write(root / "tests" / "trainer" / room / f"test_{room}.py", f"# test of {room}\n")
    write(root / "logger" / "paper.py", "# needed by the search\n")
    write(root / "rooms.toml", ROOMS)
    write(root / "requirements.txt", "# pins\ntorch==2\noptuna==5\n")
    write(root / "Makefile", "a:\n# template only\nb:\n# end\n\nc:\n")
    write(root / "configs" / "digits.yaml", "# python train.py -c digits.yaml\nname: digits\n")
    write(root / "configs" / "config.json", '{\n\t"name": "Mnist",\n\t"arch": {"name": "x"}\n}\n')
    for name in ("train.py", "test.py", "LICENSE", ".gitignore", ".github/ci.yml"):
        write(root / name, f"# {name}\n")
    write(root / "setup.cfg", SETUP)
    write(root / "docs" / "PROJECT_README.md", "# {name}\nsaved/{name}_digits\n")
    for name in ("new_project.py", "rooms.py"):
        shutil.copy(ROOT / name, root)
    return root


@pytest.fixture
def desk(tmp_path):
    """An empty folder to create projects in."""
    folder = tmp_path / "desk"
    folder.mkdir()
    return folder


def run(template, *arguments, cwd, **options):
    """Run the template's own new_project.py, alone, as a user does."""
    return subprocess.run(
        [sys.executable, template / "new_project.py", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
        **options,
    )


def clean_environment():
    """The environment without what this test run measures itself with."""
    ours = ("COV", "PYTEST", "PYTHONPATH", "MAKE", "MFLAGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def refusal(target, template):
    """The error that creating `target` ends in."""
    with pytest.raises(ProjectError) as caught:
        create_project(Path(target), template=template)
    assert "\n" not in str(caught.value)
    return caught.value


# --- what a project gets ---------------------------------------------------------------------


def test_a_project_gets_the_core_the_starter_rooms_and_tests_of_its_own(template, desk):
    create_project(desk / "my_project", template=template)
    found = snapshot(desk / "my_project")
    assert {path for path, content in found.items() if content is not None} == {
        *("base/__init__.py", "configs/config.json", "configs/digits.yaml", "train.py", "test.py"),
        *("configs/vision/cifar.yml", "model/__init__.py", "model/vision/unet.py", "rooms.toml"),
        *("data_loader/__init__.py", "logger/__init__.py", "trainer/__init__.py", "README.md"),
        *("trainer/stay/__init__.py", "tests/trainer/stay/test_stay.py", "tests/test_owner.py"),
        *("tests/conftest.py", "tests/trainer/conftest.py", "Makefile", "LICENSE", ".gitignore"),
        *(".github/ci.yml", "requirements.txt", "setup.cfg", ".template.zip"),
    }


def test_requirements_makefile_and_list_of_rooms_name_only_what_is_there(template, desk):
    create_project(desk / "small", template=template)
    small = snapshot(desk / "small")
    assert small["requirements.txt"] == b"# pins\ntorch==2\n"
    assert b"search" not in small["setup.cfg"] + small["rooms.toml"]
    assert small["setup.cfg"].endswith(b"\n[options.extras_require]\ndev =\n    pytest >= 9.0\n")
    assert small["Makefile"] == b"a:\nc:\n"
    assert list(tomllib.loads(small["rooms.toml"].decode())) == ["stay"]
    create_project(desk / "large", ["search"], template=template)
    large = snapshot(desk / "large")
    assert b"optuna" in large["requirements.txt"]
    assert large["setup.cfg"].count(b"optuna >= 4") == 2
    assert list(tomllib.loads(large["rooms.toml"].decode())) == ["stay", "search", "paper"]


def test_rooms_come_with_those_they_need_and_all_means_all(template, desk):
    create_project(desk / "one", ["search"], template=template)
    one = snapshot(desk / "one")
    assert {"trainer/search/__init__.py", "logger/paper.py"} < one.keys()
    assert "trainer/other/__init__.py" not in one
    create_project(desk / "every", ["all"], template=template)
    every = tomllib.loads((desk / "every" / "rooms.toml").read_text())
    assert every == tomllib.loads(ROOMS.replace(LONG_TESTS, ""))


def test_an_unknown_room_is_answered_with_the_nearest_and_nothing_is_created(template, desk):
    result = run(template, "my_project", "--with", "other,serch", cwd=desk)
    assert result.returncode == 2
    assert result.stderr == "no room 'serch' (did you mean 'search'?); --list-rooms lists them\n"
    assert snapshot(desk) == {}


def test_the_rooms_are_listed_with_their_size(template, desk):
    result = run(template, "--list-rooms", cwd=desk)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "* stay            1 lines  Comes with every project",
        "  search          1 lines  Searches",
        "  other           1 lines  Does something else",
        "  paper           1 lines  Draws",
        "* comes with every project",
    ]


# --- the record, and rooms added later -------------------------------------------------------


def test_the_record_holds_the_files_as_created_and_their_origin(template, desk):
    create_project(desk / "my_project", ["search"], template=template)
    found = snapshot(desk / "my_project")
    with zipfile.ZipFile(desk / "my_project" / ".template.zip") as record:
        origin = json.loads(record.read("template.json"))
        files = {name: record.read(name) for name in record.namelist() if name != "template.json"}
    assert origin["rooms"] == ["stay", "search", "paper"]
    assert (origin["name"], origin["version"]) == ("my_project", "0.1.0")
    assert re.fullmatch("[0-9a-f]{64}", origin["hash"])
    created = {path: content for path, content in found.items() if content is not None}
    assert files == {path: created[path] for path in created if path != ".template.zip"}


def test_two_projects_of_one_template_have_the_same_record_but_for_the_name(template, desk):
    for folder in ("a", "b"):
        (desk / folder).mkdir()
        create_project(desk / folder / "same", template=template)
    first, second = ((desk / f / "same" / ".template.zip").read_bytes() for f in "ab")
    assert first == second


@pytest.fixture
def project(template, desk):
    create_project(desk / "my_project", template=template)
    return desk / "my_project"


def test_added_rooms_give_what_a_new_project_with_them_has(template, desk, project):
    write(project / "model" / "mine.py", "MINE = 1\n")
    write(project / "train.py", "# changed by the owner\n")
    result = run(template, "my_project", "--add", "search", cwd=desk)
    assert result.returncode == 0, result.stderr
    assert "\ntrainer/search/__init__.py\nmy_project has search now\n" in result.stdout
    found = snapshot(project)
    (desk / "whole").mkdir()
    create_project(desk / "whole" / "my_project", ["search"], template=template)
    whole = snapshot(desk / "whole" / "my_project")
    assert found.pop("model/mine.py") == b"MINE = 1\n"
    assert found.pop("train.py") == b"# changed by the owner\n"
    whole.pop("train.py")
    assert found == whole


def test_what_to_do_after_a_room_was_added_is_said(template, desk):
    write(template / "requirements-dev.txt", "-r requirements.txt\noptuna==5\n")
    write(template / "requirements.txt", "torch==2\n")
    create_project(desk / "my_project", template=template)
    first, second = (run(template, "my_project", "--add", "search,other", cwd=desk) for _ in "ab")
    install = ".venv/bin/python -m pip install -r requirements-dev.txt"
    next_step = f"my_project has search, other now\nNext:\n  cd my_project\n  {install}\n"
    assert first.stdout.endswith(next_step)
    assert second.stdout == "my_project has search, other already\n"


def test_a_room_that_was_deleted_stays_so_until_it_is_added_again(template, project):
    for folder in ("trainer/stay", "tests/trainer/stay"):
        shutil.rmtree(project / folder)
    rooms = (project / "rooms.toml").read_text()
    write(project / "rooms.toml", rooms[: rooms.index("\n[stay]")])
    add_rooms(project, ["other"], template=template)
    assert not (project / "trainer" / "stay").exists()
    assert list(tomllib.loads((project / "rooms.toml").read_text())) == ["other"]
    back = {"trainer/stay/__init__.py", "tests/trainer/stay/test_stay.py"}
    assert back <= set(add_rooms(project, ["stay"], template=template))
    assert list(tomllib.loads((project / "rooms.toml").read_text())) == ["other", "stay"]


@pytest.mark.parametrize("file", ["requirements.txt", "trainer/search/__init__.py"])
def test_a_room_is_not_added_over_what_was_changed(template, project, file):
    write(project / file, "# mine\n")
    before = snapshot(project)
    with pytest.raises(ProjectError, match=f"{file} was changed: no room can be added over it"):
        add_rooms(project, ["search"], template=template)
    assert snapshot(project) == before


def test_a_room_is_not_added_from_another_version_of_the_template(template, project):
    write(template / "trainer" / "other" / "__init__.py", "# newer\n")
    before = snapshot(project)
    with pytest.raises(ProjectError, match=r"was made by version 0\.1\.0 \(.{8}\) of the template"):
        add_rooms(project, ["search"], template=template)
    assert snapshot(project) == before


@pytest.mark.parametrize("content", [None, b"no zip", b""])
def test_rooms_are_added_to_a_project_alone(template, project, content):
    (project / ".template.zip").unlink()
    if content is not None:
        (project / ".template.zip").write_bytes(content)
    with pytest.raises(ProjectError, match=r"is no project with a \.template\.zip") as caught:
        add_rooms(project, ["search"], template=template)
    assert "Errno" not in str(caught.value)
    assert caught.value.exit_code == 2
    with pytest.raises(ProjectError, match="no room 'serch'"):
        add_rooms(project, ["serch"], template=template)


# --- what stays behind -----------------------------------------------------------------------


def test_data_runs_caches_history_and_other_projects_stay_behind(template, desk):
    create_project(desk / "before", template=template)
    for path in (
        *("data/MNIST/raw/images", "saved/digits/1/config.yaml", ".git/HEAD", ".venv/pyvenv.cfg"),
        *("benchmarks/loop.py", "docs/other.md", "README.md", "notes.txt", ".env", "wandb/x.json"),
        *("model/__pycache__/model.py", "model/model.pyc", "model/_c.so", "model/weights.pth"),
        *("model/.ipynb_checkpoints/model.py", "configs/saved/run/config.yaml", "tests/.DS_Store"),
        *("tests/test_new_project.py", "other/setup.cfg", "other/train.py", "other/model/model.py"),
    ):
        write(template / path)
    create_project(desk / "after", template=template)
    assert set(snapshot(desk / "after")) == set(snapshot(desk / "before"))


def test_links_in_the_template_are_neither_followed_nor_copied(template, desk, tmp_path):
    write(tmp_path / "secrets" / "key.py", "KEY = 1\n")
    (template / "model" / "key.py").symlink_to(tmp_path / "secrets" / "key.py")
    (template / "model" / "secrets").symlink_to(tmp_path / "secrets")
    (template / "model" / "round").symlink_to(template)
    (template / "docs" / "CONFIG.md").symlink_to(tmp_path / "secrets" / "key.py")
    (template / "requirements.txt").unlink()
    (template / "requirements.txt").symlink_to("nowhere")
    os.mkfifo(template / "model" / "pipe.py")
    create_project(desk / "my_project", template=template)
    copied = snapshot(desk / "my_project")
    assert "model/__init__.py" in copied
    assert not [
        path for path in copied if re.search("key|secrets|round|CONFIG|requirem|pipe", path)
    ]


@pytest.mark.parametrize("part", ["base", "docs/PROJECT_README.md"])
@pytest.mark.parametrize("is_linked", [False, True])
def test_an_incomplete_template_is_named(template, desk, part, is_linked):
    (template / part).rename(template / "hidden")
    if is_linked:  # what lies behind a link does not count
        (template / part).symlink_to(template / "hidden")
    error = refusal(desk / "my_project", template)
    assert str(error) == f"the template is incomplete: it has no {part!r} in {template}"
    assert snapshot(desk) == {}


def test_modes_are_those_of_new_files(template, desk):
    (template / "train.py").chmod(0o444)
    create_project(desk / "my_project", template=template)
    assert (desk / "my_project/train.py").stat().st_mode & 0o300 == 0o200
    (desk / "usual").mkdir()
    assert (desk / "my_project").stat().st_mode == (desk / "usual").stat().st_mode


# --- the name --------------------------------------------------------------------------------


def test_the_name_is_set_in_setup_cfg_readme_and_configs(template, desk):
    create_project(desk / "my-project2", template=template)
    copied = snapshot(desk / "my-project2")
    assert copied["setup.cfg"] == SETUP_OF_PROJECT
    assert copied["README.md"] == b"# my-project2\nsaved/my-project2_digits\n"
    assert copied["configs/digits.yaml"].endswith(b"\nname: my-project2_digits\n")
    assert copied["configs/vision/cifar.yml"] == b"name: my-project2_cifar\n"
    assert copied["configs/config.json"] == (
        b'{\n\t"name": "my-project2_Mnist",\n\t"arch": {"name": "x"}\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: 'digits' # runs\n", "name: 'p1_digits' # runs\n"),
        ('name:   "digits"\n', 'name:   "p1_digits"\n'),
        ("metrics:\n  - {type: top_k, name: top5}\n", "metrics:\n  - {type: top_k, name: top5}\n"),
        ("model:\n  name: a\n", "model:\n  name: a\n"),
        ("extends: digits.yaml\r\nname: wide\r\n", "extends: digits.yaml\r\nname: p1_wide\r\n"),
    ],
)
def test_only_the_name_of_the_config_itself_is_changed(template, desk, text, expected):
    (template / "configs" / "digits.yaml").write_bytes(text.encode())
    create_project(desk / "p1", template=template)
    assert (desk / "p1/configs/digits.yaml").read_bytes() == expected.encode()


@pytest.mark.parametrize("name", ["a", "7", "my_project", "My-Project-2", "3d_gan", "x" * 64])
def test_good_names_are_taken(template, desk, name):
    create_project(desk / name, template=template)
    assert (desk / name / "train.py").is_file()


NO_NAMES = [
    *("", ".", "..", "...", "-", "-rf", "--help", "--config=x", "_private", "trailing-", ".hidden"),
    *(
        "dotted.name",
        "a b",
        " ",
        "tab\tname",
        "line\nname",
        "newline\n",
        "nul\0byte",
        "\x1b[31mred",
    ),
    *(
        "a;rm -rf .",
        "$(touch x)",
        "`touch x`",
        "a|b",
        "*",
        "~",
        "a\\b",
        "c:project",
        "{name}",
        "%s",
    ),
    *(r"\g<1>", "a=b", "a#b", "'quoted'", "caf\u00e9", "\u0661\u0662", "\U0001f525", "\udcff"),
    *("t\u043erch", "\uff54orch", "zero\u200bwidth", "right\u202eleft", "x" * 65, "x" * 100_000),
]
TAKEN = [
    *(
        "class",
        "None",
        "torch",
        "Torch",
        "PIL",
        "base",
        "new_project",
        "new-project",
        "scikit-learn",
    ),
    *("os", "test", "JSON", "con", "LPT1"),
]


@pytest.mark.parametrize("name", [*NO_NAMES, *TAKEN], ids=lambda name: ascii(name)[:20])
def test_a_bad_name_is_refused_and_nothing_is_written(template, desk, tmp_path, name):
    before = snapshot(tmp_path)
    with pytest.raises(ProjectError) as caught:
        new_project.check_name(name)
    reason = "is also a keyword, module or device" if name in TAKEN else "is no name for a project"
    assert reason in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
    if name not in ("", "."):  # as the last part of a path, these two are no part at all
        assert refusal(desk / name, template).exit_code == 2
    assert snapshot(tmp_path) == before


# --- the place -------------------------------------------------------------------------------


def test_a_path_may_lead_anywhere_that_exists(template, desk, monkeypatch):
    (desk / "a").mkdir()
    monkeypatch.chdir(desk / "a")
    create_project(Path("../one"), template=template)
    create_project(Path("../a/../two/"), template=template)
    (desk / "three").mkdir()  # an empty folder is filled
    create_project(desk / "three", template=template)
    (desk / "link").symlink_to("a")
    create_project(desk / "link" / "four", template=template)
    assert {path.parent for path in desk.rglob("train.py")} == {
        desk / place for place in ("one", "two", "three", "a/four")
    }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere/my_project", "'nowhere' is no folder: create it first"),
        ("nowhere/../my_project", "'nowhere/..' is no folder"),
        ("file/my_project", "'file' is no folder"),
        ("nul\0byte/my_project", r"is no folder"),
        ("x" * 5000 + "/my_project", "is no folder"),
        ("loop/my_project", "'loop' is no folder"),
        ("full", "'full' exists already"),
        ("file", "'file' exists already"),
        ("pipe", "'pipe' exists already"),
        ("link", "'link' exists already"),
        ("dangling", "'dangling' exists already"),
        ("loop", "'loop' exists already"),
    ],
)
def test_a_bad_place_is_refused_and_left_as_it_was(template, desk, monkeypatch, path, reason):
    monkeypatch.chdir(desk)
    write(desk / "full" / "thesis.txt")
    write(desk / "file")
    os.mkfifo(desk / "pipe")
    (desk / "empty").mkdir()
    (desk / "link").symlink_to("empty")
    (desk / "dangling").symlink_to("nowhere")
    (desk / "loop").symlink_to("loop")
    before = snapshot(desk)
    error = refusal(path, template)
    assert reason in str(error)
    assert error.exit_code == 2
    assert snapshot(desk) == before


def test_a_project_may_lie_in_the_templates_folder_but_not_in_its_code(template, monkeypatch):
    monkeypatch.chdir(template)
    create_project(Path("first"), template=template)
    create_project(Path("second"), template=template)
    assert set(snapshot(template / "first")) == set(snapshot(template / "second"))
    for place in ("model/third", "first/../tests/third", "configs/third"):
        assert "inside the template's own code" in str(refusal(place, template))


# --- all or nothing --------------------------------------------------------------------------


@pytest.fixture(params=["write_file", "replace"])
def fail(request, monkeypatch):
    """A function that lets the third file's copy, or the last step, raise what it gets."""

    def fail_with(failure):
        calls = []
        original = new_project.write_file

        def stand_in(*arguments):
            calls.append(arguments)
            if request.param == "replace" or len(calls) == 3:
                raise failure
            original(*arguments)

        module = os if request.param == "replace" else new_project
        monkeypatch.setattr(module, request.param, stand_in)

    return fail_with


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interrupted_copy_leaves_nothing(template, desk, fail, failure):
    fail(failure)
    with pytest.raises(failure):
        create_project(desk / "my_project", template=template)
    assert snapshot(desk) == {}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_full_disk_ends_with_code_4_and_leaves_what_was_there(template, desk, fail, is_there):
    if is_there:
        (desk / "my_project").mkdir()
    before = snapshot(desk)
    fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.py"))
    error = refusal(desk / "my_project", template)
    assert error.exit_code == 4
    assert f"{str(desk / 'my_project')!r} cannot be created" in str(error)
    assert "No space left on device" in str(error)
    assert snapshot(desk) == before


def test_a_target_that_someone_fills_meanwhile_is_not_overwritten(template, desk, monkeypatch):
    (desk / "my_project").mkdir()
    monkeypatch.setattr(
        new_project, "write_record", lambda *_: write(desk / "my_project" / "thesis.txt")
    )
    assert refusal(desk / "my_project", template).exit_code == 4
    assert snapshot(desk) == {"my_project": None, "my_project/thesis.txt": b"x\n"}


def test_a_place_that_cannot_be_written_ends_with_code_4(template):
    if not Path("/proc/self").is_dir():
        pytest.skip("needs Linux's /proc, which not even root can write into")
    error = refusal("/proc/my_project", template)
    assert error.exit_code == 4
    assert "'/proc/my_project' cannot be created" in str(error)


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "my files/"])
def test_the_command_says_what_to_type_next(template, desk, parent):
    (desk / "my files").mkdir()
    result = run(template, parent + "my_project", cwd=desk)
    assert (result.returncode, result.stderr) == (0, "")
    path = "'my files/my_project'" if parent else "my_project"
    assert result.stdout == f"{parent}my_project is ready. Next:\n" + NEXT.format(path=path)
    assert (desk / parent / "my_project/train.py").is_file()


@pytest.mark.parametrize("name", ["../full", "a/../b", "torch", "x y", "", "..", "new\nline"])
def test_the_command_refuses_on_one_line_with_code_2(template, desk, tmp_path, name):
    write(tmp_path / "full" / "thesis.txt")
    before = snapshot(tmp_path)
    result = run(template, name, cwd=desk)
    assert result.returncode == 2
    assert re.fullmatch(r"[^\n]+\n", result.stderr)
    assert result.stdout == ""
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("a", "b"), 2),
        (("--hlep",), 2),
        (("--", "--help"), 2),
        (("--help",), 0),
        (("-h",), 0),
        ((".",), 2),
    ],
)
def test_wrong_usage_ends_with_code_2_and_help_with_none(template, desk, arguments, code):
    result = run(template, *arguments, cwd=desk)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    assert ("Its name, or a path" in result.stdout) == (code == 0)
    assert ("\n  python new_project.py ../my_project\n" in result.stdout) == (code == 0)
    assert ("NAME is missing" in result.stderr) == (arguments in ((), (".",)))
    assert snapshot(desk) == {}


def test_a_disk_that_takes_no_more_ends_the_command_with_code_4(template, desk):
    write(template / "model" / "large.py", "#" * 100_000)
    result = run(
        template,
        "my_project",
        cwd=desk,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert result.returncode == 4
    assert re.fullmatch(r"'my_project' cannot be created: .*File too large.*\n", result.stderr)
    assert snapshot(desk) == {}


SLOWLY = """
import time
import typer
import new_project

write_file = new_project.write_file

def write_slowly(path, content):
    print("writing", flush=True)
    time.sleep(0.1)
    write_file(path, content)

new_project.write_file = write_slowly
typer.run(new_project.main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_nothing_left(template, desk, number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "my_project"],
        cwd=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment() | {"PYTHONPATH": str(template)},
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    process.send_signal(number)  # by one who cannot wait
    output, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "is ready" not in output
    assert error == "stopped before the project was ready\n"
    assert snapshot(desk) == {}


# --- the real template -----------------------------------------------------------------------


def test_the_real_setup_cfg_and_readme_take_the_name(tmp_path):
    create_project(tmp_path / "my_project")
    setup = configparser.ConfigParser()
    setup.read(tmp_path / "my_project" / "setup.cfg")
    assert setup["metadata"]["name"] == "my_project"
    readme = (tmp_path / "my_project" / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# my_project\n")
    assert "{name}" not in readme


def num_lines(files, *, tests):
    python = [path for path in files if path.endswith(".py")]
    return sum(
        len(files[path].splitlines()) for path in python if path.startswith("tests/") == tests
    )


@pytest.fixture(scope="module")
def default_files():
    """The files of a project with the starter rooms, package markers of one line aside."""
    template = read_template(ROOT)
    files = project_files(template, choose_rooms(read_rooms(template), ()), "mine")
    core = project_files(template, [], "mine")
    return [
        {
            path: content
            for path, content in each.items()
            if not (path.endswith("/__init__.py") and len(content.splitlines()) == 1)
        }
        for each in (files, core)
    ]


def test_a_default_project_is_small(default_files):
    files, core = default_files
    assert num_lines(files, tests=False) <= num_lines(core, tests=False) + 1_000
    assert num_lines(files, tests=True) <= 1_500
    assert len(files) + 1 <= 100  # and the record


def test_the_readme_of_a_project_names_what_is_in_it_and_a_short_spine():
    readme = (ROOT / "docs" / "PROJECT_README.md").read_text(encoding="utf-8")
    template = read_template(ROOT)
    files = project_files(template, choose_rooms(read_rooms(template), ()), "mine")
    named = re.findall(r"`([a-z_/]+/[a-z_]+\.(?:py|md)|train\.py)`", readme)
    assert {path for path in named if path not in files} == set()
    spine = readme.partition("The spine")[2].partition("\n\n| to see how")[0]
    paths = re.findall(r"^\| `(\S+\.py)` \|", spine, flags=re.MULTILINE)
    assert len(paths) >= 6
    assert sum(len(files[path].splitlines()) for path in paths) <= 1_200
    for path, name in re.findall(r"`(\S+\.py)`: `(\w+)`", readme):
        assert f"def {name}(".encode() in files[path]


@pytest.mark.slow
def test_a_real_project_trains_tests_and_passes_its_own_tests(tmp_path):
    project = tmp_path / "my_project"
    command = [sys.executable, ROOT / "new_project.py", project]
    subprocess.run(command, check=True)  # the one process here whose coverage counts
    readme = (project / "README.md").read_text(encoding="utf-8")
    write(project / "trainer" / "count" / "__init__.py", "")
    own_command = readme.partition("```python\n")[2].partition("```")[0]
    write(project / "trainer" / "count" / "__main__.py", own_command)
    for command in (
        ["train.py", "-c", "digits.yaml", "trainer.epochs=1", "trainer.limit_batches=2"],
        ["test.py", "-r", "saved/my_project_digits"],
        ["-m", "trainer.count", "-c", "digits.yaml"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider"],
    ):
        result = subprocess.run(
            [sys.executable, *command],
            cwd=project,
            capture_output=True,
            text=True,
            env=clean_environment(),
            check=False,
        )
        assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert list(project.glob("saved/my_project_digits/*/checkpoints/model_best.pth"))
