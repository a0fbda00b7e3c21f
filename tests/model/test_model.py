"""The networks: their outputs, and that every weight learns."""

import pytest
import torch
import torch.nn.functional as F

from model.model import ConvNet, MnistModel


def test_lenet_gives_log_probabilities_and_has_the_size_of_the_ancestors():
    model = MnistModel(num_classes=7)
    output = model(torch.rand(3, 1, 28, 28))
    assert output.shape == (3, 7)
    assert torch.allclose(output.exp().sum(dim=1), torch.ones(3))
    assert sum(parameter.numel() for parameter in MnistModel().parameters()) == 21_840
    assert list(dict(MnistModel().named_parameters())) == [
        f"{layer}.{kind}"
        for layer in ("conv1", "conv2", "fc1", "fc2")
        for kind in ("weight", "bias")
    ]


def test_lenet_drops_out_in_training_alone():
    model, images = MnistModel(), torch.rand(3, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(("size", "in_channels"), [(8, 1), (32, 3)])
def test_the_convnet_takes_images_of_any_size(size, in_channels):
    model = ConvNet(num_classes=5, in_channels=in_channels, channels=(4, 0, 8), dropout=0.1)
    assert model(torch.rand(2, in_channels, size, size)).shape == (2, 5)


@pytest.mark.parametrize("make", [MnistModel, lambda: ConvNet(channels=(4, 0, 8))])
def test_every_weight_gets_a_gradient(make):
    torch.manual_seed(0)
    model = make()
    F.cross_entropy(model(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
