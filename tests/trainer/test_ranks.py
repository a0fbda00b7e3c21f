"""Two processes compute what one would, agree on when to stop, and one of them writes."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base.errors import StoppedError, UsageError
from base.registry import LOSSES, MODELS
from base.runtime import distributed
from trainer.assembly import build_trainer


@MODELS.register()
class PlainNet(nn.Module):
    """Nothing in it depends on how a batch is cut; double, so that little does on the order."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))
        self.double()

    def forward(self, x):
        return self.layers(x.double())


@LOSSES.register()
class Scaled(nn.Module):
    """A loss with a parameter, which no wrapper of the model looks after."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, output, target):
        return F.cross_entropy(output * self.scale, target)


def read(run: Path, name: str = "checkpoint-epoch3.pth") -> dict:
    return torch.load(run / "checkpoints" / name, weights_only=True)


def rows(run: Path) -> list[dict[str, float]]:
    with open(run / "metrics.csv", newline="") as file:
        table = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if "second" not in k} for row in table]


@pytest.fixture
def start_ranks(two_processes, start, tree, interrupt):
    """Return a function that trains in two processes; it returns how each of them ended."""

    def start_both(run_id: str = "run", plan: dict | None = None, signalled: int = 0) -> list[str]:
        def train_rank(rank: int) -> str:
            from base.registry import CALLBACKS

            if plan is not None and rank == signalled:
                CALLBACKS.find("Interrupter").plan = dict(plan)
            try:
                start(tree, run_id=run_id)
            except StoppedError as error:
                return str(error)
            return "done"

        return two_processes(train_rank)

    return start_both


@pytest.fixture
def runs(tree) -> Path:
    return Path(tree["trainer"]["save_dir"]) / "blobs"


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "SGD", "args": {"lr": 0.1}},
        {"type": "LBFGS", "args": {"lr": 0.1, "line_search_fn": "strong_wolfe"}},
    ],
)
def test_two_processes_train_on_the_batches_of_one_with_twice_the_batch_size(
    start, start_ranks, tree, runs, optimizer
):
    tree |= {"model": "PlainNet", "loss": "Scaled"}
    tree["dataset"] |= {"args": {"size": 45}}  # 37 to train on: a last batch of 5, cut in 3 and 2
    tree["optimizer"] = optimizer
    del tree["lr_scheduler"]
    tree["trainer"] |= {"epochs": 1, "accumulate": 1 if optimizer["type"] == "LBFGS" else 2}
    assert start_ranks() == ["done", "done"]
    start(tree, "data_loader.args.batch_size=8", run_id="alone")

    two, one = (read(runs / name, "checkpoint-epoch1.pth") for name in ("run", "alone"))
    assert two["step"] == one["step"]
    for part in ("model", "loss", "ema"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(two[part][name], tensor, rtol=1e-6, atol=1e-7)
    for row, expected in zip(rows(runs / "run"), rows(runs / "alone"), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


def test_validation_is_what_one_process_computes_with_the_same_weights(
    start_ranks, tree, runs, load
):
    tree["dataset"] |= {"args": {"size": 47}}
    tree["data_loader"]["args"]["validation_split"] = 11  # batches of 4, 4 and, cut in two, 3
    assert start_ranks() == ["done", "done"]
    trainer = build_trainer(load(tree), torch.device("cpu"))
    trainer.load_model(read(runs / "run"))
    alone = trainer.evaluate()
    together = rows(runs / "run")[-1]
    assert together["val_accuracy"] == alone["accuracy"]
    assert together["val_MulticlassF1Score"] == alone["MulticlassF1Score"]
    assert together["val_loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_a_run_of_two_processes_is_continued_exactly(start_ranks, resume, tree, runs):
    tree["dataset"] |= {"args": {"size": 84}}  # 10 batches for each, 5 steps
    assert start_ranks("whole") == ["done", "done"]
    plan = {("step", 3): "SIGTERM", ("step", 13): "SIGTERM"}
    first, second = start_ranks(plan=plan, signalled=1)  # a signal that only one of them saw
    assert second == "stopped by SIGTERM in epoch 1, step 4"
    assert first.startswith(f"{second}; saved in {runs / 'run'}\n")
    assert "continue with: torchrun --nproc_per_node=2 --signals-to-handle SIGTERM,SIGINT" in first

    with pytest.raises(
        UsageError, match=r"the run has 2 processes, found 1; within an epoch, or with"
    ):
        resume(runs / "run")

    start_ranks(plan={("valid", 2, 1): "SIGINT"})
    assert read(runs / "run", "checkpoint-epoch2-step10.pth")["batch"] == 10
    assert start_ranks() == ["done", "done"]
    state, expected = read(runs / "run"), read(runs / "whole")
    for part in ("model", "ema"):
        for name, tensor in expected[part].items():
            assert torch.equal(state[part][name], tensor), name
    assert len(state["rng"]) == 2
    for own, other in zip(state["rng"], expected["rng"], strict=True):
        assert torch.equal(own["torch"], other["torch"])
    assert not torch.equal(state["rng"][0]["torch"], state["rng"][1]["torch"])
    assert rows(runs / "run") == rows(runs / "whole")


def test_one_process_writes(start_ranks, tree, runs):
    tree["trainer"] |= {"epochs": 1}
    assert start_ranks() == ["done", "done"]
    run = runs / "run"
    assert [path.name for path in runs.iterdir()] == ["run"]
    assert len((run / "metrics.csv").read_text().splitlines()) == 2
    assert (run / "train.log").read_text().count("training data") <= 1
    for part in ("train", "valid"):
        assert len(list((run / "tensorboard" / part).iterdir())) == 1


def test_an_epochs_end_can_be_continued_by_another_number_of_processes(
    start_ranks, resume, tree, runs, capsys
):
    tree["lr_scheduler"] = {"type": "ExponentialLR", "args": {"gamma": 0.9}}
    tree["trainer"] |= {"epochs": 2}
    assert start_ranks() == ["done", "done"]
    summary = resume(runs / "run", "trainer.epochs=3")
    assert summary["epochs"] == 3
    assert "world_size 2 -> 1: the result will not be the same bit for bit" in str(
        capsys.readouterr()
    )


def test_ranks_agree_on_the_largest_and_on_the_mean(two_processes):
    def reduce(rank: int):
        with distributed.process_group(torch.device("cpu")):
            mean = distributed.mean_over_ranks(torch.tensor([1.0, 2.0]) * (rank + 1))
            return distributed.max_over_ranks(rank * 7), mean.tolist(), distributed.share(rank)

    assert two_processes(reduce) == [(7, [1.5, 3.0], 0)] * 2
