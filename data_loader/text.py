"""Text: sentences of a CSV file as ids of words, and batches of parts that differ in length."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, default_collate

from base.errors import DataError, did_you_mean
from base.registry import COLLATE_FNS

UNKNOWN = 1  # the id of a word outside the vocabulary; 0 is padding
WORD = re.compile(r"\w+(?:'\w+)*")


class TextDataset(Dataset):
    """Sentences of a CSV file with columns `text` and `label`: ids of words (L,) int64, and an int.

    Words, in small letters, and labels are numbered. Known words are the most frequent that occur
    `min_count` times or more; the others share an id, so all ids are below `num_words`, the size
    of the model's embedding. Without `fitted` this is learned here, as of training data; other data
    is given the training's.

    Raises:
        DataError: a file or column is missing or cannot be read, or a row has no word or an
            unknown label.
    """

    deterministic = True

    def __init__(
        self,
        path: str,
        text: str = "text",
        label: str = "label",
        num_words: int = 10_000,
        min_count: int = 2,
        fitted: dict[str, Any] | None = None,
    ) -> None:
        rows = _rows(path, text, label)
        self.column, self.path = text, path
        if fitted is None:
            counts = Counter(word for _, words, _ in rows for word in words)
            kept = [word for word, n in counts.most_common(num_words - 2) if n >= min_count]
            ids = {word: number for number, word in enumerate(kept, start=2)}
            fitted = {"classes": sorted({label for _, _, label in rows}), "ids": ids}
        self.fitted, self.classes, self.ids = fitted, fitted["classes"], fitted["ids"]
        classes = {name: number for number, name in enumerate(self.classes)}
        for place, _, label in rows:
            if label not in classes:
                hint = did_you_mean(label, classes)
                raise DataError(f"{place}: label {label!r} is not among those of training{hint}")
        self.tokens = [self.encode(words) for _, words, _ in rows]
        self.lengths = [len(words) for _, words, _ in rows]
        self.targets = [classes[label] for _, _, label in rows]

    def encode(self, words: Sequence[str]) -> Tensor:
        """Return the ids of words, (L,) int64."""
        return torch.tensor([self.ids.get(word, UNKNOWN) for word in words])

    def for_prediction(self, path: Path) -> list[tuple[Tensor, int]]:
        """Return the sentences of another file in the same words; they need no label."""
        rows = _rows(path, self.column, None)
        return [(self.encode(words), number) for number, (_, words, _) in enumerate(rows)]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.tokens[index], self.targets[index]


@COLLATE_FNS.register()
def pad(samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
    """Return a batch (B, L, ...) of parts (L_i, ...), zeros after the shorter ones, and targets."""
    inputs, targets = zip(*samples, strict=True)
    return pad_sequence(inputs, batch_first=True), default_collate(targets)


def _rows(
    path: str | Path, text: str, label: str | None
) -> list[tuple[str, list[str], str | None]]:
    """Return (place, words, label) of each row of a CSV file, the place being FILE:LINE.

    Without a column `label` the third is None.
    """
    try:
        data = Path(path).read_bytes()
        content = data.decode("utf-8-sig")
    except FileNotFoundError:
        is_example = Path(path).parent == Path("data/text")
        hint = "; the example data is written by: python make_data.py text" if is_example else ""
        raise DataError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: expected UTF-8, found {error.reason}") from error
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        for name in filter(None, (text, label)):
            if name not in (columns := reader.fieldnames or []):
                hint = did_you_mean(name, columns) or f"; it has {', '.join(columns) or 'none'}"
                raise DataError(f"{path}: no column {name!r}{hint}")
        return [_row(f"{path}:{reader.line_num}", row, text, label) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: {error}") from error


def _row(
    place: str, row: Mapping[str | None, str | None], text: str, label: str | None
) -> tuple[str, list[str], str | None]:
    if None in row:
        raise DataError(f"{place}: more fields than columns; a text with a comma needs quotes")
    words = WORD.findall((row[text] or "").lower())
    if not words:
        raise DataError(f"{place}: no word in column {text!r}")
    if label is not None and not row[label]:
        raise DataError(f"{place}: nothing in column {label!r}")
    return place, words, row.get(label)
