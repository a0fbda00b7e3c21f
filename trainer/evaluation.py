"""What a model makes of its test data: metrics, predictions, confusions, the worst samples."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from base import BaseDataLoader
from base.checkpoint.files import make_folder, write_atomic
from base.runtime.metric_tracker import MetricTracker
from logger.plots.plots import plot_confusion_matrix, plot_image_sheet
from trainer.trainer import Trainer

NUM_WORST = 32
MAX_MATRIX_CLASSES = 1000  # a matrix of 10,000 takes 9 GiB and minutes


class PredictionTracker(MetricTracker):
    """A tracker that also keeps what each sample was predicted as.

    Class scores (B, K) with class targets (B,) are kept as `prediction`, `confidence` (its
    probability) and `loss` (cross-entropy); real outputs as `prediction` and `loss` (squared
    error). Anything else is not kept.
    """

    def __init__(self, metrics: Mapping[str, Any], *, device: torch.device) -> None:
        super().__init__(metrics, device=device)
        self.kind = ""
        self.columns: dict[str, list[Tensor]] = {}

    def update(self, output: Any, target: Any, count: int) -> None:
        super().update(output, target, count)
        if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
            return
        if output.ndim == 2 and target.ndim == 1 and not target.is_floating_point():
            self.kind = "classification"
            shares = class_shares(output.float())
            confidence, prediction = shares.max(dim=1)
            loss = F.cross_entropy(output.float(), target, reduction="none")
            self._keep(target=target, prediction=prediction, confidence=confidence, loss=loss)
        elif target.is_floating_point() and output.numel() == target.numel() == count:
            self.kind = "regression"
            target, prediction = target.flatten(), output.flatten().float()
            self._keep(target=target, prediction=prediction, loss=(prediction - target) ** 2)

    def _keep(self, **columns: Tensor) -> None:
        for name, values in columns.items():
            parts = self.columns.setdefault(name, [])
            parts.append(values.cpu())
            # many small blocks of memory would split what the outputs need for themselves
            while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
                parts[-2:] = [torch.cat(parts[-2:])]

    def predictions(self) -> dict[str, Tensor]:
        """Return the kept columns, (N,) each, in the order of the samples."""
        return {name: torch.cat(parts) for name, parts in self.columns.items()}


def class_shares(output: Tensor) -> Tensor:
    """Return the probabilities (B, K) of scores or log-probabilities; they may be such already."""
    if output.min() >= 0 and torch.allclose(output.sum(dim=1), output.new_ones(())):
        return output
    return output.softmax(dim=1)


def evaluate(trainer: Trainer, loader: BaseDataLoader, folder: Path) -> dict[str, float]:
    """Evaluate the trainer's model, write the reports into `folder`, and return the metrics.

    Raises:
        WriteError: the disk is full or the folder cannot be written.
    """
    import pandas as pd

    tracker = PredictionTracker(trainer.metrics, device=trainer.device)
    metrics = trainer.evaluate(tracker=tracker)
    predictions = tracker.predictions()
    make_folder(folder)
    if tracker.kind == "classification":
        labels = seen_classes(loader, predictions)
        report_classes(predictions, labels, folder)
        show_worst(loader, predictions, labels, folder / "worst.png")
    elif tracker.kind == "regression":
        metrics |= regression_scores(predictions)
    if predictions:
        table = pd.DataFrame({name: values.numpy() for name, values in predictions.items()})
        write_atomic(folder / "predictions.csv", table.to_csv(index_label="index"))
    write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def class_names(loader: BaseDataLoader, count: int = 0) -> list[str]:
    """Return the dataset's `classes`, or `count` numbers where it has none or fewer."""
    names = [str(name) for name in getattr(loader.dataset.dataset, "classes", [])]
    return names if len(names) >= count else [str(number) for number in range(count)]


def seen_classes(loader: BaseDataLoader, predictions: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the classes, at least up to the highest that was seen."""
    highest = max(predictions["target"].max(), predictions["prediction"].max())
    return class_names(loader, int(highest) + 1)


def report_classes(predictions: Mapping[str, Tensor], labels: Sequence[str], folder: Path) -> None:
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
    plot_confusion_matrix(matrix, labels, folder / "confusion_matrix.png")


def regression_scores(predictions: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean absolute error, the root mean squared error and R2."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    scores = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    truth, prediction = predictions["target"].numpy(), predictions["prediction"].numpy()
    return {name: float(score(truth, prediction)) for name, score in scores.items()}


def show_worst(
    loader: BaseDataLoader, predictions: Mapping[str, Tensor], labels: Sequence[str], path: Path
) -> None:
    """Draw the samples with the highest loss, where inputs are images (B, C, H, W), C 1 or 3."""
    worst = predictions["loss"].argsort(descending=True)[:NUM_WORST]
    images = loader.inputs_at(worst.numpy())
    if not (isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3)):
        return
    columns = [predictions[key][worst].tolist() for key in ("target", "prediction", "confidence")]
    titles = [
        f"{labels[true]}, not {labels[taken]}"
        if taken != true
        else f"{labels[true]}, {share:.0%} sure"
        for true, taken, share in zip(*columns, strict=True)
    ]
    plot_image_sheet(images.cpu(), titles, path)
