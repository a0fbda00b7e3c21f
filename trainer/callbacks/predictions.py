"""Show predictions for validation samples in those panels of TensorBoard that suit the data."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from base import Callback
from base.errors import UsageError
from logger.plots.figures import MAX_MATRIX_CLASSES, add_png
from trainer.evaluation import PredictionTracker, class_shares, seen_classes
from trainer.trainer import Trainer

log = logging.getLogger("train")

NUM_SHOWN = 32  # images, and rows of the table
NUM_MESHES = 8
MAX_CURVES = 30  # classes
DPI = 72  # of pictures, of which there are many

Panel = Literal["images", "table", "pr_curves", "confusion_matrix", "meshes", "embeddings"]


class Predictions(Callback):
    """Shows predictions for validation samples every `every` epochs and after the last.

    They are the first `num_samples`, in whole batches, with several processes of the first one,
    predicted with the averaged weights if there are any. `panels` names what is shown; None is all
    that the data suits: `images` and a `table` of predictions beside the truth, `pr_curves` for
    each class, a `confusion_matrix`, `meshes` of points (B, N, 3), and, after the last epoch,
    `embeddings` (the input of the model's last layer).

    Raises:
        UsageError: there is no validation data when training starts.
    """

    def __init__(
        self,
        every: PositiveInt = 1,
        num_samples: PositiveInt = 1000,
        panels: list[Panel] | None = None,
    ) -> None:
        self.every, self.num_samples, self.panels = every, num_samples, panels
        self.has_warned_of: set[str] = set()

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.valid_data_loader is None:
            raise UsageError("Predictions: there is no validation data to show")
        if trainer.config.logger.writers.get("tensorboard") is False:
            log.warning("Predictions: nothing is shown, since logger.tensorboard is false")

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        if trainer.epoch % self.every and not trainer.is_finished:
            return
        tracker = SampleTracker({}, device=trainer.device)
        with trainer.evaluating(tracker):  # every rank, since they share their buffers
            if trainer.logger.tensorboard is None:
                return
            predict(trainer, tracker, self.num_samples)
        columns, labels = tracker.predictions(), []
        if tracker.kind == "classification":
            labels = seen_classes(trainer.valid_data_loader, columns)
        panels = Panels(columns, labels, trainer.step, is_last=trainer.is_finished)
        suited = [name for name in panels.suited() if name in (self.panels or panels.suited())]
        trainer.logger.to_tensorboard(lambda board: panels.show(board.valid_events, suited))
        for name in {*(self.panels or ())} - {*suited} - self.has_warned_of:
            self.has_warned_of.add(name)
            shapes = {key: tuple(values.shape[1:]) for key, values in columns.items()}
            log.warning("Predictions: no %s of samples of shapes %s", name, shapes)


class SampleTracker(PredictionTracker):
    """Keeps, besides predictions, class `scores` (N, K), `features` (N, D) and the first `inputs`.

    Features are the input of the last layer with weights, averaged over places of an image or a
    text; of inputs at least 32 are kept, if so many have one shape.
    """

    def update(self, output: Any, target: Any, count: int) -> None:
        super().update(output, target, count)
        if self.kind == "classification":
            self._keep(scores=output.float())

    def keep_inputs(self, model: nn.Module, args: tuple) -> None:
        """Keep what is given to the model: a forward pre-hook."""
        kept = self.columns.get("inputs", [])
        is_open = sum(map(len, kept)) < NUM_SHOWN and args and isinstance(args[0], Tensor)
        if is_open and all(part.shape[1:] == args[0].shape[1:] for part in kept):
            self._keep(inputs=args[0].float())

    def keep_features(self, layer: nn.Module, args: tuple) -> None:
        """Keep what is given to the last layer: a forward pre-hook."""
        if not args:
            return
        features = args[0].movedim(-1, 1) if isinstance(layer, nn.Linear) else args[0]
        self._keep(features=features.float().reshape(*features.shape[:2], -1).mean(dim=2))


def predict(trainer: Trainer, tracker: SampleTracker, num_samples: int) -> None:
    """Predict the first validation samples, within `trainer.evaluating(tracker)`."""
    loader = trainer.valid_data_loader
    num_batches = math.ceil(num_samples / loader.per_rank_batch_size)
    hooks = [trainer.model.register_forward_pre_hook(tracker.keep_inputs)]
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    if layers := [layer for layer in trainer.model.modules() if isinstance(layer, kinds)]:
        hooks.append(layers[-1].register_forward_pre_hook(tracker.keep_features))
    try:
        for batch in loader.batches(0, min(num_batches, trainer.num_valid_batches)):
            trainer.evaluate_batch(batch)
    finally:
        for hook in hooks:
            hook.remove()


class Panels:
    """Shows columns (N, ...) of a `SampleTracker`; `labels` are the names of classes, if any."""

    def __init__(
        self, columns: Mapping[str, Tensor], labels: list[str], step: int, *, is_last: bool
    ) -> None:
        self.columns, self.labels, self.step, self.is_last = columns, labels, step, is_last
        self.inputs = columns.get("inputs", torch.empty(0))
        self.pairs: list[tuple[str, str]] = []  # the true and the predicted class or number
        if "prediction" in columns:
            self.pairs = list(zip(self._names("target"), self._names("prediction"), strict=True))

    def _names(self, column: str) -> list[str]:
        """Return the classes or numbers of a column as text."""
        values = self.columns[column].tolist()
        return [self.labels[value] if self.labels else f"{value:.4g}" for value in values]

    def suited(self) -> list[Panel]:
        """Return the panels that there is something for."""
        _, *sizes = self.inputs.shape
        num_classes = len(self.labels)
        suits: dict[Panel, bool] = {
            "images": bool(self.pairs) and len(sizes) == 3 and sizes[0] in (1, 3),
            "table": bool(self.pairs),
            "pr_curves": 0 < num_classes <= MAX_CURVES,
            "confusion_matrix": 0 < num_classes <= MAX_MATRIX_CLASSES,
            "meshes": len(sizes) == 2 and sizes[1] == 3,
            "embeddings": "features" in self.columns,
        }
        return [panel for panel, is_suited in suits.items() if is_suited]

    def show(self, events: Any, panels: Iterable[Panel]) -> None:
        """Write some panels with a SummaryWriter."""
        for panel in panels:
            getattr(self, panel)(events)

    def images(self, events: Any) -> None:
        from logger.plots.figures import draw_image_sheet

        images = self.inputs[:NUM_SHOWN]
        titles = [true if true == taken else f"{taken}, true {true}" for true, taken in self.pairs]
        sheet = draw_image_sheet(images, titles[: len(images)], dpi=DPI)
        add_png(events, "predictions/images", sheet, self.step)

    def table(self, events: Any) -> None:
        lines = ["| sample | true | predicted |", "|---|---|---|"]
        for number, (true, taken) in enumerate(self.pairs[:NUM_SHOWN]):
            lines.append(f"| {number} | {true} | {taken if true == taken else f'**{taken}**'} |")
        events.add_text("predictions/table", "\n".join(lines), self.step)

    def pr_curves(self, events: Any) -> None:
        shares = class_shares(self.columns["scores"]).T  # (K, N)
        for number, (label, share) in enumerate(zip(self.labels, shares, strict=False)):
            if (is_true := self.columns["target"] == number).any():
                events.add_pr_curve(f"pr_curve/{label}", is_true, share, self.step)

    def confusion_matrix(self, events: Any) -> None:
        from logger.plots.figures import draw_confusion_matrix

        count = len(self.labels)
        cells = self.columns["target"] * count + self.columns["prediction"]
        matrix = cells.bincount(minlength=count * count).view(count, count).numpy()
        picture = draw_confusion_matrix(matrix, self.labels, dpi=DPI)
        add_png(events, "predictions/confusion_matrix", picture, self.step)

    def meshes(self, events: Any) -> None:
        events.add_mesh("points", self.inputs[:NUM_MESHES], global_step=self.step)

    def embeddings(self, events: Any) -> None:
        if self.is_last:  # of several, the projector would forget those before a resume
            features, labels = self.columns["features"], [label for label, _ in self.pairs]
            labels = labels if len(labels) == len(features) else None  # a layer may be used twice
            events.add_embedding(features, labels, None, self.step, "features")
