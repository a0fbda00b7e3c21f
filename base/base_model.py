"""The contract of models: a torch module that can say how large it is."""

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
