"""Evaluate a trained model: metrics, and the prediction of each sample."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from base import BaseDataLoader
from base.base_writer import Evaluation
from base.checkpoint.files import make_folder, write_atomic
from base.runtime.metric_tracker import MetricTracker
from logger import RunLogger
from trainer.trainer import Trainer


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


def evaluate(trainer: Trainer, folder: Path, logger: RunLogger) -> dict[str, float]:
    """Evaluate the trainer's model and write metrics.json, predictions.csv and reports.

    Returns:
        The metrics by name.

    Raises:
        WriteError: the disk is full or the folder cannot be written.
    """
    tracker = PredictionTracker(trainer.metrics, device=trainer.device)
    trainer.valid_metrics = tracker
    metrics, loader = trainer.evaluate(), trainer.valid_data_loader
    predictions = tracker.predictions()
    labels = seen_classes(loader, predictions) if tracker.kind == "classification" else []
    make_folder(folder)
    evaluation = Evaluation(
        metrics=metrics,
        predictions=predictions,
        kind=tracker.kind,
        class_names=labels,
        inputs_at=loader.inputs_at,
        folder=folder,
    )
    logger.log_evaluation(evaluation)
    if predictions:
        write_atomic(folder / "predictions.csv", _to_csv(predictions))
    write_atomic(folder / "metrics.json", json.dumps(evaluation.metrics, indent=2) + "\n")
    return evaluation.metrics


def _to_csv(columns: Mapping[str, Tensor]) -> str:
    """Return a row for each sample, whose floats read back exactly."""
    cells = [values.numpy().astype(str) for values in columns.values()]
    rows = [f"{index},{','.join(row)}" for index, row in enumerate(zip(*cells, strict=True))]
    return "\n".join([",".join(["index", *columns]), *rows, ""])


def class_names(loader: BaseDataLoader, count: int = 0) -> list[str]:
    """Return the dataset's `classes`, or `count` numbers where it has none or fewer."""
    names = [str(name) for name in getattr(loader.dataset.dataset, "classes", [])]
    return names if len(names) >= count else [str(number) for number in range(count)]


def seen_classes(loader: BaseDataLoader, predictions: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the classes, at least up to the highest that was seen."""
    highest = max(predictions["target"].max(), predictions["prediction"].max())
    return class_names(loader, int(highest) + 1)
