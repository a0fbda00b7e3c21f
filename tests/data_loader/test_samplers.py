"""Samplers: what they draw, the same after a resume, for any number of workers and of ranks."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from base import BaseDataLoader
from base.data.batch_dataset import BatchDataset
from base.data.order import EpochBatchSampler
from base.errors import DataError, UsageError
from base.registry import SAMPLERS
from base.registry.build import build, check
from data_loader.samplers import LengthBuckets, WeightedByClass

NUM_RARE = 30


class Signals(Dataset):
    """400 signals of 1 to 100 zeros; one of a few is of the rare class 7, the others of class 2."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.lengths = torch.randint(1, 101, (400,), generator=generator).tolist()
        self.targets = [7] * NUM_RARE + [2] * (400 - NUM_RARE)

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int):
        return torch.zeros(self.lengths[index]), self.targets[index]


class Untold(Dataset):
    """The same without attributes that tell of the samples before they are read."""

    def __init__(self, take: Callable = lambda sample: sample) -> None:
        self.signals = Signals()
        self.take = take

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int):
        return self.take(self.signals[index])


def pad(samples: list) -> tuple[torch.Tensor, torch.Tensor]:
    signals, targets = zip(*samples, strict=True)
    return torch.nn.utils.rnn.pad_sequence(signals, batch_first=True), torch.tensor(targets)


def make(sampler, dataset: Dataset | None = None, **kwargs) -> BaseDataLoader:
    torch.manual_seed(5)
    dataset = dataset or Signals()
    return BaseDataLoader(dataset, 8, sampler=sampler, collate_fn=pad, **kwargs)


def positions(loader: BaseDataLoader, start: int, count: int) -> list[list[int]]:
    loader.batch_sampler.start, loader.batch_sampler.stop = start, start + count
    return [batch.rows.tolist() for batch in loader.batch_sampler]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def epoch(loader: BaseDataLoader, number: int = 0) -> list[int]:
    return flat(positions(loader, number * len(loader), len(loader)))


def read(loader: BaseDataLoader, start: int, count: int) -> list[tuple[list, list]]:
    loader.prepare([noise], in_memory=False, device=torch.device("cpu"), training=True)
    return [(x.tolist(), y.tolist()) for x, y in loader.batches(start, count)]


def noise(x: torch.Tensor) -> torch.Tensor:
    return x + torch.rand(1)


@pytest.fixture(params=[WeightedByClass, LengthBuckets])
def sampler(request):
    return request.param()


# --- what every sampler keeps ---------------------------------------------------------------------


def test_an_epoch_has_as_many_samples_as_without_and_the_next_differs(sampler):
    loader = make(sampler, validation_split=3)
    assert len(loader) == 50
    assert len(epoch(loader)) == len(epoch(loader, 1)) == 397
    assert epoch(loader) != epoch(loader, 1)


def test_any_batch_is_found_without_those_before_it_and_moves_no_generator_of_the_run(sampler):
    loader = make(sampler)
    before = torch.get_rng_state()
    through = positions(loader, 0, 150)
    assert positions(make(type(sampler)()), 75, 50) == through[75:125]
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_the_same_after_a_resume_within_an_epoch_and_for_any_number_of_workers(sampler):
    through = read(make(sampler), 0, 100)
    assert read(make(type(sampler)()), 73, 20) == through[73:93]
    assert read(make(type(sampler)(), num_workers=2), 73, 20) == through[73:93]


def test_two_ranks_read_together_what_one_process_reads_with_a_batch_as_large(sampler, monkeypatch):
    torch.manual_seed(5)
    alone = BaseDataLoader(Signals(), 16, sampler=sampler)
    ranks = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        ranks.append(positions(make(type(sampler)()), 30, 10))  # from within the second epoch
    expected = positions(alone, 30, 10)
    assert [a + b for a, b in zip(*ranks, strict=True)] == expected


def test_what_the_dataset_does_not_tell_is_read_from_its_samples(sampler):
    before = torch.get_rng_state()
    told, read = make(sampler), make(type(sampler)(), Untold())
    assert epoch(told) == epoch(read)
    torch.set_rng_state(before)
    make(sampler, Untold(lambda sample: (sample[0] + torch.rand(1), sample[1])))
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    make(sampler, Untold(lambda sample: (sample[0] + torch.rand(1), sample[1])))
    assert torch.equal(torch.get_rng_state(), expected)


def test_validation_is_in_the_order_of_the_dataset(sampler):
    valid = make(sampler, validation_split=20).split_validation()
    assert epoch(valid) == list(range(20))
    test = make(sampler, shuffle=False)  # what `test.py` builds of the same config
    test.prepare([], in_memory=False, device=torch.device("cpu"), training=False)
    assert epoch(test) == list(range(400))
    make(sampler, TensorDataset(torch.tensor(0.5)[None]), shuffle=False)  # nothing is asked of it


def test_training_without_shuffle_is_refused(sampler):
    loader = make(sampler, shuffle=False)
    message = f"sampler {type(sampler).__name__} shuffles, but shuffle is false; remove one"
    with pytest.raises(UsageError, match=message):
        loader.prepare([], in_memory=False, device=torch.device("cpu"), training=True)


@pytest.mark.parametrize("name", ["WeightedByClass", "LengthBuckets"])
def test_a_config_names_it(name):
    assert type(build({"type": name}, SAMPLERS, path=("x",))).__name__ == name
    assert SAMPLERS.names()[name] == "data_loader/samplers.py"


# --- WeightedByClass ------------------------------------------------------------------------------


def test_classes_come_equally_often_however_rare_also_after_a_resume():
    loader = make(WeightedByClass())
    drawn = flat(positions(loader, 75, 50))  # from the middle of epoch 1 to that of epoch 2
    num_rare = sum(position < NUM_RARE for position in drawn)
    assert len(drawn) == 400
    assert abs(num_rare - 200) < 40  # 4 standard deviations; without the sampler they are about 30


def test_samples_of_a_class_come_equally_often():
    loader = make(WeightedByClass())
    drawn = np.concatenate([epoch(loader, number) for number in range(100)])
    counts = np.bincount(drawn, minlength=400)
    expected = np.where(np.arange(400) < NUM_RARE, 20_000 / NUM_RARE, 20_000 / 370)
    assert abs((counts - expected) / expected**0.5).max() < 4.5  # standard deviations
    assert len(set(drawn)) == 400


def test_only_training_samples_are_drawn_and_weighted():
    loader = make(WeightedByClass(), validation_split=0.5)
    targets = torch.tensor(Signals().targets)[loader.dataset.indices]
    drawn = targets[torch.tensor([epoch(loader, number) for number in range(20)])]
    assert abs((drawn == 7).float().mean() - 0.5) < 0.04


def test_a_sample_drawn_again_in_an_epoch_is_augmented_anew():
    dataset = TensorDataset(torch.zeros(40, 1), torch.arange(40).clamp(max=1))  # class 0 is alone
    for in_memory in (True, False):
        loader = BaseDataLoader(dataset, 8, sampler=WeightedByClass())
        loader.prepare([noise], in_memory=in_memory, device=torch.device("cpu"), training=True)
        inputs, targets = map(torch.cat, zip(*loader, strict=True))
        assert (targets == 0).sum() > 10
        assert len(inputs.unique()) == 40


def test_samples_kept_in_memory_are_those_that_are_drawn():
    dataset = TensorDataset(torch.arange(40.0)[:, None], torch.arange(40).clamp(max=1))
    batches = []
    for in_memory in (True, False):
        torch.manual_seed(5)
        loader = BaseDataLoader(dataset, 8, sampler=WeightedByClass())
        loader.prepare([], in_memory=in_memory, device=torch.device("cpu"), training=True)
        batches.append([x.flatten().tolist() for x, _ in loader.batches(2, 6)])
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    "take",
    [
        lambda sample: sample[0],
        lambda sample: sample[:1],
        lambda sample: (sample[0], "rare"),
        lambda sample: (sample[0], 0.5),
        lambda sample: (sample[0], torch.zeros(3)),
    ],
    ids=["no pair", "one part", "text", "fraction", "vector"],
)
def test_samples_without_a_class_are_refused(take):
    message = "Untold has no targets for the sampler, which needs a whole number for each sample"
    with pytest.raises(UsageError, match=message):
        make(WeightedByClass(), Untold(take))


def test_targets_of_another_number_than_the_samples_are_refused():
    dataset = Signals()
    dataset.targets = dataset.targets[:-1]
    with pytest.raises(UsageError, match="Signals has no targets for the sampler"):
        make(WeightedByClass(), dataset)


def test_a_sample_that_cannot_be_read_is_named():
    def fail(sample):
        raise OSError("gone")

    with pytest.raises(DataError, match="sample 0 of Untold cannot be read: gone"):
        make(WeightedByClass(), Untold(fail))


def test_classes_are_those_that_the_target_transform_gives():
    dataset = Signals()
    dataset.target_transform = lambda target: 0
    dataset.__class__ = type("Same", (Signals,), {"__getitem__": lambda self, i: (i, i % 2)})
    drawn = epoch(make(WeightedByClass(), dataset))
    assert abs(sum(position < NUM_RARE for position in drawn) - NUM_RARE) < 20


# --- LengthBuckets --------------------------------------------------------------------------------


def padding(loader: BaseDataLoader) -> float:
    """Return the share of batches that is padding, over an epoch from the middle of the first."""
    count = len(loader)
    lengths = loader.dataset.dataset.lengths
    batches = [[lengths[p] for p in batch] for batch in positions(loader, count // 2, count)]
    area = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(map(sum, batches)) / area


def test_buckets_hold_every_sample_once_and_little_padding():
    loader = make(LengthBuckets())
    assert sorted(epoch(loader, 1)) == list(range(400))
    assert padding(loader) < 0.1 * padding(make(None))
    assert padding(make(LengthBuckets(pool=5))) < 0.5 * padding(make(None))


def test_batches_come_in_no_order_of_length_and_the_short_one_last():
    loader = make(LengthBuckets(), validation_split=3)
    batches = positions(loader, 0, len(loader))
    assert [len(batch) for batch in batches] == [8] * 49 + [5]
    indices, lengths = loader.dataset.indices, Signals().lengths
    longest = [max(lengths[indices[p]] for p in batch) for batch in batches[:-1]]
    assert abs(np.corrcoef(longest, np.arange(49))[0, 1]) < 0.4


def test_a_pool_below_one_is_an_issue_of_the_config():
    [issue] = check({"type": "LengthBuckets", "args": {"pool": 0}}, SAMPLERS, path=("sampler",))
    assert str(issue).startswith("sampler.args.pool: ")


def test_samples_without_a_length_are_refused():
    with pytest.raises(UsageError, match="Untold has no lengths for the sampler"):
        make(LengthBuckets(), Untold(lambda sample: (sample[1], sample[1])))


def test_one_batch_may_hold_all():
    samples = BatchDataset(Signals(), torch.arange(400), seed=0, collate_fn=pad)
    buckets = LengthBuckets()
    buckets.prepare(samples, batch_size=500)
    order = EpochBatchSampler(400, batch_size=500, shuffle=True, seed=0, sampler=buckets)
    assert [sorted(batch.positions) for batch in order] == [list(range(400))]
