"""Text: sentences of a CSV file as ids of words, and batches of parts that differ in length."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, default_collate

from base.registry import COLLATE_FNS
from data_loader.table import class_numbers, read_table, refuse, select

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = 1  # the id of a word outside the vocabulary; 0 is padding
WORD = r"\w+(?:'\w+)*"


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
        table, words = _read(Path(path), text)
        if fitted is None:
            counts = Counter(chain.from_iterable(words)).most_common(num_words - 2)
            kept = [word for word, count in counts if count >= min_count]
            ids = {word: number for number, word in enumerate(kept, start=2)}
            classes = sorted(select(table, [label])[label].dropna().unique())
            fitted = {"classes": classes, "ids": ids}
        self.fitted, self.classes, self.ids = fitted, fitted["classes"], fitted["ids"]
        self.column = text
        self.tokens = [self.encode(sentence) for sentence in words]
        self.lengths = [*map(len, words)]
        self.targets = class_numbers(table, label, self.classes).tolist()

    def encode(self, words: Sequence[str]) -> Tensor:
        """Return the ids of words, (L,) int64."""
        return torch.tensor([self.ids.get(word, UNKNOWN) for word in words])

    def for_prediction(self, path: Path) -> list[tuple[Tensor, int]]:
        """Return the sentences of another file in the same words; they need no label."""
        _, words = _read(path, self.column)
        return [(self.encode(sentence), number) for number, sentence in enumerate(words)]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.tokens[index], self.targets[index]


@COLLATE_FNS.register()
def pad(samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
    """Return a batch (B, L, ...) of parts (L_i, ...), zeros after the shorter ones, and targets."""
    inputs, targets = zip(*samples, strict=True)
    return pad_sequence(inputs, batch_first=True), default_collate(targets)


def _read(path: Path, column: str) -> tuple["pd.DataFrame", list[list[str]]]:
    """Return a table, all of it as text, and the words of a column, in small letters, by row."""
    table = read_table(path, dtype=str, keep_default_na=False, na_values=[""])  # "NA" is a word
    cells = select(table, [column])
    words = cells[column].fillna("").str.lower().str.findall(WORD)
    refuse(cells, (words.str.len() == 0).to_numpy()[:, None], "words")
    return table, words.tolist()
