"""Names in a config: the project's own, torch's, and what is said of those that are neither."""

import itertools
import sys
from dataclasses import replace

import pytest
import torch

from base.errors import ConfigError
from base.registry import (
    CALLBACKS,
    DATA_LOADERS,
    DATASETS,
    INITS,
    LOSSES,
    LR_SCHEDULERS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    REGISTRIES,
    TRANSFORMS,
    WRITERS,
)

NET = "import torch\n\nclass {}(torch.nn.Module):\n    pass\n"
NUMBERS = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes files into a new package and returns its name."""

    def write(**files):
        name = f"own_{next(NUMBERS)}"
        folder = tmp_path / name
        for stem, text in {"__init__": "", **files}.items():
            path = folder / f"{stem.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return name

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def section(registry, *packages):
    places = tuple(f"{package}/**/*.py" for package in packages)
    return replace(registry, places=places, registered={})


def said_of(name, registry):
    with pytest.raises(ConfigError) as caught:
        registry.find(name)
    return str(caught.value)


def lines_of(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    return str(caught.value).splitlines()


class TestOwnThings:
    def test_are_found_in_every_file_and_folder_below(self, package):
        text = NET.format("Deep")
        name = package(
            a=NET.format("A"), parts__in__deep=text, **{".ipynb_checkpoints__in__deep": text}
        )
        models = section(MODELS, name)
        assert models.find("A").__module__ == f"{name}.a"
        assert models.find("Deep").__module__ == f"{name}.parts.deep"
        assert models.names()["Deep"] == f"{name}/parts/deep.py"

    def test_come_before_those_of_torch(self, package):
        models = section(MODELS, package(a=NET.format("Linear")))
        assert models.find("Linear") is not torch.nn.Linear
        assert models.find("ReLU") is torch.nn.ReLU

    def test_are_only_what_a_module_defines_and_names_publicly(self, package):
        text = "from torch.nn import Linear as Borrowed, Module\nclass _Hidden(Module): pass\n"
        models = section(MODELS, package(a=text, b=NET.format("Net")))
        assert list(models.own()) == ["Net"]

    def test_are_told_apart_by_exact_names_of_modules_and_folders(self, package):
        loss = "from torch import nn\nclass {}(nn.Module): pass\ndef mean_{}(a, b): return a\n"
        name = package(
            losses__in__focal=loss.format("Focal", "focal"),
            loss=loss.format("Hinge", "hinge"),
            metric=loss.format("Top", "top"),
            metric_learning=NET.format("Embedding"),
        )
        assert list(section(MODELS, name).own()) == ["Embedding"]
        assert list(section(LOSSES, name).own()) == ["Hinge", "mean_hinge", "Focal", "mean_focal"]
        assert list(section(METRICS, name).own()) == ["Top", "mean_top"]

    def test_may_be_absent_with_their_whole_package(self):
        models = section(MODELS, "own_package_that_is_not_there")
        assert models.own() == {}
        assert models.find("Linear") is torch.nn.Linear

    def test_are_registered_under_their_own_name_or_another(self):
        models = section(MODELS)

        @models.register("other")
        @models.register()
        def build():
            return torch.nn.Identity()

        assert models.find("build") is models.find("other") is build

    def test_may_be_registered_although_they_are_found_anyway(self, package):
        models = section(MODELS, package(a=NET.format("A")))
        found = models.register()(models.find("A"))
        assert models.find("A") is found

    def test_are_known_only_by_the_name_they_are_registered_under(self, package):
        text = "from base.base_writer import BaseWriter\nclass {}(BaseWriter): pass\n"
        name = package(a=text.format("SlackWriter"), b=text.format("Other"))
        writers = section(WRITERS, name)
        assert list(writers.own()) == ["SlackWriter", "Other"]
        slack = writers.register("slack")(writers.find("SlackWriter"))
        assert writers.own().keys() == {"slack", "Other"}
        assert writers.find("slack") is slack
        assert (
            said_of("SlackWriter", writers) == "unknown name 'SlackWriter' (did you mean 'slack'?)"
        )

    def test_of_one_name_are_an_error_once_it_is_asked_for(self, package):
        name = package(a=NET.format("Net"), b=NET.format("Net"), c=NET.format("Other"))
        models = section(MODELS, name)
        models.find("Other")
        expected = f"'Net' is defined twice, in {name}/a.py and {name}/b.py; rename one"
        assert said_of("Net", models) == expected

    def test_registered_twice_in_one_file_are_an_error(self):
        models = section(MODELS)
        for kind in (type("A", (), {}), type("B", (), {})):
            models.register("net")(kind)
        assert "'net' is defined twice" in said_of("net", models)

    def test_replace_what_their_module_registered_when_it_ran_before(self):
        models = section(MODELS)
        kinds = [models.register("net")(type("Net", (), {})) for _ in range(2)]
        assert models.find("net") is kinds[1]


class TestModules:
    def test_are_imported_only_for_names_that_their_sources_define_or_register(self, package):
        text = "from base.registry import MODELS\n@MODELS.register('gate')\n" + NET.format("B")
        name = package(a=NET.format("A"), b=text, c=NET.format("C") + "def A(): ...\n")
        models = section(MODELS, name)
        models.find("A"), models.find("Linear")
        assert f"{name}.b" not in sys.modules
        assert f"{name}.c" in sys.modules

    def test_are_all_imported_for_a_name_that_no_source_has(self, package):
        text = "for name in ['Left', 'Right']:\n    globals()[name] = type(name, (Module,), {})\n"
        name = package(
            a="from torch.nn import Module\n" + text.replace("{}", "{'__module__': __name__}")
        )
        assert section(MODELS, name).find("Left").__name__ == "Left"


class TestModulesThatCannotBeImported:
    def test_do_not_matter_for_names_that_others_define(self, package, caplog):
        name = package(a=NET.format("A"), b="import no_such_thing\n", c="class C(\n")
        models = section(MODELS, name)
        assert models.find("A").__name__ == "A"
        assert models.find("Linear") is torch.nn.Linear
        assert not caplog.records

    def test_are_an_error_where_their_source_has_the_name(self, package):
        name = package(
            a="import no_such_thing\n" + NET.format("Linear"),
            b="1 / 0\nMODELS.register('gate')(A)\n",
            c="class C(\n  pass\n",
        )
        find = section(MODELS, name).find
        cause = "cannot be imported: ModuleNotFoundError: No module named 'no_such_thing'"
        assert lines_of(find, "Linear") == [f"{name}/a.py:1: {cause}"]
        cause = "cannot be imported: ZeroDivisionError: division by zero"
        assert lines_of(find, "gate") == [f"{name}/b.py:1: {cause}"]
        assert lines_of(find, "C")[0].startswith(f"{name}/c.py:")

    def test_are_named_all_at_once_where_nothing_else_has_the_name(self, package):
        name = package(
            a=NET.format("A"),
            b="import torch\n\nraise RuntimeError('first\\nsecond')\n",
            c="x = 1\nclass C(\n",
            d="import no_such_thing\n",
        )
        assert lines_of(section(MODELS, name).find, "B") == [
            "unknown name 'B'",
            rf"{name}/b.py:3: cannot be imported: RuntimeError: first\nsecond",
            f"{name}/c.py:2: cannot be imported: SyntaxError: '(' was never closed",
            f"{name}/d.py:1: cannot be imported: ModuleNotFoundError: No module named "
            "'no_such_thing'",
        ]

    def test_cost_a_list_of_all_names_one_warning(self, package, caplog):
        models = section(MODELS, package(a=NET.format("A"), b="1 / 0\n"))
        for _ in range(2):
            assert list(models.own()) == ["A"]
            assert "A" in models.names()
        (record,) = caplog.records
        assert record.getMessage().endswith(
            "b.py:1: cannot be imported: ZeroDivisionError: division by zero"
        )

    def test_that_never_ran_are_named_at_their_first_line(self, package):
        name = package(a="\0")
        line = lines_of(section(MODELS, name).find, "A")[-1]
        assert line.startswith(f"{name}/a.py:1: cannot be import")

    def test_are_named_by_the_line_that_broke_and_not_by_who_imports_them(self, package):
        name = package(z="x = 1\ny = undefined\n")
        importer = package(a=f"import {name}.z\ndef A(): ...\n")
        assert lines_of(section(MODELS, importer).find, "A")[0].startswith(f"{importer}/a.py:1: ")
        both = package(a="from . import z\ndef A(): ...\n", z="x = 1\ny = undefined\n")
        cause = "cannot be imported: NameError: name 'undefined' is not defined"
        assert lines_of(section(MODELS, both).find, "A") == [f"{both}/z.py:2: {cause}"]

    def test_run_once(self, package, capsys):
        models = section(MODELS, package(a="print('ran')\n1 / 0\ndef A(): ...\n"))
        for _ in range(3):
            with pytest.raises(ConfigError, match="ZeroDivisionError"):
                models.find("A")
        assert capsys.readouterr().out == "ran\n"


class TestTorchsThings:
    @pytest.mark.parametrize(
        ("registry", "known", "unknown"),
        [
            (MODELS, "resnet18", "ResNet"),
            (MODELS, "Sequential", "Module"),
            (LOSSES, "cross_entropy", "relu"),
            (LOSSES, "CrossEntropyLoss", "Linear"),
            (METRICS, "MulticlassF1Score", "Metric"),
            (OPTIMIZERS, "LBFGS", "Optimizer"),
            (LR_SCHEDULERS, "ReduceLROnPlateau", "LRScheduler"),
            (DATASETS, "FashionMNIST", "VisionDataset2"),
            (TRANSFORMS, "RandomCrop", "InterpolationMode"),
            (INITS, "kaiming_normal_", "calculate_gain"),
            (DATA_LOADERS, "BaseDataLoader", "DataLoader"),
        ],
    )
    def test_are_only_those_of_the_right_kind(self, registry, known, unknown):
        assert registry.find(known).__name__ == known
        assert said_of(unknown, registry).startswith(f"unknown name {unknown!r}")

    def test_hold_every_functional_loss(self):
        sources = list(section(LOSSES).names().values())
        assert sources.count("torch.nn.functional") == 22

    @pytest.mark.parametrize("name", ["os.system", "logging.os.system", "torch.hub.load", "os"])
    def test_are_never_reached_by_a_dotted_path(self, name):
        for registry in REGISTRIES.values():
            assert said_of(name, registry) == f"unknown name {name!r}"

    @pytest.mark.parametrize("name", ["", "_reduction", "__builtins__", "__name__", "x" * 100_000])
    def test_are_not_the_private_parts_of_a_module(self, name):
        assert said_of(name, LOSSES).startswith("unknown name ")
        assert len(said_of(name, LOSSES)) < 80
        assert said_of("_LRScheduler", LR_SCHEDULERS).startswith("unknown name")


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "registry", "near"),
        [
            ("Adm", OPTIMIZERS, "Adam"),
            ("adamw", OPTIMIZERS, "AdamW"),
            ("torch.optim.Adam", OPTIMIZERS, "Adam"),
            ("CrossEntropy", LOSSES, "cross_entropy"),
            ("ResNet18", MODELS, "resnet18"),
        ],
    )
    def test_come_with_the_nearest_known(self, name, registry, near):
        assert said_of(name, registry) == f"unknown name {name!r} (did you mean {near!r}?)"

    def test_come_without_one_where_none_is_near(self):
        assert said_of("Foo", CALLBACKS) == "unknown name 'Foo'"


def test_every_section_can_be_listed_by_its_name():
    assert {name: registry.section for name, registry in REGISTRIES.items()} == {
        name: name for name in REGISTRIES
    }
    assert len(REGISTRIES) == 14
    assert DATA_LOADERS.names()["BaseDataLoader"].endswith("base/base_data_loader.py")
    assert OPTIMIZERS.names()["SGD"] == "torch.optim"
