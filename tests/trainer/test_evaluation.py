"""What test.py reports of many classes and many samples."""

import pytest
import torch

from trainer import evaluation
from trainer.evaluation import PredictionTracker, regression_scores, report_classes


@pytest.fixture
def predictions():
    return {"target": torch.tensor([0, 1, 2, 2, 2]), "prediction": torch.tensor([0, 2, 1, 1, 2])}


def test_few_classes_get_a_matrix_and_the_whole_report(predictions, tmp_path, capsys):
    report_classes(predictions, ["a", "b", "c"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.txt", "confusion_matrix.csv", "confusion_matrix.png",
    }  # fmt: skip
    assert capsys.readouterr().out == (tmp_path / "report.txt").read_text() + "\n"
    assert (tmp_path / "confusion_matrix.csv").read_text().splitlines()[3] == "c,0,2,1"


def test_many_classes_get_a_list_and_averages(predictions, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_MATRIX_CLASSES", 2)
    report_classes(predictions, ["a", "b", "c"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.txt", "confusions.csv"}
    assert (tmp_path / "confusions.csv").read_text().splitlines() == [
        "true,predicted,count", "c,b,2", "b,c,1",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "precision" in said
    assert "weighted avg" in said
    assert not any(line.split()[:1] == ["c"] for line in said.splitlines())
    assert "           c " in (tmp_path / "report.txt").read_text()


def test_kept_predictions_stay_in_order_and_in_few_pieces():
    tracker = PredictionTracker({}, device=torch.device("cpu"))
    for number in range(100):
        tracker._keep(prediction=torch.full((3,), number))
    assert len(tracker.columns["prediction"]) < 8
    assert tracker.predictions()["prediction"].tolist() == [n for n in range(100) for _ in "abc"]


def test_numbers_of_half_precision_are_scored():
    tracker = PredictionTracker({}, device=torch.device("cpu"))
    tracker.update(torch.tensor([[1.0], [3.0]], dtype=torch.bfloat16), torch.ones(2, 1), 2)
    assert regression_scores(tracker.predictions())["mae"] == 1
