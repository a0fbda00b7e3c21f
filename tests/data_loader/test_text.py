"""Sentences of CSV files, batches of parts that differ in length, and a network that takes them."""

from pathlib import Path

import pytest
import torch

import test as test_command
import train
from base import BaseDataLoader
from base.config.check import load_config
from base.errors import DataError
from base.registry import COLLATE_FNS
from base.registry.build import build
from data_loader.samplers import LengthBuckets
from data_loader.text import TextDataset, pad
from model.text import TextClassifier
from trainer.resume import find_trained, start_from_checkpoint

TRAIN = """text,label
A fine film,good
"A FINE, fine plot. A plot!",good
not a film,bad
"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a CSV file and returns its path."""

    def write_file(content: str | bytes, name: str = "train.csv") -> str:
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write_file


# --- TextDataset ----------------------------------------------------------------------------------


def test_words_are_numbered_by_how_often_they_occur_and_rare_ones_share_an_id(write):
    dataset = TextDataset(write(TRAIN))
    assert dataset.ids == {"a": 2, "fine": 3, "film": 4, "plot": 5}
    assert [tokens.tolist() for tokens, _ in dataset] == [[2, 3, 4], [2, 3, 3, 5, 2, 5], [1, 2, 4]]
    assert dataset[0][0].dtype == torch.int64
    assert dataset.lengths == [3, 6, 3]
    assert dataset.targets == [target for _, target in dataset] == [1, 1, 0]
    assert dataset.classes == ["bad", "good"]


def test_the_rarest_words_are_left_out_where_there_are_more_than_the_model_takes(write):
    path = write(TRAIN)
    assert TextDataset(path, num_words=4).ids == {"a": 2, "fine": 3}
    assert TextDataset(path, num_words=2).ids == {}
    assert len(TextDataset(path, min_count=1).ids) == 5
    every = torch.cat([tokens for tokens, _ in TextDataset(path, num_words=4)])
    assert every.max() < 4


def test_test_data_has_the_words_and_classes_of_training(write):
    path = write("text,label\nUnseen film film film,good\n", "test.csv")
    test = TextDataset(path, fitted=TextDataset(write(TRAIN)).fitted)
    assert [tokens.tolist() for tokens, _ in test] == [[1, 4, 4, 4]]
    assert (test.targets, test.classes) == ([1], ["bad", "good"])


def test_columns_go_by_name_and_words_are_of_any_language(write):
    path = write("\ufeffwords,id,mood\r\nGröße don't Ñandú größe,7,gut\r\n")
    dataset = TextDataset(path, text="words", label="mood", min_count=1)
    assert list(dataset.ids) == ["größe", "don't", "ñandú"]
    assert dataset.lengths == [4]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("txt,label\na,b\n", ": no column 'text' (did you mean 'txt'?)"),
        ("text,mood\na,b\n", ": no column 'label'; it has text, mood"),
        ("", ": cannot be read: No columns to parse from file"),
        ("text,label\na,b\n?!,b\n", ": row 3, column 'text': expected words, found '?!'"),
        ('text,label\n"two\nlines",b\n,b\n', ": row 3, column 'text': expected words, found nan"),
        (
            "text,label\na,b\na,\n",
            ": row 3, column 'label': expected one of the classes ['b']",
        ),
        (
            "text,label\na,b\na\n",
            ": row 3, column 'label': expected one of the classes ['b']",
        ),
        ("text,label\na, b,good\n", ": row 2: more fields than columns; a comma in a text needs"),
        ('text,label\na,b\n"a,b\n', ": cannot be read: Error tokenizing data. C error: EOF inside"),
        (b"text,label\na,b\n\xff\xfe,b\n", ": cannot be read: 'utf-8' codec can't decode byte"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_row(write, content, words):
    path = write(content)
    with pytest.raises(DataError) as caught:
        TextDataset(path)
    assert str(caught.value).startswith(path + words)


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read: No such .*: python make_data.py text"):
        TextDataset("data/text/train.csv")
    with pytest.raises(DataError, match=r"none.csv: cannot be read: .* directory$"):
        TextDataset("data/none.csv")
    with pytest.raises(DataError, match=f"{tmp_path}: cannot be read: Is a directory"):
        TextDataset(str(tmp_path))


def test_a_label_that_training_does_not_know_is_named_with_those_it_knows(write):
    path = write("text,label\na film,good\na film,God\n", "test.csv")
    with pytest.raises(DataError) as caught:
        TextDataset(path, fitted=TextDataset(write(TRAIN)).fitted)
    message = "row 3, column 'label': expected one of the classes ['bad', 'good'], found 'God'"
    assert str(caught.value) == f"{path}: {message}"


def test_a_file_without_rows_has_no_samples(write):
    with pytest.raises(DataError, match="TextDataset has no samples"):
        BaseDataLoader(TextDataset(write("text,label\n")))


# --- pad ------------------------------------------------------------------------------------------


def test_shorter_parts_are_padded_with_zeros():
    inputs, targets = pad([(torch.tensor([5, 6, 7]), 1), (torch.tensor([8]), 0)])
    assert inputs.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert targets.tolist() == [1, 0]
    assert inputs.dtype == targets.dtype == torch.int64
    signals, targets = pad([(torch.ones(n, 2), torch.tensor(0.5)) for n in (1, 5)])
    assert (signals.shape, signals.dtype, targets.shape) == ((2, 5, 2), torch.float32, (2,))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_pads_what_a_sampler_put_together(num_workers):
    class Signals(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return torch.full((index + 1,), 1.0), index

    collate_fn = build({"type": "pad"}, COLLATE_FNS, path=("x",))
    loader = BaseDataLoader(
        Signals(), 4, num_workers=num_workers, collate_fn=collate_fn, sampler=LengthBuckets()
    )
    batches = list(loader)
    assert sorted(inputs.shape[1] for inputs, _ in batches) == [4, 8, 12, 16, 20]
    assert all(torch.equal(inputs.sum(1), targets + 1.0) for inputs, targets in batches)


# --- TextClassifier -------------------------------------------------------------------------------


def test_scores_do_not_depend_on_padding_nor_on_the_others_in_a_batch():
    model = TextClassifier(num_words=10, num_classes=3).eval()
    model.embedding.weight.data[0] = 7  # as an init from the config may leave it
    short, long = torch.tensor([[2, 3]]), torch.tensor([[2, 3, 0, 0], [4, 5, 6, 7]])
    assert model(long).shape == (2, 3)
    assert torch.allclose(model(short), model(long)[:1])


def test_padding_is_never_learnt():
    model = TextClassifier(num_words=10)
    model(torch.tensor([[2, 0, 0]])).sum().backward()
    assert model.embedding.weight.grad[0].abs().sum() == 0
    assert model.embedding.weight.grad[2].abs().sum() > 0


# --- the shipped config ---------------------------------------------------------------------------


@pytest.fixture
def overrides(tmp_path, project_root, monkeypatch, core_writers_only) -> list[str]:
    """Overrides that point text.yaml to tiny data, in which one word tells the class."""
    monkeypatch.chdir(project_root)
    rows = [(f"film {'x ' * (n % 9)} {word}", word) for n in range(40) for word in ("bad", "good")]
    for part in ("train", "test"):
        lines = ["text,label", *(",".join(row) for row in rows)]
        (tmp_path / f"{part}.csv").write_text("\n".join(lines))
    return [
        "name=text",  # a project of one's own puts its name in front
        f"dataset.args.path={tmp_path}/train.csv",
        f"test_dataset.args.path={tmp_path}/test.csv",
        f"trainer.save_dir={tmp_path}/saved",
    ]


def test_text_yaml_trains_and_tests_with_the_words_of_training(overrides, tmp_path):
    config = load_config(Path("configs/text.yaml"), overrides)
    summary = train.main(config)
    assert summary["best"]["val_loss"] < 0.4
    path, state, config = find_trained(tmp_path / "saved" / "text", [])
    assert test_command.main(config, path, state)["accuracy"] == 1


@pytest.mark.parametrize("sampler", ["LengthBuckets", "WeightedByClass"])
def test_a_run_continued_within_an_epoch_ends_as_one_that_was_not(overrides, tmp_path, sampler):
    changes = ["trainer.epochs=2", "trainer.save_steps=3", "trainer.keep_last=99"]
    changes += [f"data_loader.args.sampler.type={sampler}", "data_loader.args.batch_size=8"]
    train.main(load_config(Path("configs/text.yaml"), overrides + changes))
    folder = next(tmp_path.glob("saved/text/*/checkpoints"))
    states = {path: torch.load(path, weights_only=True) for path in folder.glob("checkpoint-*")}
    within = next(path for path, state in states.items() if state["epoch"] == 1 and state["batch"])
    config, start = start_from_checkpoint(within, [])
    train.main(config, start)
    last = [
        torch.load(p, weights_only=True)["model"] for p in sorted(tmp_path.rglob("*epoch2.pth"))
    ]
    assert len(last) == 2
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())
