"""What the model makes of validation samples, in the panels of TensorBoard that suit the data."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from base import Callback
from base.errors import UsageError, did_you_mean
from base.runtime.device import count_samples
from trainer.evaluation import MAX_MATRIX_CLASSES, PredictionTracker, class_shares, seen_classes
from trainer.trainer import Trainer

LOG = logging.getLogger("train")

NUM_SHOWN = 32  # images, and rows of the table
NUM_PLAYED = 8  # sounds, videos, point clouds
MAX_CURVES = 30  # classes
DPI = 72  # of pictures, of which there are many
SPRITE = (32, 32)  # pixels of an image in the projector


class Predictions(Callback):
    """Shows at the end of every `every` epochs what the model makes of validation samples.

    They are the first `num_samples`, in whole batches, with several processes of the first one,
    seen by the averaged weights if there are any. `panels` names what is shown; None is all that
    the data suits: `images` and a `table` of predictions beside the truth, `pr_curves` for each
    class, a `confusion_matrix`, `embeddings` (what the last layer gets), `meshes` of points
    (B, N, 3), `audio` of signals (B, 1, T) of `sample_rate` Hz, `videos` (B, T, C, H, W).

    Raises:
        UsageError: an argument is out of range, a panel is unknown, `audio` has no sample rate, or,
            when training starts, there is no validation data.
    """

    def __init__(
        self,
        every: int = 1,
        num_samples: int = 1000,
        panels: list[str] | None = None,
        sample_rate: int | None = None,
    ) -> None:
        for name, value in {"every": every, "num_samples": num_samples}.items():
            if value < 1:
                raise UsageError(f"Predictions: {name} is {value}, expected 1 or more")
        for panel in panels or ():
            if panel not in PANELS:
                near = did_you_mean(panel, PANELS)
                raise UsageError(f"Predictions: there is no panel {panel!r}{near}")
        if "audio" in (panels or ()) and sample_rate is None:
            raise UsageError("Predictions: audio needs a sample_rate, in Hz")
        self.every, self.num_samples = every, num_samples
        self.panels, self.sample_rate = panels, sample_rate
        self.told: set[str] = set()

    def on_fit_start(self, trainer: Trainer) -> None:
        if trainer.valid_data_loader is None:
            raise UsageError("Predictions: there is no validation data to show")
        if not trainer.config.logger.tensorboard:
            LOG.warning("Predictions: nothing is shown, since logger.tensorboard is false")

    def on_epoch_end(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        if trainer.epoch % self.every:
            return
        with trainer.evaluating():  # every rank, since they share their buffers
            if trainer.logger.tensorboard is None:
                return
            watch = look(trainer, self.num_samples)
        columns, labels = watch.predictions(), []
        if watch.kind == "classification":
            labels = seen_classes(trainer.valid_data_loader, columns)
        seen = Seen(columns, labels, trainer.step, self.sample_rate)
        trainer.logger.to_tensorboard(lambda board: self._show(board.valid_events, seen))

    def _show(self, events: Any, seen: "Seen") -> None:
        for name in self.panels or PANELS:
            show, needed = PANELS[name]
            if not show(events, seen) and self.panels and name not in self.told:
                self.told.add(name)
                parts = [part for part in ("inputs", "target", "scores") if part in seen.columns]
                found = ", ".join(f"{part} {tuple(seen[part].shape[1:])}" for part in parts)
                LOG.warning("Predictions: %s needs %s; a sample has %s", name, needed, found)


# --- looking ------------------------------------------------------------------------------------


class Watch(PredictionTracker):
    """Keeps the columns of predictions, and what else there is of each sample.

    `scores` (N, K) of classes, `features` (N, D), what came into the model's last layer, `sprites`
    (N, C, 32, 32), small images, and the first `inputs`, at least 32 if so many are of one shape.
    """

    has_inputs = False  # all of them

    def update(self, output: Any, target: Any, count: int) -> None:
        super().update(output, target, count)
        if self.kind == "classification":
            self._keep(scores=output.float())

    def take(self, inputs: Any, features: Tensor | None) -> None:
        """Keep what came into the model, and into its last layer, with a batch."""
        if isinstance(inputs, Tensor):
            kept = self.columns.get("inputs", [])
            self.has_inputs |= sum(map(len, kept)) >= NUM_SHOWN
            self.has_inputs |= any(part.shape[1:] != inputs.shape[1:] for part in kept)
            if not self.has_inputs:
                self._keep(inputs=inputs.float())
            if is_shaped(inputs, (1, 3), None, None):
                self._keep(sprites=F.interpolate(inputs.float(), SPRITE))
        if features is not None:
            self._keep(features=features.float())


def look(trainer: Trainer, num_samples: int) -> Watch:
    """Return what was seen of the first samples of validation, within `trainer.evaluating()`."""
    loader = trainer.valid_data_loader
    count = math.ceil(num_samples / loader.per_rank_batch_size)
    trainer.tracker = watch = Watch({}, device=trainer.device)
    with watched(trainer.model, watch):
        for batch in loader.batches(0, min(count, trainer.num_valid_batches)):
            trainer.batch_size = count_samples(batch)
            with trainer.autocast():
                trainer.valid_step(trainer.on_device(batch))
    return watch


@contextmanager
def watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Tell `watch` of each batch that comes into the model and into its last layer with weights.

    There, places of an image or a text are averaged.
    """
    last: list[Tensor] = []

    def pass_by(layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        features = args[0] if args else kwargs["input"]
        if isinstance(layer, nn.Linear):
            features = features.movedim(-1, 1)
        last[:] = [features.flatten(2).mean(dim=2) if features.ndim > 2 else features]

    def arrive(model: nn.Module, args: tuple, output: Any) -> None:
        watch.take(args[0] if args else None, last[0] if last else None)

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    hooks = [layer.register_forward_pre_hook(pass_by, with_kwargs=True) for layer in layers]
    hooks.append(model.register_forward_hook(arrive))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def is_shaped(inputs: Tensor | None, *sizes: tuple[int, ...] | None) -> bool:
    """Tell whether a batch has samples of these sizes, each one of some, or None for any."""
    if inputs is None or inputs.ndim != 1 + len(sizes):
        return False
    pairs = zip(inputs.shape[1:], sizes, strict=True)
    return all(allowed is None or size in allowed for size, allowed in pairs)


# --- panels: each says whether it suits what was seen -------------------------------------------


@dataclass
class Seen:
    """What `Watch` kept, (N, ...) each, at `step`; `labels` are the names of classes, if any."""

    columns: dict[str, Tensor]
    labels: list[str]
    step: int
    sample_rate: int | None

    def __getitem__(self, name: str) -> Tensor | None:
        return self.columns.get(name)

    def names(self, column: str) -> list[str]:
        """Return what stands in a column as text: classes or numbers."""
        values = self.columns[column].tolist()
        return [self.labels[value] if self.labels else f"{value:.4g}" for value in values]

    def pairs(self) -> list[tuple[str, str]]:
        """Return what each of the first samples is, and what it was taken for."""
        pairs = zip(self.names("target"), self.names("prediction"), strict=True)
        return list(pairs)[:NUM_SHOWN]


def show_images(events: Any, seen: Seen) -> bool:
    from logger.plots.plots import draw_image_sheet

    if not (is_shaped(seen["inputs"], (1, 3), None, None) and "prediction" in seen.columns):
        return False
    images = seen["inputs"][:NUM_SHOWN]
    titles = [true if true == taken else f"{taken}, true {true}" for true, taken in seen.pairs()]
    sheet = draw_image_sheet(images, titles[: len(images)], dpi=DPI)
    events.add_picture("predictions/images", sheet, seen.step)
    return True


def show_table(events: Any, seen: Seen) -> bool:
    if "prediction" not in seen.columns:
        return False
    lines = ["| sample | true | predicted |", "|---|---|---|"]
    for number, (true, taken) in enumerate(seen.pairs()):
        lines.append(f"| {number} | {true} | {taken if true == taken else f'**{taken}**'} |")
    events.add_text("predictions/table", "\n".join(lines), seen.step)
    return True


def show_pr_curves(events: Any, seen: Seen) -> bool:
    if not 0 < len(seen.labels) <= MAX_CURVES:
        return False
    shares = class_shares(seen["scores"]).T  # (K, N)
    for number, (label, share) in enumerate(zip(seen.labels, shares, strict=False)):
        if (is_true := seen["target"] == number).any():
            events.add_pr_curve(f"pr_curve/{label}", is_true, share, seen.step)
    return True


def show_confusion_matrix(events: Any, seen: Seen) -> bool:
    from logger.plots.plots import draw_confusion_matrix

    count = len(seen.labels)
    if not 0 < count <= MAX_MATRIX_CLASSES:
        return False
    cells = seen["target"] * count + seen["prediction"]
    matrix = cells.bincount(minlength=count * count).view(count, count).numpy()
    picture = draw_confusion_matrix(matrix, seen.labels, dpi=DPI)
    events.add_picture("predictions/confusion_matrix", picture, seen.step)
    return True


def show_embeddings(events: Any, seen: Seen) -> bool:
    if seen["features"] is None:
        return False
    labels = seen.names("target") if "target" in seen.columns else None
    events.add_newest_embedding(
        seen["features"], labels=labels, images=seen["sprites"], step=seen.step
    )
    return True


def show_meshes(events: Any, seen: Seen) -> bool:
    if not is_shaped(seen["inputs"], None, (3,)):
        return False
    events.add_mesh("points", seen["inputs"][:NUM_PLAYED], global_step=seen.step)
    return True


def show_audio(events: Any, seen: Seen) -> bool:
    if not (seen.sample_rate and is_shaped(seen["inputs"], (1,), None)):
        return False
    for number, signal in enumerate(seen["inputs"][:NUM_PLAYED]):
        signal = signal / signal.abs().max().clamp(min=1e-12)
        events.add_audio(f"audio/{number}", signal, seen.step, sample_rate=seen.sample_rate)
    return True


def show_videos(events: Any, seen: Seen) -> bool:
    if not is_shaped(seen["inputs"], None, (1, 3), None, None):
        return False
    events.add_video("videos", seen["inputs"][:NUM_PLAYED], seen.step)
    return True


PANELS: dict[str, tuple[Callable[[Any, Seen], bool], str]] = {
    "images": (show_images, "images (C, H, W), C 1 or 3, and a class or number for each"),
    "table": (show_table, "a class or number for each sample"),
    "pr_curves": (show_pr_curves, f"scores of at most {MAX_CURVES} classes"),
    "confusion_matrix": (show_confusion_matrix, f"scores of at most {MAX_MATRIX_CLASSES} classes"),
    "embeddings": (show_embeddings, "a linear or convolutional layer"),
    "meshes": (show_meshes, "points (N, 3)"),
    "audio": (show_audio, "a signal (1, T)"),
    "videos": (show_videos, "frames (T, C, H, W), C 1 or 3"),
}
