"""What TensorBoard shows of predictions, read back: values, steps, files, and what does not fit."""

import io
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.mesh.metadata import get_instance_name
from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData
from tensorboard.plugins.projector import ProjectorConfig
from torch import nn
from torch.utils.data import Dataset

from base.errors import ConfigError, UsageError
from logger import RunDirectory, RunLogger
from logger.tensorboard_writer import TensorBoardWriter
from trainer.callbacks.predictions import Predictions

SCORES = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4], [0, 4, 0], [4, 0, 0]])
TARGETS = torch.tensor([0, 1, 2, 2, 1, 2])  # two of the third class are taken for others


class Untouched(nn.Module):
    """Gives its inputs back, or as many zeros: (B, ...) -> (B, 3)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs):
        flat = inputs.flatten(1)
        nothing = self.layer(flat[:, :1]) * 0
        return nothing + (flat if flat.shape[1] == 3 else flat.new_zeros(len(flat), 3))


class Ragged(Dataset):
    """Images of another height in each batch of two."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.rand(1, 3 + index // 2, 3), index % 3


@pytest.fixture
def show(tmp_path, make_trainer, monkeypatch):
    """Return a function that trains on data with panels; it returns the validation events."""
    monkeypatch.setattr(logging.getLogger("train"), "propagate", True)  # to caplog

    def train_and_read(data, model=None, *, loss=F.cross_entropy, settings=None, **panels):
        trainer = make_trainer(
            model or Untouched(),
            data,
            valid=data,
            loss=loss,
            callbacks=(Predictions(**panels),),
            **settings or {},
        )
        board = TensorBoardWriter(run=RunDirectory(tmp_path))
        logger = RunLogger(writers={"tensorboard": board})
        trainer.fit(logger=logger)
        assert logger.tensorboard is not None  # nothing failed
        logger.close()
        sizes = {"images": 0, "tensors": 0}
        return EventAccumulator(str(tmp_path / "tensorboard" / "valid"), sizes).Reload()

    return train_and_read


def test_the_pr_curve_is_that_of_the_predictions(show):
    events = show((SCORES, TARGETS), panels=["pr_curves"])
    [event] = events.Tensors("pr_curve/2")
    curve = np.array(event.tensor_proto.float_val).reshape(6, 127)
    assert event.step == 2
    half = 63  # the threshold 0.5: tp, fp, tn, fn, precision, recall
    assert curve[:, half] == pytest.approx([1, 0, 3, 2, 1, 1 / 3])
    assert curve[:, 0] == pytest.approx([3, 3, 0, 0, 0.5, 1])  # all are taken for it
    assert events.Tags()["images"] == []


def test_the_confusion_matrix_counts_what_was_taken_for_what(show, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "logger.plots.figures.draw_confusion_matrix",
        lambda matrix, labels, dpi: drawn.append((matrix.tolist(), labels)) or gif(),
    )
    events = show((SCORES, TARGETS), panels=["confusion_matrix"])
    assert drawn == [([[1, 0, 0], [0, 2, 0], [1, 1, 1]], ["0", "1", "2"])]
    assert events.Images("predictions/confusion_matrix")[0].encoded_image_string == gif()


def gif():
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, "GIF")
    return file.getvalue()


def test_the_table_has_what_is_true_and_what_was_predicted(show):
    [event] = show((SCORES, TARGETS), panels=["table"]).Tensors("predictions/table/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0] == "| sample | true | predicted |"
    assert lines[2:] == [
        "| 0 | 0 | 0 |", "| 1 | 1 | 1 |", "| 2 | 2 | **1** |",
        "| 3 | 2 | 2 |", "| 4 | 1 | 1 |", "| 5 | 2 | **0** |",
    ]  # fmt: skip


def test_images_stand_under_what_they_were_taken_for(show, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "logger.plots.figures.draw_image_sheet",
        lambda images, titles, dpi: drawn.append((images, titles)) or gif(),
    )
    images = SCORES.view(6, 1, 1, 3)
    show((images, TARGETS), panels=["images"])
    [(shown, titles)] = drawn
    assert torch.equal(shown, images)
    assert titles == ["0", "1", "1, true 2", "2", "1", "0, true 2"]


def test_numbers_are_shown_beside_what_was_predicted(show):
    data = torch.ones(4, 1), torch.tensor([1.5, 2, 3, 4])[:, None]
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 0.0)
    model.requires_grad_(False)
    model.bias.requires_grad_(True)
    events = show(data, model, loss=lambda output, target: (output * 0).mean())
    text = events.Tensors("predictions/table/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| 0 | 1.5 | **2** |" in text
    assert "| 1 | 2 | 2 |" in text
    assert not any("pr_curve" in tag for tag in events.Tags()["tensors"])


def test_embeddings_are_the_input_of_the_last_layer_after_the_last_epoch(show, tmp_path):
    images = torch.rand(6, 1, 4, 2)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(16, 3))
    settings = {"epochs": 2, "ema_decay": 0.5}
    averaged = []
    model[2].register_forward_pre_hook(
        lambda layer, args: None if layer.training else averaged.append(args[0].clone())
    )
    show((images, TARGETS), model, panels=["embeddings"], settings=settings)
    folder = tmp_path / "tensorboard" / "valid"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    [embedding] = config.embeddings
    assert embedding.tensor_name == "features:00004"
    rows = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    assert rows == pytest.approx(torch.cat(averaged[-2:]).numpy(), rel=1e-5)
    assert (folder / embedding.metadata_path).read_text().split() == list("012212")


def test_a_layer_that_is_used_twice_has_embeddings_without_labels(show, tmp_path):
    class Twice(nn.Linear):
        def __init__(self):
            super().__init__(3, 3)
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(input=self.layer(self.layer(x)))

    show((SCORES, TARGETS), Twice(), panels=["embeddings"])
    [path] = (tmp_path / "tensorboard/valid").glob("*/features/tensors.tsv")
    assert np.loadtxt(path, delimiter="\t").shape == (12, 3)
    assert not path.with_name("metadata.tsv").exists()


def test_points_are_shown_as_they_are(show):
    points = torch.rand(6, 7, 3)
    events = show((points, TARGETS), panels=["meshes"])
    [event] = events.Tensors(get_instance_name("points", MeshPluginData.VERTEX))
    shown = np.array(event.tensor_proto.float_val).reshape(6, 7, 3)
    assert shown == pytest.approx(points.numpy())


def test_all_that_suits_is_shown_without_a_word(show, caplog):
    tags = show((torch.rand(6, 1, 2, 2), TARGETS)).Tags()
    assert sorted(tags["images"]) == ["predictions/confusion_matrix", "predictions/images"]
    assert "Predictions" not in caplog.text


def test_a_panel_that_does_not_suit_is_told_once(show, caplog):
    settings = {"epochs": 3}
    show((SCORES, TARGETS), panels=["meshes", "table"], settings=settings)
    words = "no meshes of samples of shapes {'inputs': (3,), "
    assert caplog.text.count(words) == 1
    assert "table" not in caplog.text


def test_only_so_many_samples_of_every_other_epoch_are_seen(show):
    settings = {"epochs": 4}
    events = show((SCORES, TARGETS), panels=["table"], every=2, num_samples=3, settings=settings)
    shown = events.Tensors("predictions/table/text_summary")
    assert [event.step for event in shown] == [4, 8]
    assert shown[0].tensor_proto.string_val[0].decode().count("\n") == 5  # a batch has 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"every": 0}, "callbacks.0.args.every: .*0, found 0"),
        ({"num_samples": 0}, "callbacks.0.args.num_samples: .*0, found 0"),
        ({"panels": ["imags"]}, "callbacks.0.args.panels.*'images'"),
    ],
)
def test_a_wrong_argument_is_told(tree, load, args, words):
    tree["callbacks"] = [{"type": "Predictions", "args": args}]
    with pytest.raises(ConfigError, match=words):
        load(tree)


def test_without_validation_data_there_is_nothing_to_show(make_trainer, points, fit):
    trainer = make_trainer(nn.Linear(5, 3), points, callbacks=(Predictions(),))
    with pytest.raises(UsageError, match="Predictions: there is no validation data to show"):
        fit(trainer)


def test_without_tensorboard_it_is_told(tree, start):
    tree["callbacks"] = ["Predictions"]
    run = start(tree, "logger.tensorboard=false", "trainer.epochs=1")
    log = (run / "train.log").read_text()
    assert "Predictions: nothing is shown, since logger.tensorboard is false" in log


def read(run):
    sizes = {"images": 0, "tensors": 0}
    return EventAccumulator(f"{run}/tensorboard/valid", sizes).Reload()


def weights(run, epoch):
    path = run / f"checkpoints/checkpoint-epoch{epoch}.pth"
    return torch.load(path, weights_only=True)["model"]


def test_a_run_with_predictions_has_the_same_weights_and_a_resume_the_same_panels(
    tree, start, whole_and_resumed
):
    plain = start(tree, run_id="plain")
    tree["callbacks"] += ["Predictions"]
    whole, run = whole_and_resumed(tree, ("step", 7))
    expected = weights(plain, 3)
    for other in (whole, run):
        assert all(torch.equal(expected[name], weights(other, 3)[name]) for name in expected)
    first, second = read(whole), read(run)
    assert first.Tags() == second.Tags()
    for events in (first, second):
        steps = [picture.step for picture in events.Images("predictions/images")]
        assert steps == [5, 10, 15]
    curves = [tag for tag in first.Tags()["tensors"] if tag.startswith("pr_curve")]
    assert len(curves) == 3
    for tag in curves:
        values = [
            [list(event.tensor_proto.float_val) for event in events.Tensors(tag)]
            for events in (first, second)
        ]
        assert values[0] == values[1]


def test_with_two_processes_one_shows_and_both_train_as_before(two_processes, start, tree):
    tree["trainer"] |= {"epochs": 1}
    two_processes(lambda rank: start(tree, run_id="plain"))
    tree["callbacks"] += ["Predictions"]
    [run, _] = two_processes(lambda rank: start(tree))
    expected = weights(run.parent / "plain", 1)
    assert all(torch.equal(expected[name], weights(run, 1)[name]) for name in expected)
    assert read(run).Images("predictions/images")


def test_texts_of_different_lengths_are_shown_as_far_as_they_fit(show):
    events = show(Ragged(), settings={"batch_size": 2})
    [event] = events.Tensors("predictions/table/text_summary")
    assert len(event.tensor_proto.string_val[0].splitlines()) == 2 + 6
    assert events.Images("predictions/images")  # of the first batch


def test_the_pr_curve_takes_probabilities_as_they_are(show):
    events = show((SCORES.softmax(dim=1), TARGETS), panels=["pr_curves"])
    [event] = events.Tensors("pr_curve/2")
    true_positives = event.tensor_proto.float_val[:127]
    assert true_positives[120] == 1  # its share is 0.96
