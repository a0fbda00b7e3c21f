"""TensorBoard's events as they are read back."""

import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.plugins.hparams import metadata
from torch import nn

from base.base_writer import ResumedFrom
from logger import RunDirectory, setup_logging
from logger.tensorboard_writer import TensorBoardWriter, flatten, scale_images

READERS = [event_accumulator.EventAccumulator, plugin_event_accumulator.EventAccumulator]


def tensorboard(folder, resume=None, config=None):
    return TensorBoardWriter(run=RunDirectory(folder), resume=resume, config=config)


def read(folder, part="train", reader=event_accumulator.EventAccumulator):
    # without a limit on how many events are kept of a tag
    return reader(
        str(RunDirectory(folder).tensorboard / part), {"scalars": 0, "tensors": 0, "images": 0}
    ).Reload()


def steps(folder, part, reader):
    events = read(folder, part, reader)
    is_plain = reader is event_accumulator.EventAccumulator
    return [event.step for event in (events.Scalars if is_plain else events.Tensors)("loss")]


def write_loss(folder, step_range, *, is_new=False):
    first = step_range.start
    writer = tensorboard(folder, None if is_new else ResumedFrom(first // 5, first - 1))
    for step in step_range:
        writer.log_step({"loss": 1 / step}, step)
        if step % 5 == 0:
            writer.log_epoch({"epoch": step // 5, "step": step, "loss": 9.0, "val_loss": 2 / step})
    writer.close()


def test_train_and_validation_share_a_tag_in_two_folders(tmp_path):
    write_loss(tmp_path, range(1, 11), is_new=True)
    assert read(tmp_path).Scalars("loss")[3].value == pytest.approx(1 / 4)
    assert [event.step for event in read(tmp_path, "valid").Scalars("loss")] == [5, 10]


@pytest.mark.parametrize("reader", READERS)
def test_after_resumes_every_step_is_there_once(tmp_path, reader):
    write_loss(tmp_path, range(1, 18), is_new=True)
    write_loss(tmp_path, range(13, 24))
    write_loss(tmp_path, range(8, 31))
    assert steps(tmp_path, "train", reader) == list(range(1, 31))
    assert steps(tmp_path, "valid", reader) == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("reader", READERS)
def test_many_resumes_within_a_second_keep_their_order(tmp_path, reader):
    for start in range(1, 14):
        write_loss(tmp_path, range(start, start + 4), is_new=start == 1)
    assert steps(tmp_path, "train", reader) == list(range(1, 17))


def test_a_resume_on_a_clock_that_is_behind_still_comes_later(tmp_path, monkeypatch):
    write_loss(tmp_path, range(1, 9), is_new=True)
    monkeypatch.setattr("logger.event_file.time.time", lambda: 1e9)
    write_loss(tmp_path, range(5, 11))
    events = read(tmp_path).Scalars("loss")
    assert [event.step for event in events] == list(range(1, 11))


def test_a_record_torn_by_a_kill_costs_only_itself(tmp_path):
    write_loss(tmp_path, range(1, 9), is_new=True)
    [path] = (tmp_path / "tensorboard" / "train").iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    write_loss(tmp_path, range(8, 11))
    events = read(tmp_path).Scalars("loss")
    assert [event.step for event in events] == list(range(1, 11))


def test_the_torch_writers_methods_are_there_too(tmp_path):
    writer = tensorboard(tmp_path)
    writer.train_events.add_histogram("weights", torch.arange(5.0), 1)
    writer.close()
    assert read(tmp_path).Tags()["histograms"] == ["weights"]


class FrozenNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
        self.layers[1].eval()

    def forward(self, x):
        return {"logits": self.layers(x), "noise": torch.rand(1)}


def test_a_graph_leaves_the_model_and_the_random_state_alone(tmp_path):
    model = FrozenNorm()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    writer = tensorboard(tmp_path)
    writer.log_model(model, torch.randn(2, 4, generator=torch.Generator()))
    writer.close()
    assert read(tmp_path).Tags()["graph"]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_a_model_without_a_graph_costs_one_line(tmp_path, capsys):
    setup_logging(None)
    model = nn.Linear(4, 3).train()
    writer = tensorboard(tmp_path)
    writer.log_model(model, torch.randn(2, 5))
    writer.close()
    shown = capsys.readouterr()
    assert shown.out.startswith("warning: TensorBoard shows no graph of this model: ")
    assert shown.out.count("\n") == 1
    assert shown.err == ""
    assert model.training


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_shows_at_most_32_inputs(tmp_path, channels):
    writer = tensorboard(tmp_path)
    writer.log_model(nn.Flatten(), 5 * torch.randn(40, channels, 8, 8))
    writer.close()
    [event] = read(tmp_path).Images("inputs")
    assert (event.width, event.height) == (8 * 8, 4 * 8)


def test_each_image_is_scaled_to_its_own_range():
    images = torch.stack([torch.arange(4.0), 100 * torch.arange(4.0), torch.full((4,), 7.0)])
    shown = scale_images(images.view(3, 1, 2, 2))
    assert shown.amax((1, 2, 3)).tolist() == [1, 1, 0]
    assert shown.min() == 0
    assert scale_images(torch.full((1, 1, 2, 2), torch.nan)).isfinite().all()


@pytest.mark.parametrize("inputs", [torch.zeros(4, 8), torch.zeros(4, 2, 8, 8), ["a"], None])
def test_inputs_that_are_no_images_are_passed_over(tmp_path, inputs):
    writer = tensorboard(tmp_path)
    writer.log_model(nn.Identity(), inputs)
    writer.close()
    assert read(tmp_path).Tags()["images"] == []


def test_hparams_lie_in_the_runs_own_event_folder(tmp_path):
    config = {"optimizer": {"type": "Adam", "args": {"lr": 0.1, "amsgrad": True}}, "seed": None}
    for best in (0.5, 0.25):  # a finished run may be extended and finish again
        writer = tensorboard(tmp_path, config=config)
        writer.finish({"best": {"epoch": 3, "seconds": 1.5, "val_loss": best}})
        writer.close()
    folders = (path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir())
    assert sorted(folders) == ["train", "valid"]
    events = read(tmp_path, ".")
    assert events.Tags()["scalars"] == ["summary/best.val_loss"]
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    assert set(values) == {"optimizer.type", "optimizer.args.lr", "optimizer.args.amsgrad"}
    assert values["optimizer.args.lr"].number_value == 0.1
    assert values["optimizer.args.amsgrad"].bool_value is True
    assert [event.value for event in events.Scalars("summary/best.val_loss")] == [0.25]


def test_flatten_gives_scalars_by_dotted_path():
    node = {
        "metrics": ["accuracy", {"type": "top_k", "args": {"k": 5}}],
        "lr": float("inf"),
        "betas": (0.9, 0.99),
        "none": None,
    }
    assert flatten(node) == {
        "metrics.0": "accuracy",
        "metrics.1.type": "top_k",
        "metrics.1.args.k": 5,
        "lr": "inf",
        "betas": "(0.9, 0.99)",
    }
