"""Predictions for files: images, tables, texts, or what a dataset of one's own reads."""

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from base import BaseDataLoader
from base.checkpoint.files import make_folder, write_atomic
from base.config.schema import Config
from base.data.batch_dataset import BatchDataset
from base.errors import DataError, UsageError
from base.runtime.device import select_device
from trainer.assembly import load_for_evaluation
from trainer.batches import input_and_target
from trainer.evaluation import class_names, class_shares
from trainer.predict.examples import evaluated_model, example_data
from trainer.run import folder_beside
from trainer.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("train")

MAX_CLASS_COLUMNS = 20  # of more classes only the likeliest gets its probability
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of images with so many channels


def predict_files(
    config: Config, path: Path, state: Mapping[str, Any], source: Path, output: Path | None = None
) -> Path:
    """Write what the model of the checkpoint at `path` makes of `source`, and return the CSV file.

    Samples are read and go through the transforms as the test data do. A row holds a sample's own
    columns, then `prediction` and for classes `probability` and those of each.

    Raises:
        DataError: there is nothing at `source`, or something in it cannot be read or is no use.
        UsageError: the run's dataset cannot read such files, or the model has other outputs.
        WriteError: the disk is full or the place cannot be written.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    device = select_device(config.device)
    trainer = load_for_evaluation(config, state, device, build_loader=example_data)
    known = trainer.valid_data_loader
    transforms = known.dataset.batch_transforms
    if hasattr(known.dataset.dataset, "for_prediction"):
        samples = known.dataset.dataset.for_prediction(source)
        transforms = [*known.dataset.sample_transforms, *transforms]
    else:
        samples = ImageFiles(source, known.dataset, known.inputs_at(np.arange(1)).shape[1:])
    if len(samples) == 0:
        raise DataError(f"{source}: has no samples")
    loader = BaseDataLoader(
        samples, known.per_rank_batch_size, shuffle=False,
        num_workers=known.num_workers, collate_fn=known.dataset.collate_fn,
    )  # fmt: skip
    loader.prepare(transforms, in_memory=False, device=device, training=False)
    found = predictions(trainer, loader)
    rows = sample_columns(source, len(samples), is_named="path" in found)
    name = source.resolve().stem if source.is_file() else source.resolve().name
    output = output or folder_beside(path, "predictions") / f"{name}.csv"
    make_folder(output.parent)
    rows = rows.merge(found, left_index=True, right_index=True, suffixes=("_given", ""))
    write_atomic(output, rows.to_csv(index=False))
    log.info("predictions: %d, in %s", len(found), output)
    return output


def predictions(trainer: Trainer, loader: BaseDataLoader) -> "pd.DataFrame":
    """Return one row of predictions for each sample of a loader, in its order."""
    import pandas as pd

    model, known = evaluated_model(trainer), trainer.valid_data_loader
    _, target = input_and_target(known.batch_at(np.arange(1)))
    has_classes = isinstance(target, Tensor) and target.ndim == 1 and target.dtype == torch.int64
    tables = []
    for batch in tqdm(loader, "predicting", leave=False, disable=None):
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise UsageError("for_prediction(path) must give (input, name) each")
        with torch.no_grad(), trainer.autocast():
            output = model(trainer.on_device(batch[0]))
        if not (isinstance(output, Tensor) and output.ndim in (1, 2)):
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UsageError(f"expected a model of outputs (B,) or (B, K), not {found}")
        columns = number_columns(output)
        if has_classes and output.ndim == 2 and output.shape[1] > 1:
            columns = class_columns(output, class_names(known, output.shape[1]))
        if isinstance(batch[1], (tuple, list)) and isinstance(batch[1][0], str):
            columns = {"path": batch[1]} | columns
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def class_columns(output: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return the likeliest class of each row of scores (B, K), and the probabilities."""
    shares = class_shares(output.float()).cpu()
    highest, numbers = shares.max(dim=1)
    columns = {"prediction": [names[number] for number in numbers], "probability": highest.numpy()}
    if shares.shape[1] <= MAX_CLASS_COLUMNS:
        pairs = zip(names, shares.numpy().T, strict=False)
        columns |= {f"probability_{name}": values for name, values in pairs}
    return columns


def number_columns(output: Tensor) -> dict[str, Any]:
    """Return outputs (B,) or (B, K) as they are."""
    columns = output.float().cpu().reshape(len(output), -1).numpy().T
    if len(columns) == 1:
        return {"prediction": columns[0]}
    return {f"prediction_{number}": values for number, values in enumerate(columns)}


def sample_columns(source: Path, count: int, *, is_named: bool) -> "pd.DataFrame":
    """Return what stands before predictions: a table's cells as written, else numbers, or names."""
    import pandas as pd

    table = pd.DataFrame()
    if source.suffix == ".csv":
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    elif source.suffix in (".parquet", ".pq"):
        table = pd.read_parquet(source).reset_index(drop=True)
    if len(table) == count:
        return table
    return pd.DataFrame({} if is_named else {"sample": range(count)}, index=range(count))


class ImageFiles(Dataset):
    """Images of a file or of a folder and those below it, as (input, path).

    They are given as the dataset of `known` gives its own: a PIL image of the same mode, or a
    tensor (C, H, W) of as many channels, 0 to 255 as uint8 and 0 to 1 as floats; then through the
    transforms of the dataset and of `known`, after which they must be of a `shape`.

    Raises:
        UsageError: the dataset gives no images, or nothing says what their values mean.
    """

    def __init__(self, source: Path, known: BatchDataset, shape: Sequence[int]) -> None:
        from torchvision.datasets.folder import IMG_EXTENSIONS

        self.paths = [source]
        if source.is_dir():
            files = sorted(path for path in source.rglob("*") if path.is_file())
            self.paths = [path for path in files if path.suffix.lower() in IMG_EXTENSIONS]
            if not self.paths:
                raise DataError(f"{source}: no image below it, of {' '.join(IMG_EXTENSIONS)}")
        plain = copy.copy(known.dataset)
        own = getattr(plain, "transform", None)
        plain.transform = plain.transforms = None
        self.mode, self.dtype = _image_kind(plain[0][0], type(plain).__name__)
        self.transforms = [*filter(None, [own]), *known.sample_transforms]
        self.shape = tuple(shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        from PIL import Image
        from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert(self.mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not an image that can be read: {error}") from error
        if self.dtype is not None:
            image = to_dtype(pil_to_tensor(image), self.dtype, scale=True)
        for transform in self.transforms:
            image = transform(image)
        if tuple(image.shape) != self.shape:
            raise DataError(
                f"{path}: becomes an input of {list(image.shape)}, the run's are "
                f"{list(self.shape)}; bring the image to that size, or put a Resize into "
                "test_dataset.transform or dataset.valid_transform"
            )
        return image, str(path)


def _image_kind(image: Any, name: str) -> tuple[str, torch.dtype | None]:
    """Return the mode to read images in, and the dtype of their tensors, None for PIL images."""
    from PIL.Image import Image

    if isinstance(image, Image):
        return image.mode, None
    if isinstance(image, Tensor) and image.ndim == 3 and len(image) in MODES:
        is_share = image.is_floating_point() and 0 <= image.min() <= image.max() <= 1
        if is_share or image.dtype == torch.uint8:
            return MODES[len(image)], image.dtype
    raise UsageError(
        f"{name} gives no PIL images and no tensors (C, H, W) of bytes or of 0 to 1; to read files "
        "write it a method for_prediction(path) that returns the samples there, (input, name) each"
    )
