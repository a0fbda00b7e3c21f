"""The reports of test.py, of few classes, many classes and numbers."""

import pytest
import torch

from base.base_writer import Evaluation
from logger.report.report_writer import ReportWriter, report_classes


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
    monkeypatch.setattr("logger.report.report_writer.MAX_MATRIX_CLASSES", 2)
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


def evaluation(predictions, folder, inputs_at, **more):
    columns = {name: torch.tensor(values) for name, values in predictions.items()}
    return Evaluation(predictions=columns, inputs_at=inputs_at, folder=folder, **more)


def test_the_worst_images_are_shown_first_with_what_they_were_taken_for(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "logger.report.report_writer.draw_image_sheet",
        lambda images, titles: drawn.append((images.flatten().tolist(), titles)) or b"",
    )
    columns = {
        "target": [0, 1, 1], "prediction": [0, 0, 1],
        "confidence": [0.9, 0.8, 0.6], "loss": [0.1, 2.0, 0.5],
    }  # fmt: skip
    seen = evaluation(
        columns,
        tmp_path,
        lambda indices: torch.arange(3.0)[torch.from_numpy(indices)].view(-1, 1, 1, 1),
        kind="classification",
        class_names=["cat", "dog"],
        metrics={},
    )
    ReportWriter(num_worst=2).log_evaluation(seen)
    assert drawn == [([1.0, 2.0], ["dog, not cat", "dog, 60% sure"])]
    assert (tmp_path / "worst.png").exists()


def test_numbers_get_scores_among_the_metrics(tmp_path):
    columns = {"target": [1.0, 2.0, 3.0], "prediction": [1.0, 2.0, 2.0], "loss": [0.0, 0.0, 1.0]}
    seen = evaluation(
        columns, tmp_path, None, kind="regression", class_names=[], metrics={"loss": 1 / 3}
    )
    ReportWriter().log_evaluation(seen)
    assert seen.metrics == pytest.approx({"loss": 1 / 3, "mae": 1 / 3, "rmse": 3**-0.5, "r2": 0.5})
    assert not list(tmp_path.iterdir())
