"""The network for MNIST: its output, and that every weight learns."""

import torch
import torch.nn.functional as F

from model.model import MnistModel


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


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = MnistModel()
    F.cross_entropy(model(torch.rand(8, 1, 28, 28)), torch.arange(8)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
