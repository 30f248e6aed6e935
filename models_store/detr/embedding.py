"""The head that DETReg (arXiv 2106.04550) pretrains beside the others: a query's state to a vector of the encoder."""

from __future__ import annotations

from torch import Tensor, nn

EMBEDDING_HEAD = "feature_embed"
# Of a manifest: how many numbers the head gives, and which class stood for "there is something".
OF_PRETRAINING = ("embedding", "object_class")


class EmbeddingHead(nn.Module):
    """Two linear layers with a ReLU between them, under the names of the published code: (..., d) to (..., n)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, outputs)])

    def forward(self, states: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](states).relu())


def add_embedding_head(module: nn.Module, outputs: int) -> None:
    module.add_module(EMBEDDING_HEAD, EmbeddingHead(module.config.d_model, outputs))
