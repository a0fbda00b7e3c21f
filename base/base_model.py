"""The contract of models, and what is done to models whatever their class."""

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class BaseModel(nn.Module):
    """A base for the project's models; any other `nn.Module` works as well."""

    def forward(self, *inputs: Any) -> Any:
        """Return the output for a batch of inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def __str__(self) -> str:
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return f"{super().__str__()}\nTrainable parameters: {trainable:,}"


def set_training(model: nn.Module) -> None:
    """Put a model into training mode, but its batch norms whose weights are frozen."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and parameters:
            module.train(any(parameter.requires_grad for parameter in parameters))


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Put a new layer of `num_classes` outputs for the last one, and wherever its like stands.

    An auxiliary classifier has as many outputs as the main one, so it is replaced as well.
    """
    kinds = nn.Linear | nn.Conv2d
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    *_, last = layers.values()
    for name, layer in layers.items():
        if len(layer.weight) == len(last.weight) != num_classes:  # (outputs, inputs, ...)
            if isinstance(layer, nn.Linear):
                new = nn.Linear(layer.in_features, num_classes)
            else:
                new = nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size)
            model.set_submodule(name, new)
