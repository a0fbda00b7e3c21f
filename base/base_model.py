"""The contract of models: a torch module that can say how large it is."""

from abc import abstractmethod
from typing import Any

from torch import nn


class BaseModel(nn.Module):
    """A base for the project's models; any other `nn.Module` works as well."""

    @abstractmethod
    def forward(self, *inputs: Any) -> Any:
        """Return the output for a batch of inputs."""

    def __str__(self) -> str:
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        return f"{super().__str__()}\nTrainable parameters: {trainable:,}"
