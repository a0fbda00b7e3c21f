"""The layer with a backward pass of its own."""

import torch

from model.binary import Sign


def test_it_gives_signs_and_passes_gradients_where_the_input_is_small():
    inputs = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    output = Sign()(inputs)
    assert output.tolist() == [-1, -1, 1, 1, 1]
    (output * torch.arange(1.0, 6.0)).sum().backward()
    assert inputs.grad.tolist() == [0, 2, 3, 4, 0]


def test_what_lies_before_it_learns():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), Sign(), torch.nn.Linear(8, 1))
    model(torch.randn(16, 4)).pow(2).mean().backward()
    assert model[0].weight.grad.abs().sum() > 0
