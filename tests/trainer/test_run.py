"""What the commands make of run directories: new, continued, finished, branched, refused."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import train
from base.errors import CheckpointError, StoppedError
from logger import RunDirectory
from trainer.resume import find_trained


@pytest.fixture
def command(tmp_path, monkeypatch, capsys, tree, core_writers_only):
    """Return a function that runs train.py in-process; it returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blobs.yaml").write_text(yaml.safe_dump(tree))

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            train.app([str(arg) for arg in args], standalone_mode=False)
            code = 0
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run(start, tree) -> Path:
    """A finished run of three epochs."""
    return start(tree)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def checkpoint(run: Path, name: str = "checkpoint-epoch3.pth") -> Path:
    return run / "checkpoints" / name


def only_new_run(run: Path) -> Path:
    (new,) = (path for path in run.parent.iterdir() if path != run)
    return new


def test_a_run_has_its_files_and_its_config_runs_again(command, tmp_path):
    assert command("-c", "blobs.yaml", "--run-id", "one", "trainer.epochs=1")[0] == 0
    run = tmp_path / "saved/blobs/one"
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "checkpoints", "tensorboard", "metrics.csv", "train.log",
                     "summary.json"}  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "checkpoint-epoch1.pth", "model_best.pth",
    }  # fmt: skip

    assert command("-c", run / "config.yaml", "--run-id", "two")[0] == 0
    first, second = (
        torch.load(checkpoint(run.parent / name, "checkpoint-epoch1.pth"), weights_only=True)
        for name in ("one", "two")
    )
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name


def test_the_same_command_on_a_finished_run_says_so_and_changes_nothing(command, run):
    before = contents(run)
    code, out, _ = command("-c", "blobs.yaml", "--run-id", "run")
    assert code == 0
    assert f"{run} is finished after epoch 3" in out
    assert "best: epoch" in out
    assert contents(run) == before


def test_a_finished_run_goes_on_with_more_epochs(command, start, tree):
    tree["lr_scheduler"] = {"type": "CosineAnnealingLR", "args": {"T_max": 5}}
    whole = start(tree, "trainer.epochs=5", run_id="whole")
    run = start(tree)
    code, _, _ = command("-r", run, "trainer.epochs=5")
    assert code == 0
    states = [
        torch.load(checkpoint(r, "checkpoint-epoch5.pth"), weights_only=True) for r in (run, whole)
    ]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    assert len((run / "metrics.csv").read_text().splitlines()) == 6


def test_more_epochs_are_refused_where_the_schedule_is_as_long_as_the_run(command, run):
    code, _, err = command("-r", run, "trainer.epochs=5")
    assert code == 2
    assert err.startswith("command line: trainer.epochs: the run has 3, found 5\n")


@pytest.mark.parametrize(
    ("scheduler", "is_refused"),
    [
        ({"type": "CosineAnnealingLR"}, True),
        ({"type": "CosineAnnealingLR", "args": [4]}, False),
        ({"type": "OneCycleLR", "args": {"total_steps": 30}}, False),
        (
            {
                "type": "SequentialLR",
                "args": {
                    "schedulers": [{"type": "ConstantLR"}, {"type": "CosineAnnealingLR"}],
                    "milestones": [2],
                },
            },
            True,
        ),
        ({"type": "StepLR", "args": {"step_size": 1}}, False),
    ],
)
def test_a_schedule_follows_the_length_of_the_run_only_where_it_is_left_open(
    command, start, tree, scheduler, is_refused
):
    tree["lr_scheduler"] = scheduler
    run = start(tree, "trainer.epochs=1", "trainer.limit_batches=1")
    code, _, err = command("-r", run, "trainer.epochs=2")
    assert (code, "trainer.epochs" in err) == ((2, True) if is_refused else (0, False))


def test_what_changes_the_arithmetic_is_refused_key_by_key_and_nothing_is_touched(command, run):
    before = contents(run)
    code, _, err = command(
        "-r", run, "optimizer.args.lr=0.5", "trainer.accumulate=1", "trainer.save_period=2"
    )
    assert code == 2
    assert err == (
        "command line: optimizer.args.lr: the run has 0.05, found 0.5\n"
        "command line: trainer.accumulate: the run has 2, found 1\n"
        "a run cannot change this, nor its epochs where the schedule is as long; name another "
        "--run-id, or start from these weights: "
        "python train.py -c CONFIG model.weights=CHECKPOINT\n"
    )
    assert contents(run) == before


def test_a_changed_config_is_refused_for_a_run_id_too(command, run, tree, tmp_path):
    tree["model"] = {"type": "BlobNet", "args": {"width": 5}}
    (tmp_path / "blobs.yaml").write_text(yaml.safe_dump(tree))
    code, _, err = command("-c", "blobs.yaml", "--run-id", "run")
    assert code == 2
    assert "model.args.width: the run has null, found 5" in err


def test_what_does_not_change_the_arithmetic_may_change(command, start, tree, interrupt):
    interrupt["step", 7] = "SIGTERM"
    with pytest.raises(StoppedError):
        start(tree)
    run = Path(tree["trainer"]["save_dir"]) / "blobs/run"
    code, out, err = command(
        "-r", run, "data_loader.args.num_workers=0", "data_loader.args.prefetch_factor=3",
        "trainer.save_period=3", "trainer.save_steps=4", "trainer.keep_last=1",
        "trainer.log_interval=1", "logger.tensorboard=false",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "bit for bit" not in out
    assert [path.name for path in (run / "checkpoints").glob("check*")] == ["checkpoint-epoch3.pth"]


def test_another_number_of_threads_is_warned_of(command, start, tree, interrupt):
    interrupt["step", 7] = "SIGTERM"
    with pytest.raises(StoppedError):
        start(tree)
    torch.set_num_threads(2)
    try:
        code, out, err = command("-r", Path(tree["trainer"]["save_dir"]) / "blobs/run")
    finally:
        torch.set_num_threads(1)
    assert code == 0
    assert "threads 1 -> 2: the result will not be the same bit for bit" in out + err


def test_an_older_checkpoint_goes_on_in_a_new_run_with_its_history(command, run):
    before = contents(run)
    code, _, _ = command("-r", checkpoint(run, "checkpoint-epoch2.pth"))
    assert code == 0
    assert contents(run) == before
    new = only_new_run(run)
    assert (new / "metrics.csv").read_text().splitlines()[:3] == (
        (run / "metrics.csv").read_text().splitlines()[:3]
    )
    assert (new / "train.log").read_text().startswith((run / "train.log").read_text())
    assert checkpoint(new, "checkpoint-epoch2.pth").exists()
    states = [torch.load(checkpoint(r), weights_only=True) for r in (run, new)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    assert checkpoint(new, "model_best.pth").exists()


def test_a_branch_keeps_the_best_model_that_its_state_knows_of(command, start, tree):
    tree["trainer"]["monitor"] = "min epoch"  # the first is the best for ever
    run = start(tree)
    assert command("-r", checkpoint(run, "checkpoint-epoch2.pth"))[0] == 0
    best = checkpoint(only_new_run(run), "model_best.pth")
    assert torch.load(best, weights_only=True)["epoch"] == 1


def test_a_branch_before_the_best_has_the_best_of_its_own_past(command, start, tree):
    tree["trainer"]["monitor"] = "max epoch"  # the last is the best
    run = start(tree)
    (checkpoint(run, "model_best_accuracy.pth")).write_bytes(
        checkpoint(run, "checkpoint-epoch1.pth").read_bytes()  # as a callback keeps it
    )
    assert command("-r", checkpoint(run, "checkpoint-epoch2.pth"))[0] == 0
    new = only_new_run(run)
    assert torch.load(checkpoint(new, "model_best.pth"), weights_only=True)["epoch"] == 3
    kept = torch.load(checkpoint(new, "model_best_accuracy.pth"), weights_only=True)
    assert kept["epoch"] == 1


def test_a_damaged_best_model_does_not_keep_a_state_from_branching(command, run):
    best = checkpoint(run, "model_best.pth")
    best.unlink()  # it may be a second name of a state
    best.write_bytes(bytes(4000))
    assert command("-r", checkpoint(run, "checkpoint-epoch2.pth"))[0] == 0
    assert checkpoint(only_new_run(run), "model_best.pth").exists()


def test_the_newest_checkpoint_by_its_own_name_goes_on_in_place(command, start, tree, interrupt):
    interrupt["step", 7] = "SIGTERM"
    with pytest.raises(StoppedError):
        start(tree)
    run = Path(tree["trainer"]["save_dir"]) / "blobs/run"
    assert command("-r", checkpoint(run, "checkpoint-epoch2-step7.pth"))[0] == 0
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert (run / "summary.json").exists()


def test_a_checkpoint_from_elsewhere_starts_a_run_without_history(command, run):
    stray = run.parent / "checkpoints" / "mine.pth"  # beside runs that are none of its own
    stray.parent.mkdir()
    stray.write_bytes(checkpoint(run, "checkpoint-epoch2.pth").read_bytes())
    before = contents(run)
    assert command("-r", stray)[0] == 0
    assert contents(run) == before
    shutil.rmtree(stray.parent)
    lines = (only_new_run(run) / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "3"]


def test_the_checkpoints_own_config_counts_and_an_edited_file_is_told(command, run, caplog):
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("epochs: 3", "epochs: 5"))
    caplog.set_level("WARNING", "train")
    logging.getLogger("train").addHandler(caplog.handler)
    code, out, _ = command("-r", run)
    assert code == 0
    assert "is finished after epoch 3" in out
    (warning,) = caplog.messages
    assert warning.startswith(f"{file} was edited (trainer.epochs), but the checkpoint's own")
    caplog.clear()
    find_trained(run, ())
    assert caplog.messages == []  # the number of epochs is nothing to a trained model
    file.write_text(file.read_text().replace("width", "with").replace("lr:", "rl:") + "{")
    assert find_trained(run, ())[2].trainer.epochs == 3
    logging.getLogger("train").removeHandler(caplog.handler)
    assert f"{file} was edited (" in caplog.text


def test_a_folder_of_runs_means_the_newest(command, run):
    code, out, _ = command("-r", run.parent)
    assert code == 0
    assert f"{run} is finished" in out


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_with_one_warning(
    command, start, tree, interrupt, caplog
):
    whole = start(tree, run_id="whole")
    interrupt["step", 12] = "SIGTERM"
    with pytest.raises(StoppedError):
        start(tree)
    run = Path(tree["trainer"]["save_dir"]) / "blobs/run"
    newest = checkpoint(run, "checkpoint-epoch3-step12.pth")
    content = bytearray(newest.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 64)  # longer than the zip's padding
    content[middle] = bytes(255 - byte for byte in content[middle])
    newest.write_bytes(content)
    logging.getLogger("train").addHandler(caplog.handler)
    code, _, _ = command("-r", run)
    logging.getLogger("train").removeHandler(caplog.handler)
    assert code == 0
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "continuing from checkpoint-epoch2.pth" in warnings[0].getMessage()
    states = [torch.load(checkpoint(r), weights_only=True) for r in (run, whole)]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_a_run_without_a_valid_checkpoint_is_left_as_it_is(command, run):
    for path in (run / "checkpoints").glob("check*"):
        path.write_bytes(path.read_bytes()[:-100])
    before = contents(run)
    code, _, err = command("-c", "blobs.yaml", "--run-id", "run")
    assert code == 3
    assert "no valid checkpoint" in err
    assert contents(run) == before


def test_a_checkpoint_of_another_architecture_is_refused_in_one_line(command, run, monkeypatch):
    from base.registry import MODELS

    blob_net = MODELS.find("BlobNet")
    monkeypatch.setattr(
        blob_net, "__init__", lambda self, width=4, init=blob_net.__init__: init(self, width + 1)
    )
    (run / "summary.json").unlink()
    before = contents(run)
    code, _, err = command("-r", run)
    assert code == 3
    assert err.startswith("the checkpoint does not fit the model: ")
    assert "size mismatch for conv.weight: " in err
    assert err.count("\n") == 1
    assert contents(run) == before


def test_a_run_in_use_is_refused(command, run):
    held = RunDirectory(run)
    held.acquire()
    before = contents(run)
    for arguments in (("-r", run), ("-c", "blobs.yaml", "--run-id", "run")):
        code, _, err = command(*arguments)
        assert code == 2
        assert err == f"{run} is in use by another process (pid {os.getpid()})\n"
    held.release()
    assert contents(run) == before


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    command, start, tree, interrupt, power_cut
):
    interrupt["step", 4] = "crash"
    with pytest.raises(power_cut):
        start(tree)
    run = Path(tree["trainer"]["save_dir"]) / "blobs/run"
    (run / "checkpoints" / "model_best.pth").write_bytes(b"of an earlier life")
    code, _, err = command("-r", run)
    assert code == 3
    assert err == f"{run}: has no checkpoint yet; start it anew with train.py -c\n"
    code, _, _ = command("-c", "blobs.yaml", "--run-id", "run", "trainer.monitor=off")
    assert code == 0
    assert not checkpoint(run, "model_best.pth").exists()
    assert len((run / "metrics.csv").read_text().splitlines()) == 4


def test_a_run_killed_after_its_last_checkpoint_writes_its_summary(command, run):
    text = (run / "summary.json").read_text()
    (run / "summary.json").unlink()
    assert command("-r", run)[0] == 0
    assert (run / "summary.json").read_text() == text
    assert json.loads(text)["last"]["epoch"] == 3


def test_nothing_there_to_continue_is_said(command, tmp_path):
    code, _, err = command("-r", tmp_path / "nowhere")
    assert (code, err) == (3, f"{tmp_path}/nowhere: no run and no checkpoint there\n")


def test_a_diverging_run_keeps_its_last_good_checkpoint(command, start, tree, monkeypatch):
    start(tree, "trainer.epochs=1", "lr_scheduler=null")
    run = Path(tree["trainer"]["save_dir"]) / "blobs/run"
    before = contents(run / "checkpoints")
    from trainer import Trainer

    train_step = Trainer.train_step
    monkeypatch.setattr(
        Trainer,
        "train_step",
        lambda self, batch: train_step(self, batch) * (float("nan") if self.batch == 3 else 1),
    )
    code, _, err = command("-r", run, "trainer.epochs=2")
    assert code == 5
    assert err.startswith("training diverged: loss is nan in epoch 2, step 7; the weights are")
    assert contents(run / "checkpoints") == before


def test_a_crash_leaves_its_traceback_in_the_log_of_the_run(command, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.Trainer.train_step", lambda self, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("-c", "blobs.yaml", "--run-id", "one")
    text = (tmp_path / "saved/blobs/one/train.log").read_text()
    assert "one ends with an error in its code\nTraceback" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_the_trained_model_of_a_run_is_its_best_else_its_newest(run):
    path, state, config = find_trained(run, ())
    assert path == checkpoint(run, "model_best.pth")
    assert state["epoch"] == json.loads((run / "summary.json").read_text())["best"]["epoch"]
    assert config.name == "blobs"
    path.unlink()
    assert find_trained(run.parent, ())[0] == checkpoint(run)
    assert find_trained(checkpoint(run, "checkpoint-epoch1.pth"), ())[1]["epoch"] == 1
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        find_trained(run, ())
