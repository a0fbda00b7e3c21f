"""Networks for text: they take ids of words (B, L), of which 0 is padding."""

from torch import Tensor, nn

from base import BaseModel


class TextClassifier(BaseModel):
    """Mean of the words' vectors, then a perceptron: ids (B, L) -> scores (B, num_classes).

    Ids are below `num_words`; padding counts for nothing. Source: Iyyer et al., Deep Unordered
    Composition Rivals Syntactic Methods for Text Classification, 2015, doi:10.3115/v1/P15-1162.
    """

    def __init__(
        self, num_words: int, num_classes: int = 2, width: int = 64, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_words, width, padding_idx=0)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        is_word = (tokens != 0).unsqueeze(2)  # (B, L, 1)
        total = (self.embedding(tokens) * is_word).sum(dim=1)  # (B, width)
        return self.classifier(total / is_word.sum(dim=1).clamp(min=1))
