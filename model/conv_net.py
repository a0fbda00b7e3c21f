"""A small network for images of any size."""

from collections.abc import Sequence

from torch import Tensor, nn

from base import BaseModel


class ConvNet(BaseModel):
    """3 x 3 convolutions with batch normalisation: (B, C, H, W) -> scores (B, num_classes).

    `channels` are the widths of the layers; a 0 among them halves height and width.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 32, 0, 64, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in channels:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            in_channels = width
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean(dim=(2, 3))  # (B, C)
        return self.classifier(self.dropout(x))
