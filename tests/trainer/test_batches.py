"""What a run says when it waits for its data."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from base import BaseDataLoader
from trainer import batches
from trainer.batches import TimedIterator, advice, warn_of_waiting


def slowly(seconds: float) -> Iterator[int]:
    for number in range(3):
        time.sleep(seconds)
        yield number


def test_only_the_time_until_a_batch_comes_is_waiting():
    waiting = TimedIterator(slowly(0.02))
    for _ in waiting:
        time.sleep(0.05)
    assert 0.06 <= waiting.waited < 0.11


def test_the_share_of_waiting_is_told_with_the_epoch(make_trainer, points, monkeypatch):
    shares = []
    trainer = make_trainer(nn.Linear(5, 3), points, epochs=2)
    batches = trainer.data_loader.batches
    monkeypatch.setattr(
        trainer.data_loader,
        "batches",
        lambda *place: (time.sleep(0.02) or batch for batch in batches(*place)),
    )
    logger = SimpleNamespace(
        log_step=lambda values, step: None,
        log_epoch=lambda row, *, num_epochs, waiting: shares.append(waiting),
        flush=lambda: None,
    )
    trainer.fit(logger=logger)
    assert all(0.5 < share < 1 for share in shares)
    assert len(shares) == 2


def test_a_run_is_told_once_that_it_waits(make_trainer, fit, points, monkeypatch, caplog):
    monkeypatch.setattr(batches, "TOO_LONG", 0.0)
    monkeypatch.setattr(batches, "LONG_ENOUGH", 0.0)
    fit(make_trainer(nn.Linear(5, 3), points, epochs=3))
    messages = [record.getMessage() for record in caplog.records]
    assert sum("training waits for data" in message for message in messages) == 1


@pytest.fixture
def loader() -> BaseDataLoader:
    return BaseDataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 2)), 4)


def test_a_run_that_waits_too_long_is_told_what_to_change(loader, caplog):
    assert warn_of_waiting(SimpleNamespace(waiting=0.4, seconds=9.0, data_loader=loader))
    assert [record.getMessage() for record in caplog.records] == [
        f"training waits for data 40% of the time: {advice(loader)}"
    ]


@pytest.mark.parametrize(("waiting", "seconds"), [(0.2, 9.0), (0.4, 0.5)])
def test_a_short_wait_is_not_worth_a_word(loader, caplog, waiting, seconds):
    trainer = SimpleNamespace(waiting=waiting, seconds=seconds, data_loader=loader)
    assert not warn_of_waiting(trainer)
    assert not caplog.records


def test_the_advice_fits_where_the_samples_are(loader, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    more = "raise data_loader.args.num_workers from 0 (the machine has 4 cores)"
    assert advice(loader).endswith(f"in_memory to true if the samples fit into memory, or {more}")
    loader.in_memory = True
    assert advice(loader) == f"use transforms of whole batches, or {more}"
    loader.prepare([], in_memory=True, device=torch.device("cpu"), training=True)
    assert advice(loader) == "the transforms in dataset.transform cost that much; use fewer"
