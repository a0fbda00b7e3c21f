"""Averages over an epoch: exact for uneven batches, for torchmetrics, and after a resume."""

import functools

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor
from torchmetrics.aggregation import SumMetric
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassRecall,
)
from torchmetrics.wrappers import Running

from base.checkpoint.checkpoints import read_checkpoint, write_checkpoint
from base.errors import UsageError
from base.runtime import distributed
from base.runtime.metric_tracker import MetricTracker, per_sample

CPU = torch.device("cpu")


def share_right(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(dim=1) == target).float().mean()


def tracker(**metrics) -> MetricTracker:
    return MetricTracker(metrics, device=CPU)


def batches(sizes: tuple[int, ...] = (5, 5, 3), num_classes: int = 3):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.rand(size, num_classes, generator=generator),
            torch.randint(num_classes, (size,), generator=generator),
        )
        for size in sizes
    ]


def feed(tracker: MetricTracker, parts) -> MetricTracker:
    for output, target in parts:
        tracker.update(output, target, len(target))
    return tracker


# --- averages -------------------------------------------------------------------------------------


def test_uneven_batches_are_averaged_by_their_samples():
    parts = batches((7, 7, 1))
    output, target = map(torch.cat, zip(*parts, strict=True))
    averages = feed(tracker(accuracy=share_right), parts).compute()
    assert averages["accuracy"] == pytest.approx(share_right(output, target).item(), abs=1e-7)
    mean_of_means = sum(share_right(*part) for part in parts).item() / 3
    assert averages["accuracy"] != pytest.approx(mean_of_means, abs=1e-3)


def test_sums_are_exact_where_single_precision_is_not():
    sums = tracker()
    for value in (1.0, *[1e-8] * 1000):
        sums.add("loss", value, 1)
    assert sums.compute()["loss"] == pytest.approx((1 + 1e-5) / 1001, rel=1e-12)


@pytest.mark.parametrize(
    "value", [0.5, torch.tensor(0.5), torch.tensor([[0.5]], requires_grad=True), np.float64(0.5)]
)
def test_a_number_and_a_tensor_of_one_element_become_plain_numbers(value, recwarn):
    sums = tracker()
    sums.add("loss", value, 3)
    assert sums.compute() == {"loss": 0.5}
    assert type(sums.state_dict()["sums"]["loss"][0]) is float
    assert not recwarn.list


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(2, 3), r"a Tensor of shape \(2, 3\)"),
        (np.ones(2), r"a ndarray of shape \(2,\)"),
        ({"a": 1}, "a dict"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_scalar_is_told_with_its_column(value, found):
    with pytest.raises(UsageError, match=f"accuracy gives {found}, expected a scalar"):
        tracker(accuracy=lambda output, target: value).update(None, None, 1)


def test_the_loss_comes_first_and_no_gradient_is_kept():
    sums = tracker(accuracy=lambda output, target: output.mean())
    output = torch.ones(2, requires_grad=True)
    sums.update(output, None, 2)
    sums.add("loss", output.sum(), 2)
    assert list(sums.compute()) == ["loss", "accuracy"]


def test_a_disabled_tracker_counts_nothing():
    sums = tracker(accuracy=share_right, recall=MulticlassRecall(3))
    first, second, _ = batches()
    feed(sums, [first]).add("loss", 1.0, 5)
    before = sums.compute()
    sums.enabled = False
    feed(sums, [second]).add("loss", 9.0, 5)
    assert sums.compute() == before
    sums.enabled = True
    assert feed(sums, [second]).compute() != before


def test_a_reset_forgets_everything():
    sums = feed(tracker(accuracy=share_right, total=SumMetric()), ())
    sums.objects["total"].update(3)
    sums.add("loss", 1.0, 1)
    sums.compute_since_last_log()
    sums.reset()
    assert sums.compute() == {"total": 0.0}
    assert sums.compute_since_last_log() == {}


def test_an_interval_is_averaged_since_the_last_one():
    sums = tracker()
    sums.add("loss", 1.0, 4)
    sums.add("loss", 4.0, 2)
    assert sums.compute_since_last_log() == {"loss": 2.0}
    sums.add("loss", 5.0, 1)
    assert sums.compute_since_last_log() == {"loss": pytest.approx(5.0)}
    assert sums.compute_since_last_log() == {}
    assert sums.compute() == {"loss": pytest.approx(17 / 7)}


def test_ranks_are_averaged_by_their_samples(monkeypatch):
    other = {"loss": (2.0, 1), "accuracy": (4.0, 4)}
    monkeypatch.setattr(distributed, "gather_objects", lambda thing: [thing, other])
    sums = tracker()
    sums.add("loss", 5.0, 3)
    assert sums.compute() == {"loss": 17 / 4, "accuracy": 1.0}


def test_off_the_cpu_sums_stay_on_the_device_until_asked():
    sums = MetricTracker({}, device=torch.device("meta"))
    sums.add("loss", torch.ones(1, device="meta"), 3)
    sums.add("loss", 2.0, 3)
    assert sums.sums["loss"][0].device.type == "meta"
    assert sums.sums["loss"][0].dtype == torch.float64


def test_the_device_is_waited_for_once_however_many_columns_there_are(monkeypatch):
    sums, waits = MetricTracker({}, device=torch.device("meta")), []
    for column in ("loss", "fit", "prior"):
        sums.add(column, torch.ones((), device="meta"), 2)
    sums.add("number", 4.0, 2)
    monkeypatch.setattr(Tensor, "tolist", lambda sums: waits.append(sums.shape) or [2.0, 4.0, 6.0])
    expected = {"loss": 1.0, "fit": 2.0, "prior": 3.0, "number": 4.0}
    assert sums.compute_since_last_log() == expected
    assert waits == [(3,)]


# --- torchmetrics ---------------------------------------------------------------------------------


class F1PlusRecall(torchmetrics.Metric):
    """A metric of the project over a collection, whose members share their states."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torchmetrics.MetricCollection([MulticlassF1Score(3), MulticlassRecall(3)])

    def update(self, output: Tensor, target: Tensor) -> None:
        self.parts.update(output, target)

    def compute(self) -> Tensor:
        return sum(self.parts.compute().values())

    def reset(self) -> None:
        super().reset()
        self.parts.reset()


class RunningError(Running):
    """A wrapper that counts beside its states: mean squared error over the last three batches."""

    def __init__(self) -> None:
        super().__init__(torchmetrics.MeanSquaredError(), window=3)

    def update(self, output: Tensor, target: Tensor) -> None:
        super().update(output[:, 0], target.float())


class Error(torchmetrics.MeanSquaredError):
    """A metric that adds to its states in place."""

    def update(self, output: Tensor, target: Tensor) -> None:
        super().update(output[:, 0], target.float())


class Auroc(BinaryAUROC):
    """A metric whose states are lists of what it saw."""

    def update(self, output: Tensor, target: Tensor) -> None:
        super().update(output[:, 0], (target > 0).long())


METRICS = {
    "micro": functools.partial(MulticlassAccuracy, 3, average="micro"),
    "f1_plus_recall": F1PlusRecall,
    "running": RunningError,
    "auroc": Auroc,
    "sum_of_two": lambda: MulticlassRecall(3) + MulticlassF1Score(3),
}


def test_torchmetrics_see_every_batch_and_are_computed_once():
    parts = batches((7, 7, 1))
    output, target = map(torch.cat, zip(*parts, strict=True))
    averages = feed(tracker(f1=MulticlassF1Score(3), ok=share_right), parts).compute()
    assert averages["f1"] == pytest.approx(MulticlassF1Score(3)(output, target).item())
    assert list(averages) == ["ok", "f1"]


def test_two_trackers_of_one_metric_do_not_mix():
    metric = MulticlassRecall(3)
    first, second = tracker(recall=metric), tracker(recall=metric)
    feed(first, batches())
    assert not second.objects["recall"].update_called


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("done", [1, 2, 4])
def test_a_metric_continued_from_a_checkpoint_is_bitwise_one_never_stopped(tmp_path, name, done):
    parts = batches((6, 6, 6, 6, 4))
    whole = feed(tracker(m=METRICS[name](), ok=share_right), parts)
    stopped = feed(tracker(m=METRICS[name](), ok=share_right), parts[:done])
    write_checkpoint(tmp_path / "x.pth", stopped.state_dict())
    resumed = tracker(m=METRICS[name](), ok=share_right)
    resumed.load_state_dict(read_checkpoint(tmp_path / "x.pth"))
    assert resumed.compute() == stopped.compute()
    assert feed(resumed, parts[done:]).compute() == whole.compute()
    assert feed(resumed, parts).compute() != stopped.compute()


@pytest.mark.parametrize("metric", [Auroc, Error])
def test_a_state_is_a_copy_and_loading_takes_one(metric):
    parts = batches()
    stopped = feed(tracker(m=metric()), parts[:1])
    state = stopped.state_dict()
    feed(stopped, parts[1:])
    resumed = tracker(m=metric())
    resumed.load_state_dict(state)
    feed(resumed, parts[1:])
    again = tracker(m=metric())
    again.load_state_dict(state)
    assert feed(again, parts[1:]).compute() == resumed.compute() == stopped.compute()


def test_an_interval_goes_on_after_a_resume():
    sums = tracker()
    sums.add("loss", 1.0, 4)
    sums.compute_since_last_log()
    sums.add("loss", 3.0, 2)
    resumed = tracker()
    resumed.load_state_dict(sums.state_dict())
    assert resumed.compute_since_last_log() == sums.compute_since_last_log() == {"loss": 3.0}


def test_a_metric_that_computes_something_else_than_a_scalar_is_named():
    sums = feed(tracker(per_class=MulticlassRecall(3, average=None)), batches())
    with pytest.raises(UsageError, match=r"per_class gives a Tensor of shape \(3,\), expected"):
        sums.compute()


# --- metrics per sample ---------------------------------------------------------------------------


@per_sample
def hits(output: Tensor, target: Tensor) -> Tensor:
    hits.sizes.append(len(target))
    return output.argmax(dim=1) == target


@pytest.fixture
def sizes() -> list[int]:
    """The sizes of what `hits` was given."""
    hits.sizes = []
    return hits.sizes


def test_small_batches_are_joined_for_a_metric_per_sample(sizes):
    parts = batches((5, 5, 3))
    joined = feed(tracker(accuracy=hits), parts)
    assert sizes == []
    output, target = map(torch.cat, zip(*parts, strict=True))
    expected = (output.argmax(dim=1) == target).sum().item() / 13
    assert joined.compute() == {"accuracy": expected}
    assert sizes == [13]
    assert feed(joined, parts).compute_since_last_log() == {"accuracy": expected}
    assert sizes == [13, 13]


def test_large_batches_and_those_of_another_shape_are_not_joined(sizes):
    feed(tracker(accuracy=hits), [(torch.rand(2000, 40), torch.zeros(2000))])
    assert sizes == [2000]
    uneven = tracker(accuracy=functools.partial(hits))
    feed(uneven, batches((5, 4)) + batches((3,), num_classes=7)).compute()
    assert sizes == [2000, 5, 4, 3]


def test_joined_batches_survive_a_checkpoint(sizes):
    parts = batches((5, 5, 3))
    first = feed(tracker(accuracy=hits), parts[:2])
    state = first.state_dict()
    assert sizes == []
    second = tracker(accuracy=hits)
    second.load_state_dict(state)
    assert feed(second, parts[2:]).compute() == feed(first, parts[2:]).compute()
    assert sizes == [13, 13]


def test_joined_batches_are_copies_that_keep_nothing_else(sizes):
    joined = tracker(accuracy=hits)
    wide = torch.zeros(4, 1000, 3)
    output, target = wide[:, -1], torch.zeros(4, dtype=torch.int64)
    joined.update(output, target, 4)
    output.fill_(-1)[:, 2] = 1
    target.fill_(1)
    assert all(len(kept.untyped_storage()) < 200 for kept in joined.joined[0])
    assert joined.compute() == {"accuracy": 1.0}


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("metric", [hits, functools.partial(hits)])
def test_a_metric_per_sample_is_averaged_over_all_samples(metric):
    parts = batches((5, 5, 3))
    output, target = map(torch.cat, zip(*parts, strict=True))
    expected = (output.argmax(dim=1) == target).sum().item() / 13
    assert feed(tracker(accuracy=metric), parts).compute() == {"accuracy": expected}


def test_a_metric_per_sample_that_gives_a_mean_is_told():
    @per_sample
    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(dim=1) == target).float().mean()

    with pytest.raises(
        UsageError, match=r"wrong gives a Tensor of shape \(\), expected one value per sample"
    ):
        feed(tracker(wrong=wrong), batches((5,))).compute()
