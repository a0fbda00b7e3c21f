"""Reports of a trained model's results on its test data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from base.base_writer import BaseWriter, Evaluation
from base.checkpoint.files import write_atomic
from base.registry import WRITERS
from logger.plots.figures import MAX_MATRIX_CLASSES, draw_confusion_matrix, draw_image_sheet

if TYPE_CHECKING:
    from torch import Tensor


@WRITERS.register("report")
class ReportWriter(BaseWriter):
    """Writes what scikit-learn reports of an evaluation, and draws its `num_worst` samples.

    Of classes that is report.txt, which is printed as well, confusion_matrix.csv and .png, and
    worst.png where inputs are images; of numbers the mean absolute error, the root mean squared
    error and R2 among the metrics.
    """

    on_by_default = True

    def __init__(self, num_worst: int = 32) -> None:
        self.num_worst = num_worst

    def log_evaluation(self, evaluation: Evaluation) -> None:
        if evaluation.kind == "regression":
            evaluation.metrics |= regression_scores(evaluation.predictions)
        elif evaluation.kind == "classification":
            labels, folder = evaluation.class_names, evaluation.folder
            report_classes(evaluation.predictions, labels, folder)
            worst = evaluation.predictions["loss"].argsort(descending=True)[: self.num_worst]
            images = evaluation.inputs_at(worst.numpy())
            if getattr(images, "ndim", 0) == 4 and images.shape[1] in (1, 3):
                titles = sample_titles(evaluation.predictions, worst, labels)
                write_atomic(folder / "worst.png", draw_image_sheet(images, titles))


def report_classes(
    predictions: Mapping[str, "Tensor"], labels: Sequence[str], folder: Path
) -> None:
    """Print and write scikit-learn's classification report, and what was confused with what.

    Up to 1,000 classes that is a matrix; with more, of whose cells almost all are 0, it is a list
    of the others, the most frequent first, and only the report's averages are printed.
    """
    import pandas as pd
    from sklearn.metrics import classification_report, confusion_matrix

    truth, prediction = predictions["target"].numpy(), predictions["prediction"].numpy()
    report = classification_report(
        truth, prediction,
        labels=range(len(labels)), target_names=labels, digits=4, zero_division=0,
    )  # fmt: skip
    write_atomic(folder / "report.txt", report)
    if len(labels) > MAX_MATRIX_CLASSES:
        heading, *_, averages = report.split("\n\n")
        print(heading, averages, sep="\n\n")
        names, is_wrong = np.asarray(labels), truth != prediction
        others = {"true": names[truth[is_wrong]], "predicted": names[prediction[is_wrong]]}
        write_atomic(folder / "confusions.csv", pd.DataFrame(others).value_counts().to_csv())
        return
    print(report)
    matrix = confusion_matrix(truth, prediction, labels=range(len(labels)))
    table = pd.DataFrame(matrix, index=pd.Index(labels, name="true \\ predicted"), columns=labels)
    write_atomic(folder / "confusion_matrix.csv", table.to_csv())
    write_atomic(folder / "confusion_matrix.png", draw_confusion_matrix(matrix, labels))


def regression_scores(predictions: Mapping[str, "Tensor"]) -> dict[str, float]:
    """Return the mean absolute error, the root mean squared error and R2."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    scores = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    truth, prediction = predictions["target"].numpy(), predictions["prediction"].numpy()
    return {name: float(score(truth, prediction)) for name, score in scores.items()}


def sample_titles(
    predictions: Mapping[str, "Tensor"], samples: "Tensor", labels: Sequence[str]
) -> list[str]:
    """Return what each sample is and was taken for, or how sure its class was."""
    columns = [predictions[key][samples].tolist() for key in ("target", "prediction", "confidence")]
    return [
        f"{labels[true]}, not {labels[taken]}"
        if taken != true
        else f"{labels[true]}, {share:.0%} sure"
        for true, taken, share in zip(*columns, strict=True)
    ]
