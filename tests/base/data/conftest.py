"""What the tests of samples share."""

import pytest
from torchvision import datasets


@pytest.fixture
def mnist(tmp_path, write_small_mnist):
    """Return a small MNIST with some transform of its own."""
    write_small_mnist(tmp_path)
    return lambda transform=None: datasets.MNIST(tmp_path, transform=transform)
