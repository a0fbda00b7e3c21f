"""The loader that makes its own dataset, and the ancestor's, which looks the same."""

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler as Handler
from http.server import ThreadingHTTPServer

import pytest
import torch
from torchvision import datasets, transforms

from base import BaseDataLoader
from data_loader.data_loaders import MnistDataLoader

CPU = torch.device("cpu")


class AncestorsLoader(BaseDataLoader):
    """Letter by letter what users of pytorch-template have."""

    def __init__(
        self, data_dir, batch_size, shuffle=True, validation_split=0.0, num_workers=1, training=True
    ):
        trsfm = transforms.Compose([
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,))
        ])  # fmt: skip
        self.data_dir = data_dir
        self.dataset = datasets.MNIST(self.data_dir, train=training, download=True, transform=trsfm)
        super().__init__(self.dataset, batch_size, shuffle, validation_split, num_workers)


@pytest.fixture
def data_dir(tmp_path, write_small_mnist):
    write_small_mnist(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("kind", [MnistDataLoader, AncestorsLoader])
def test_it_gives_normalised_images_from_memory_and_holds_back_a_share(data_dir, kind):
    loader = kind(data_dir, 64, validation_split=0.1)
    valid_loader = loader.split_validation()
    for part in (loader, valid_loader):
        told = part.prepare([], in_memory="auto", device=CPU, training=part is loader)
        assert told.startswith("kept in memory")
    assert (loader.num_samples, valid_loader.num_samples) == (540, 60)
    images, targets = next(iter(loader))
    assert images.shape == (64, 1, 28, 28)
    assert targets.dtype == torch.int64
    raw = datasets.MNIST(data_dir).data / 255
    assert images.min() == pytest.approx(-0.1307 / 0.3081, abs=1e-6)
    kept = torch.cat([loader.dataset.tensors[0], valid_loader.dataset.tensors[0]])
    assert kept.mean() == pytest.approx(((raw - 0.1307) / 0.3081).mean().item(), abs=1e-5)


@pytest.mark.parametrize("kind", [MnistDataLoader, AncestorsLoader])
def test_the_test_data_is_another(data_dir, kind):
    assert kind(data_dir, 64, shuffle=False, training=False).num_samples == 200


def test_both_ways_give_the_same_to_the_last_bits(data_dir):
    ours = MnistDataLoader(data_dir, 64, num_workers=0)
    theirs = AncestorsLoader(data_dir, 64, num_workers=0)
    for (images, targets), (others, same_targets) in zip(ours, theirs, strict=True):
        assert torch.equal(targets, same_targets)
        assert torch.allclose(images, others, atol=1e-6)


@pytest.fixture
def mirror(tmp_path, data_dir, monkeypatch):
    """The small MNIST, packed, on a web server of this machine."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for file in sorted((tmp_path / "MNIST" / "raw").iterdir()):
        packed = gzip.compress(file.read_bytes())
        (folder / f"{file.name}.gz").write_bytes(packed)
        resources.append((f"{file.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(Handler, "log_message", lambda *args: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()


def test_missing_data_is_fetched_once(tmp_path, mirror):
    fetched = str(tmp_path / "fetched")
    assert MnistDataLoader(fetched, 8, num_workers=0).num_samples == 600
    for file in mirror.iterdir():
        file.unlink()
    assert MnistDataLoader(fetched, 8, num_workers=0).num_samples == 600


def test_a_damaged_file_is_not_taken(tmp_path, mirror):
    for file in mirror.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match="File not found or corrupted"):
        MnistDataLoader(str(tmp_path / "fetched"), 8)
