"""The order of samples: found again at any batch, the same for any number of workers and ranks."""

import itertools
import math
import multiprocessing
import os
import random
import signal
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, SequentialSampler, TensorDataset
from torchvision.transforms import v2

from base import BaseDataLoader
from base.data.order import REPEAT_OFFSET, EpochBatchSampler, SampleOrder
from base.errors import DataError, UsageError

CPU = torch.device("cpu")


class Numbers(Dataset):
    """Sample i is (i, i)."""

    def __init__(self, num_samples: int = 10) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([float(index)]), index


def noise(x: torch.Tensor) -> torch.Tensor:
    """Draw from each of the three generators that augmentations use."""
    return torch.cat([x, torch.rand(1), torch.tensor([random.random(), np.random.rand()])])


def make(num_samples: int = 10, **kwargs) -> BaseDataLoader:
    torch.manual_seed(5)
    return BaseDataLoader(Numbers(num_samples), **({"batch_size": 4} | kwargs))


def prepare(loader: BaseDataLoader, transforms=(), in_memory=False, training=True) -> str:
    return loader.prepare(list(transforms), in_memory=in_memory, device=CPU, training=training)


def indices(batches) -> list[list[int]]:
    return [target.tolist() for _, target in batches]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


# --- order ----------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_and_the_next_is_another():
    loader = make(100, batch_size=8)
    epochs = [flat(indices(loader.batches(e * len(loader), len(loader)))) for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(100))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(100))


def test_any_batch_is_found_without_those_before_it():
    loader = make(10)  # 3 batches an epoch
    through = indices(loader.batches(0, 9))
    assert [indices(loader.batches(number, 1))[0] for number in range(9)] == through
    assert indices(loader.batches(4, 4)) == through[4:8]


def test_the_order_is_fixed_by_the_seed_of_the_run_and_draws_nothing_from_it():
    loader = make(10)
    before = torch.get_rng_state()
    first = indices(loader)
    assert torch.equal(torch.get_rng_state(), before)
    assert indices(make(10)) == first
    torch.manual_seed(6)
    assert indices(BaseDataLoader(Numbers(10), batch_size=4)) != first


def test_without_shuffle_the_order_is_that_of_the_dataset():
    assert indices(make(10, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(UsageError, match="batch_size is 0, expected 1 or more"):
        make(batch_size=0)


# --- several ranks --------------------------------------------------------------------------------


def samplers(monkeypatch, num_samples: int, *, world_size: int = 3, training: bool = True):
    made = []
    for rank in range(world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        made.append(EpochBatchSampler(num_samples, batch_size=4, shuffle=True, seed=1))
        made[-1].every_rank_steps = training
    return made


@pytest.mark.parametrize("num_samples", [24, 29, 27, 26, 25])
def test_evaluation_on_three_ranks_sees_every_sample_exactly_once(monkeypatch, num_samples):
    seen = [
        batch.positions.tolist()
        for sampler in samplers(monkeypatch, num_samples, training=False)
        for batch in sampler
    ]
    assert all(seen)
    assert sorted(flat(seen)) == list(range(num_samples))


@pytest.mark.parametrize(("num_samples", "covered"), [(24, 24), (29, 29), (27, 27), (26, 24)])
def test_in_training_every_rank_steps_as_often_and_parts_differ_by_one_at_most(
    monkeypatch, num_samples, covered
):
    ranks = [list(sampler) for sampler in samplers(monkeypatch, num_samples)]
    assert len({len(batches) for batches in ranks}) == 1
    for parts in zip(*ranks, strict=True):
        sizes = [len(part.positions) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
    seen = [position for batches in ranks for batch in batches for position in batch.positions]
    assert len(set(seen)) == len(seen) == covered


def test_the_ranks_together_read_what_one_process_reads_with_a_batch_as_large(monkeypatch):
    ranks = samplers(monkeypatch, 29)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = EpochBatchSampler(29, batch_size=12, shuffle=True, seed=1)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert np.array_equal(whole.positions, np.concatenate([p.positions for p in parts]))


def test_weights_make_the_mean_over_ranks_the_mean_over_samples(monkeypatch):
    ranks = samplers(monkeypatch, 29)
    values = torch.rand(29)
    for number, parts in enumerate(zip(*ranks, strict=True)):
        weights = [sampler.weight(number) for sampler in ranks]
        assert math.isclose(sum(weights), 3)
        means = [values[part.positions].mean() for part in parts]
        mean_over_ranks = sum(w * m for w, m in zip(weights, means, strict=True)) / 3
        whole = np.concatenate([part.positions for part in parts])
        assert torch.isclose(mean_over_ranks, values[whole].mean())
    assert ranks[0].weight(0) == 1.0


def test_samples_are_counted_over_ranks_and_epochs(monkeypatch):
    sampler = samplers(monkeypatch, 29)[0]
    assert len(sampler) == 3  # of 12, 12 and 5 samples
    assert sampler.count_samples(0, 3) == 29
    assert sampler.count_samples(2, 2) == 5 + 12
    without_rest = samplers(monkeypatch, 26)[0]  # a last batch of 2 is left out of training
    assert without_rest.count_samples(1, 3) == 36


def test_fewer_samples_than_ranks_cannot_be_trained_on(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    loader = make(2)
    with pytest.raises(DataError, match="2 samples are too few for 3 processes"):
        prepare(loader)
    prepare(loader, training=False)
    assert indices(loader) == [[1]] or indices(loader) == [[0]]


# --- samplers -------------------------------------------------------------------------------------


class Fixed(SampleOrder):
    """Always the same order."""

    def __init__(self, *order: int) -> None:
        self.order = torch.tensor(order, dtype=torch.int32)

    def positions(self, generator: torch.Generator) -> torch.Tensor:
        return self.order


def test_a_sampler_sets_the_order_of_training_and_not_of_validation():
    loader = make(6, sampler=Fixed(3, 0, 1, 2), validation_split=2, batch_size=3)
    indices_in_order = loader.dataset.indices[[3, 0, 1, 2]].tolist()
    assert flat(indices(loader)) == indices_in_order
    assert flat(indices(loader.split_validation())) == loader.valid_indices.tolist()


def test_a_position_that_comes_again_has_another_number():
    loader = make(5, sampler=Fixed(4, 1, 4, 4, 1), batch_size=5)
    (batch,) = loader.batch_sampler
    assert (batch.positions - [4, 1, 4, 4, 1]).tolist() == [
        0,
        0,
        REPEAT_OFFSET,
        2 * REPEAT_OFFSET,
        REPEAT_OFFSET,
    ]
    assert indices(loader.batches(0, 2)) == [[4, 1, 4, 4, 1]] * 2
    prepare(loader, [noise])
    inputs, _ = next(iter(loader))
    assert len(inputs[:, 1:].unique()) == 15  # noise of its own each time


@pytest.mark.parametrize(
    ("order", "found"),
    [((0, 1), r"\(2,\) from 0 to 1"), ((0, 1, 3), "0 to 3"), ((0, 1, -1), "-1 to 1")],
)
def test_positions_that_do_not_fit_are_refused(order, found):
    with pytest.raises(UsageError, match=f"gave positions .*{found}, expected 3 from 0 to 2"):
        list(make(3, sampler=Fixed(*order)))


@pytest.mark.parametrize("sampler", ["Fixed", SequentialSampler([1])])
def test_what_is_no_sample_order_is_refused_as_a_sampler(sampler):
    message = "sampler is .*, expected a SampleOrder; torch's cannot resume"
    with pytest.raises(UsageError, match=message):
        make(sampler=sampler)


# --- the split ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("validation_split", "num_valid"), [(0.25, 5), (0.99, 19), (7, 7), (1, 1)])
def test_validation_gets_a_share_or_a_number_of_samples_and_training_the_rest(
    validation_split, num_valid
):
    loader = make(20, validation_split=validation_split)
    valid = loader.split_validation()
    train_indices, valid_indices = flat(indices(loader)), flat(indices(valid))
    assert len(valid_indices) == valid.num_samples == num_valid
    assert sorted(train_indices + valid_indices) == list(range(20))
    assert valid_indices == sorted(valid_indices)  # it is not shuffled
    assert valid_indices != list(range(20 - num_valid, 20))


def test_the_split_follows_the_seed():
    first = make(100, validation_split=0.1).valid_indices
    assert torch.equal(make(100, validation_split=0.1).valid_indices, first)
    torch.manual_seed(6)
    other = BaseDataLoader(Numbers(100), validation_split=0.1).valid_indices
    assert not torch.equal(other, first)


def test_a_dataset_that_wants_to_know_is_told_the_training_samples():
    class Fitting(Numbers):
        def fit_to(self, indices):
            self.known = indices

    loader = BaseDataLoader(Fitting(9), validation_split="2/3")
    assert torch.equal(loader.dataset.dataset.known, loader.dataset.indices)
    assert loader.split_validation().dataset.dataset is loader.dataset.dataset


def test_no_split_means_no_validation_loader():
    assert make(10).split_validation() is None


def test_the_validation_loader_takes_after_the_training_loader():
    def collate(samples):
        return len(samples)

    valid = make(
        10, validation_split=5, collate_fn=collate, num_workers=1, timeout=9
    ).split_validation()
    assert (valid.num_workers, valid.timeout) == (1, 9)
    valid.num_workers = valid.timeout = 0
    assert list(valid) == [4, 1]


@pytest.mark.parametrize("validation_split", [1.0, 1.5, -0.1, 20, -1])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(validation_split):
    with pytest.raises(DataError, match="Numbers has 20 samples; a validation_split of"):
        make(20, validation_split=validation_split)


def test_an_empty_dataset_is_refused():
    with pytest.raises(DataError, match="Numbers has no samples"):
        make(0)


def test_a_dataset_without_length_or_index_is_refused_with_the_reason():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 1

    class Endless:
        def __getitem__(self, index):
            return index

    for dataset in (Stream(), Endless()):
        with pytest.raises(DataError, match="has no length and no index; a resumable order needs"):
            BaseDataLoader(dataset)


# --- workers --------------------------------------------------------------------------------------


def batches(loader: BaseDataLoader, start: int, count: int) -> list[torch.Tensor]:
    return [inputs for inputs, _ in loader.batches(start, count)]


def assert_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second)
    assert all(map(torch.equal, first, second))


def test_augmented_batches_are_the_same_for_any_number_of_workers_and_after_a_resume():
    def loader(num_workers: int) -> BaseDataLoader:
        made = make(10, num_workers=num_workers)
        prepare(made, [noise])
        return made

    alone = loader(0)
    expected = batches(alone, 0, 9)  # three epochs of three
    assert len(torch.cat(expected).unique(dim=0)) == 30  # no two samples share their noise
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert_equal(batches(alone, 0, 9), expected)
    with_worker = loader(1)
    assert_equal(batches(with_worker, 0, 3), expected[:3])
    assert_equal(batches(with_worker, 3, 3), expected[3:6])  # the worker sees the new epoch
    assert_equal(batches(loader(2), 4, 5), expected[4:])  # as a run continued within an epoch


def test_what_a_sample_draws_depends_on_its_index_and_not_on_its_place_among_the_others():
    def noise_by_index(**kwargs) -> dict[int, list[float]]:
        loader = make(10, **kwargs)
        prepare(loader, [noise])
        return {
            i: x.tolist()
            for inputs, target in loader
            for i, x in zip(target.tolist(), inputs, strict=True)
        }

    whole = noise_by_index()
    part = noise_by_index(validation_split=4, batch_size=5, shuffle=False)
    assert len(part) == 6
    assert part == {index: whole[index] for index in part}


def test_reading_moves_no_generator_of_the_run():
    loader = make(10)
    prepare(loader, [noise])
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(loader)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_samples_are_computed_on_one_thread_as_in_a_worker():
    loader = make(10)
    prepare(loader, [lambda x: x + torch.get_num_threads()])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inputs, target = next(iter(loader))
        assert torch.equal(inputs[:, 0], target + 1.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Unreadable(Numbers):
    """Sample 3 is damaged, sample 5 meets a bug, sample 7 kills its reader, sample 8 hangs."""

    def __getitem__(self, index: int):
        if index == 3:
            raise OSError("image file is truncated")
        if index == 5:
            raise ZeroDivisionError("a bug")
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 8:
            signal.pause()
        return super().__getitem__(index)


@pytest.fixture
def unreadable():
    """A function that makes a loader whose only batch is one sample of `Unreadable`."""
    made = []

    def make_loader(index: int, **kwargs) -> BaseDataLoader:
        made.append(BaseDataLoader(Unreadable(), 1, shuffle=False, **kwargs))
        made[-1].batches(index, 1)
        return made[-1]

    yield make_loader
    for worker in multiprocessing.active_children():  # torch would wait 5 seconds for each
        with suppress(RuntimeError):  # torch's word that a worker died
            worker.kill()
            worker.join()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named(unreadable, num_workers):
    with pytest.raises(DataError) as caught:
        list(unreadable(3, num_workers=num_workers))
    message = "sample 3 of Unreadable cannot be read: image file is truncated"
    assert str(caught.value) == message


def test_a_bug_in_a_dataset_keeps_its_traceback_and_names_the_sample(unreadable):
    with pytest.raises(ZeroDivisionError) as caught:
        list(unreadable(5))
    assert caught.value.__notes__ == ["This was sample 5 of Unreadable."]
    assert caught.traceback[-1].name == "__getitem__"
    with pytest.raises(ZeroDivisionError, match="sample 5 of Unreadable"):
        list(unreadable(5, num_workers=1))


def test_a_worker_that_hangs_ends_the_run_after_the_timeout(unreadable):
    with pytest.raises(DataError, match=r"timed out after 0\.5 seconds"):
        list(unreadable(8, num_workers=1, timeout=0.5))


def test_a_worker_that_was_killed_is_a_data_error(unreadable):
    with pytest.raises(
        DataError, match=r"DataLoader worker .*(killed by signal|exited unexpectedly)"
    ):
        list(unreadable(7, num_workers=1))


# --- where samples are kept -----------------------------------------------------------------------


def tensors(num_samples: int = 10) -> TensorDataset:
    return TensorDataset(torch.rand(num_samples, 1, 4, 4), torch.arange(num_samples))


@pytest.mark.parametrize(
    ("dataset", "in_memory", "words"),
    [
        (tensors(), "auto", "kept in memory (0 MB on cpu)"),
        (tensors(), False, "read by the main process: as configured"),
        (Numbers(), "auto", "read by the main process: it may draw at random or read files"),
        (Numbers(), True, "kept in memory (0 MB on cpu)"),
    ],
)
def test_the_choice_is_told_in_words(dataset, in_memory, words):
    loader = BaseDataLoader(dataset)
    told = prepare(loader, in_memory=in_memory)
    assert told.startswith(words)
    assert loader.in_memory == told.startswith("kept")


def test_a_loader_that_keeps_all_starts_no_worker():
    loader = BaseDataLoader(tensors(), num_workers=2, timeout=5, prefetch_factor=2)
    prepare(loader, in_memory="auto")
    assert len(list(loader)) == 10
    assert loader._iterator is None


def test_workers_stay_where_an_augmentation_is_left_to_do():
    loader = BaseDataLoader(tensors(), num_workers=2)
    assert prepare(loader, [v2.RandomHorizontalFlip()], "auto").startswith("kept in memory")
    assert loader.num_workers == 2
    loader = BaseDataLoader(Numbers(), num_workers=2)
    assert prepare(loader, in_memory="auto").startswith("read by 2 workers: ")


def test_what_must_be_kept_and_cannot_be_is_an_error_in_training_alone():
    loader = BaseDataLoader(tensors(), collate_fn=len)
    message = "in_memory is true, but the samples cannot be: they have a collate function"
    with pytest.raises(DataError, match=message):
        prepare(loader, in_memory=True)
    assert "collate function" in prepare(loader, in_memory=True, training=False)


def test_the_first_inputs_can_be_looked_at_without_a_worker():
    loader = make(10, num_workers=2)
    assert torch.equal(loader.peek(CPU, count=3), torch.tensor([[0.0], [1.0], [2.0]]))
    assert loader._iterator is None
