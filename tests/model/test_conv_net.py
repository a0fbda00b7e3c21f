"""The network for images of any size: its output, and that every weight learns."""

import pytest
import torch
import torch.nn.functional as F

from model.conv_net import ConvNet


@pytest.mark.parametrize(("size", "in_channels"), [(8, 1), (32, 3)])
def test_it_takes_images_of_any_size(size, in_channels):
    model = ConvNet(num_classes=5, in_channels=in_channels, channels=(4, 0, 8), dropout=0.1)
    assert model(torch.rand(2, in_channels, size, size)).shape == (2, 5)


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = ConvNet(channels=(4, 0, 8))
    F.cross_entropy(model(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
