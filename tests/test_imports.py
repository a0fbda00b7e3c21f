"""What a command imports: of the libraries that take long, those that the config names."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torchvision", "torchmetrics", "sklearn", "pandas", "matplotlib", "tensorboard", "sympy"}
HEAVY |= {"wandb"}
LOOK = f"""
import json, sys, train
try:
    train.app()
except SystemExit as end:
    print(json.dumps([end.code, sorted({HEAVY | {"torch"}} & sys.modules.keys())]))
"""
DIGITS = ("-c", "digits.yaml", "--check")


@pytest.fixture
def imported(project_root):
    """A function that returns a command's exit code and the heavy libraries that it imported."""

    def look(*args):
        ended = subprocess.run(
            [sys.executable, "-c", LOOK, *args], cwd=project_root, capture_output=True, text=True
        )
        code, names = json.loads(ended.stdout.splitlines()[-1])
        return code, set(names)

    return look


def test_help_imports_none_of_them_and_no_torch(imported):
    assert imported("--help") == (0, set())


@pytest.mark.slow
def test_a_report_on_arguments_imports_torch_alone(imported):
    assert imported(*DIGITS, "optimizer.args.lr=x") == (2, {"torch"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "library"),
    [
        ("model=resnet18", "torchvision"),
        ("model=resnet19", "torchvision"),  # to see that resnet18 is the nearest
        ("dataset.transform=[{type: CenterCrop, args: [8]}]", "torchvision"),
        ("metrics=[{type: MulticlassRecall, args: [10]}]", "torchmetrics"),
    ],
)
def test_a_library_is_imported_once_a_name_of_it_is_there(imported, named, library):
    code, names = imported(*DIGITS, "optimizer.args.lr=x", named)
    assert code == 2
    assert library in names


@pytest.mark.slow
def test_a_try_needs_the_data_and_neither_torchvision_nor_charts(imported):
    code, names = imported(*DIGITS)
    assert code == 0
    assert "sklearn" in names
    assert names.isdisjoint({"torchvision", "torchmetrics", "matplotlib", "tensorboard"})


@pytest.mark.parametrize("module", ["trainer", "trainer.command", "train", "test"])
def test_no_torch_is_imported_before_a_command_runs(module, project_root):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=project_root, check=True)


def test_a_trainer_is_there_once_it_is_asked_for():
    import trainer
    from trainer.trainer import Trainer

    assert trainer.Trainer is Trainer
    with pytest.raises(AttributeError, match="no attribute 'Trianer'"):
        trainer.Trianer  # noqa: B018
