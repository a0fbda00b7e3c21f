"""`train.py` and `test.py` as a user calls them, on the digits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST
from typer.testing import CliRunner

import test as test_command
import train as train_command
from base.registry import DATASETS

SHORT = ["trainer.epochs=1", "trainer.limit_batches=3", "name=short"]


@pytest.fixture(autouse=True)
def _in_project_with_own_runs(project_root, monkeypatch):
    monkeypatch.chdir(project_root)


def run(command, *arguments):
    return CliRunner().invoke(command.app, [str(a) for a in arguments])


def train(tmp_path, *arguments):
    return run(train_command, *arguments, *SHORT, f"trainer.save_dir={tmp_path}")


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of the digits, three batches long."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(train_command.__file__).parent)
        result = train(folder, "-c", "digits.yaml", "--run-id", "one")
    assert result.exit_code == 0, result.output
    return folder / "short" / "one"


def test_a_run_leaves_everything_a_reader_wants(trained):
    names = set(files_below(trained))
    assert {"config.yaml", "metrics.csv", "train.log", "summary.json", "curves.png"} <= names
    assert {"checkpoints/checkpoint-epoch1.pth", "checkpoints/model_best.pth"} <= names
    assert any(name.startswith("tensorboard/valid/") for name in names)
    assert json.loads((trained / "summary.json").read_text())["steps"] == 3


def test_the_end_of_a_run_names_the_best_score_and_the_next_commands(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "--run-id", "two")
    assert "best: epoch 1, val_loss" in result.output
    assert f"next: python test.py -r {tmp_path}/short/two" in result.output
    assert "--host 127.0.0.1" in result.output


def test_a_run_without_test_data_does_not_say_to_test_it(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "test_dataset=null")
    assert "best: epoch 1, val_loss" in result.output
    assert "test.py" not in result.output


def test_the_config_that_ran_runs_again_as_it_is(trained, tmp_path):
    result = run(train_command, "-c", trained / "config.yaml", f"trainer.save_dir={tmp_path}")
    assert result.exit_code == 0, result.output
    first = (trained / "metrics.csv").read_text().splitlines()[1].split(",")
    again = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[1].split(",")
    assert again[4:] == first[4:]  # lr, loss and metrics


def test_short_options_change_the_config(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "--lr", "0.25", "--bs", "7", "-d", "cpu")
    assert result.exit_code == 0, result.output
    config = next(tmp_path.rglob("config.yaml")).read_text()
    assert "lr: 0.25" in config
    assert "batch_size: 7" in config
    assert "device: cpu" in config


def test_a_loader_with_args_by_position_serves_validation_and_test_too(tmp_path):
    args = "data_loader.args=[50, true, 0.5]"
    assert train(tmp_path, "-c", "digits.yaml", "--run-id", "three", args).exit_code == 0
    result = run(test_command, "-r", tmp_path / "short" / "three")
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "short" / "three" / "test" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 50


@pytest.mark.parametrize("arguments", [[], ["-c", "digits.yaml", "-r", "saved"]])
def test_one_of_config_and_run_must_be_given(arguments):
    result = run(train_command, *arguments)
    assert result.exit_code == 2
    assert "expected either -c CONFIG for a new run or -r RUN to continue one" in result.output


def test_a_run_and_a_config_are_told_apart(trained):
    result = run(train_command, "-c", trained)
    assert (result.exit_code, "a run is continued with -r" in result.output) == (2, True)
    result = run(train_command, "-r", "configs/digits.yaml")
    assert (result.exit_code, "a config goes with -c" in result.output) == (2, True)


def test_a_mistake_ends_with_2_and_creates_nothing(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "optimizer.args.lrr=1", "trainer.epochz=2")
    assert result.exit_code == 2
    assert set(result.output.splitlines()) == {
        "command line: optimizer.args.lrr: AdamW takes no 'lrr' (did you mean 'lr'?)",
        "command line: trainer.epochz: unknown key (did you mean 'epochs'?)",
    }
    assert not list(tmp_path.iterdir())


def test_a_refusal_of_torch_names_the_place_in_the_config(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "optimizer.args.lr=-1.0")
    assert result.exit_code == 2
    assert "optimizer: AdamW refuses its args: Invalid learning rate: -1.0" in result.output
    assert not list(tmp_path.iterdir())


def test_check_prints_a_sheet_and_creates_nothing(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "--check")
    assert result.exit_code == 0, result.output
    assert "features.0 Conv2d 64x32x8x8 288 288" in " ".join(result.output.split())
    assert "(a uniform guess over 10 classes: 2.303)" in result.output
    assert "parameters without a gradient: none" in result.output
    assert "steps per epoch: 3, of 192 samples" in result.output
    assert not list(tmp_path.iterdir())


def test_check_names_a_parameter_that_gets_no_gradient(tmp_path):
    result = train(tmp_path, "-c", "digits.yaml", "--check", "model.freeze=['features.0.*']")
    assert "features.0 Conv2d 64x32x8x8 288 0" in " ".join(result.output.split())


def test_list_prints_the_names_of_a_section():
    result = run(train_command, "--list", "models")
    assert result.exit_code == 0, result.output
    assert "model/model.py: MnistModel" in result.output
    assert "resnet18" in result.output
    assert "datasets" not in result.output


def test_list_refuses_an_unknown_section():
    result = run(train_command, "--list", "modles")
    assert result.exit_code == 2
    assert "no section 'modles' (did you mean 'models'?)" in result.output


@pytest.fixture
def room(tmp_path, monkeypatch) -> str:
    """The name of a room that is not the template's."""
    folder = tmp_path / "trainer" / "count_birds"
    folder.mkdir(parents=True)
    (folder / "__main__.py").write_text(
        '"""Count birds in pictures.\n\nAnd more."""\nimport gone\n'
    )
    monkeypatch.setattr("trainer.command.__file__", str(folder.parent / "command.py"))
    return "count_birds"


@pytest.mark.parametrize("command", [train_command, test_command])
def test_help_ends_with_the_rooms_that_are_there_without_importing_them(command, room):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.output.rstrip().endswith(f"python -m trainer.{room}  Count birds in pictures.")


@pytest.mark.parametrize("command", [train_command, test_command])
@pytest.mark.parametrize("option", ["--count-birds", "--count-birds=3"])
def test_an_option_that_is_a_rooms_name_is_answered_with_its_command(command, option, room):
    result = run(command, option, "5")
    assert result.exit_code == 2
    assert f"see: python -m trainer.{room} --help" in result.output


@pytest.mark.parametrize("command", [train_command, test_command])
def test_any_other_unknown_option_is_answered_with_the_nearest(command, room):
    result = run(command, "--devise", "cpu")
    assert result.exit_code == 2
    assert "No such option: --devise" in result.output
    assert "--device" in result.output
    assert room not in result.output


@pytest.mark.parametrize(
    ("option", "key"), [("--epochs", "trainer.epochs"), ("--keep-last", "trainer.keep_last"),
                        ("--seed", "seed")],
)  # fmt: skip
def test_an_option_that_is_a_key_of_the_config_is_answered_with_the_key(option, key):
    for arguments in ([option, "3"], [f"{option}=3"]):
        result = run(train_command, "-c", "digits.yaml", *arguments)
        assert (result.exit_code, f"write {key}=3" in result.output) == (2, True)


def test_test_py_says_that_it_takes_a_run():
    result = run(test_command, "-c", "digits.yaml")
    assert (result.exit_code, "no option -c; it takes a run: -r RUN" in result.output) == (2, True)


def test_only_what_was_written_now_is_listed(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    (copy / "test").mkdir(exist_ok=True)
    (copy / "test" / "earlier.txt").write_text("of another evaluation")
    for _ in range(2):
        result = run(test_command, "-r", copy)
        assert f"{copy}/test/metrics.json\n" in result.output
        assert "earlier.txt" not in result.output


def test_what_takes_one_process_is_refused_for_several(monkeypatch, trained):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for result in (run(train_command, "-c", "digits.yaml", "--check"),
                   run(test_command, "-r", trained)):  # fmt: skip
        assert (result.exit_code, "takes one process" in result.output) == (2, True)


def test_data_that_cannot_be_fetched_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", [f"file://{tmp_path}/nowhere/"])
    root = tmp_path / "data"
    saved = tmp_path / "saved"
    result = train(saved, "-c", "config.json", f"data_loader.args.data_dir={root}")
    assert result.exit_code == 3
    assert "the data of MnistDataLoader could not be fetched or read" in result.output
    assert result.output.rstrip().endswith(f"its files belong below {root}/")
    assert not saved.exists()


def test_test_reports_and_touches_nothing_else_in_the_run(trained):
    before = files_below(trained)
    result = run(test_command, "-r", trained)
    assert result.exit_code == 0, result.output
    assert "precision    recall  f1-score   support" in result.output
    after = files_below(trained)
    assert before.items() <= after.items()
    assert set(after) - set(before) == {
        f"test/{name}"
        for name in (
            "metrics.json", "report.txt", "confusion_matrix.csv", "confusion_matrix.png",
            "predictions.csv", "worst.png",
        )
    }  # fmt: skip
    rows = (trained / "test" / "predictions.csv").read_text().splitlines()
    assert rows[0] == "index,target,prediction,confidence,loss"
    metrics = json.loads((trained / "test" / "metrics.json").read_text())
    right = sum(row.split(",")[1] == row.split(",")[2] for row in rows[1:])
    assert metrics["accuracy"] == pytest.approx(right / len(rows[1:]))


def test_test_takes_overrides_and_a_single_checkpoint(trained):
    checkpoint = trained / "checkpoints" / "checkpoint-epoch1.pth"
    result = run(test_command, "-r", checkpoint, "trainer.limit_batches=1")
    assert result.exit_code == 0, result.output
    folder = trained / "test-checkpoint-epoch1"  # beside test/, that of the best
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + 64


def test_test_without_test_data_says_what_is_missing(trained):
    result = run(test_command, "-r", trained, "test_dataset=null")
    assert result.exit_code == 2
    assert "test_dataset: missing: nothing says what to test on" in result.output


def test_test_of_a_place_without_a_run_ends_with_3(tmp_path):
    result = run(test_command, "-r", tmp_path / "none")
    assert result.exit_code == 3
    assert "no run and no checkpoint there" in result.output


def test_real_targets_are_scored_by_their_errors(tmp_path):
    @DATASETS.register("Line")
    def line(count: int = 64) -> TensorDataset:
        x = torch.linspace(-1, 1, count)[:, None]
        return TensorDataset(x, 2 * x + 1)

    config = {
        "name": "line",
        "dataset": "Line",
        "test_dataset": "Line",
        "data_loader": {"args": {"batch_size": 16}},
        "model": {"type": "Linear", "args": [1, 1]},
        "loss": "mse_loss",
        "optimizer": {"type": "SGD", "args": {"lr": 0.3}},
        "trainer": {"epochs": 20, "save_dir": str(tmp_path / "saved")},
    }
    (tmp_path / "line.json").write_text(json.dumps(config))
    assert run(train_command, "-c", tmp_path / "line.json").exit_code == 0
    result = run(test_command, "-r", tmp_path / "saved" / "line")
    DATASETS.registered.pop("Line")
    assert result.exit_code == 0, result.output
    metrics = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert metrics["r2"] > 0.99
    assert metrics["rmse"] ** 2 == pytest.approx(metrics["loss"], rel=1e-4)
    assert metrics["mae"] <= metrics["rmse"]
