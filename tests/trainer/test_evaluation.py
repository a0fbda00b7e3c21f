"""The predictions that an evaluation keeps, and the files it leaves."""

import csv
import json

import pytest
import torch
from torch import nn

from base import BaseWriter
from base.errors import WriteError
from logger import RunLogger
from trainer import Trainer
from trainer.evaluation import PredictionTracker, evaluate


class Listener(BaseWriter):
    """Keeps the evaluation, and adds a metric of its own."""

    def log_evaluation(self, evaluation):
        self.seen = evaluation
        evaluation.metrics["own"] = 1.0


@pytest.fixture
def trainer(make_trainer, points):
    return make_trainer(nn.Linear(5, 3), points, valid=points)


def test_an_evaluation_leaves_metrics_and_predictions_and_tells_writers(trainer, points, tmp_path):
    listener = Listener()
    metrics = evaluate(trainer, tmp_path / "test", RunLogger(writers={"listener": listener}))
    assert metrics == json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert metrics.keys() == {"loss", "own"}
    with open(tmp_path / "test" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["target"]) for row in rows] == points[1].tolist()
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    seen = listener.seen
    assert (seen.kind, seen.class_names) == ("classification", ["0", "1", "2"])
    assert metrics["loss"] == pytest.approx(seen.predictions["loss"].mean().item())
    indices = seen.predictions["loss"].argsort()[:4]
    assert torch.equal(seen.inputs_at(indices.numpy()), points[0][indices])


def test_an_evaluation_of_ones_own_leaves_its_metrics(make_trainer, points, tmp_path):
    class Own(Trainer):
        def evaluate(self):
            return {"own": 0.5}

    trainer = make_trainer(nn.Linear(5, 3), points, valid=points, trainer_class=Own)
    assert evaluate(trainer, tmp_path, RunLogger()) == {"own": 0.5}
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"own": 0.5}


def test_a_report_that_fails_costs_one_warning(trainer, tmp_path, capsys):
    class Broken(BaseWriter):
        def log_evaluation(self, evaluation):
            raise ValueError("of the report")

    logger = RunLogger(writers={"broken": Broken()})
    assert evaluate(trainer, tmp_path, logger).keys() == {"loss"}
    assert (tmp_path / "metrics.json").exists()


def test_a_folder_that_cannot_be_made_is_named(trainer, tmp_path):
    (tmp_path / "test").touch()
    with pytest.raises(WriteError, match="test: cannot be written"):
        evaluate(trainer, tmp_path / "test", RunLogger())


def test_kept_predictions_stay_in_order_and_in_few_pieces():
    tracker = PredictionTracker({}, device=torch.device("cpu"))
    for number in range(100):
        tracker._keep(prediction=torch.full((3,), number))
    assert len(tracker.columns["prediction"]) < 8
    assert tracker.predictions()["prediction"].tolist() == [n for n in range(100) for _ in "abc"]


def test_numbers_of_half_precision_are_kept_as_floats():
    tracker = PredictionTracker({}, device=torch.device("cpu"))
    tracker.update(torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16), torch.ones(2, 1), 2)
    assert tracker.predictions()["loss"].tolist() == [0, 4]
    assert tracker.predictions()["prediction"].dtype == torch.float32
