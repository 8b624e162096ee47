"""A small spatio-temporal graph network, used instead of EpiGNN (Xie et al. 2022), with which the
2025 paper compares.

h⁰ = relu(C [log(1 + y_{s,t−W:t−1}), x_s]): channels over the last W counts and the features;
hˡ⁺¹ = relu(A hˡ + B mean of hˡ over the site's neighbours), two layers; forecast softplus(w·h²).
Weights are shared over sites; neighbours are the nearest sites. EpiGNN itself also has attention, a
learnt transmission risk and an autoregressive part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from topreach import Batch
from topreach.models import nearest_neighbours
from topreach.objectives import forward


class GraphNetwork(nn.Module):
    """Forecast counts [T, S] from history [T, S, W] and features x [T, S, P].

    Args:
        place: latitude and longitude of the sites in degrees, [S, 2].
        window: W.
        num_features: P.
        neighbours: how many nearest sites are a site's neighbours.
        channels: width of the layers.
    """

    is_probabilistic = False

    def __init__(
        self,
        place: Tensor,
        window: int,
        num_features: int,
        *,
        neighbours: int = 8,
        channels: int = 16,
    ):
        super().__init__()
        self.window = window
        graph = nearest_neighbours(place, neighbours)
        self._graph_type = type(graph)
        for name, tensor in graph._asdict().items():
            self.register_buffer(name, tensor, persistent=False)
        self.neighbours = min(neighbours, len(place) - 1)
        self.inputs = nn.Linear(window + num_features, channels)
        self.own = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.around = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.outputs = nn.Linear(channels, 1)

    def forward(self, history: Tensor, x: Tensor) -> Tensor:
        h = self.inputs(torch.cat([history.log1p(), x], dim=-1)).relu()
        for own, around in zip(self.own, self.around, strict=True):
            h = (own(h) + around(self._around(h))).relu()
        return nn.functional.softplus(self.outputs(h).squeeze(-1))

    def _around(self, h: Tensor) -> Tensor:
        """Mean over each site's neighbours, [T, S, C]."""
        graph = self._graph_type(self.start, self.sites, self.weights)
        by_site = h.transpose(0, 1)
        mean = graph.sum(by_site.flatten(1)) / self.neighbours
        return mean.to(h.dtype).reshape(by_site.shape).transpose(0, 1)


def mean_squared_error(model: nn.Module, batch: Batch) -> Tensor:
    """The objective. EpiGNN is trained on squared errors too."""
    return (forward(model, batch) - batch.y).square().mean()
