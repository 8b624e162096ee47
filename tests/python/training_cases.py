"""Small models and panels for the tests of training. The models use no operator of the library."""

import torch
from torch import nn

from topreach.data.panel import Batch, Panel
from topreach.models import Needs


class PoissonCounts:
    """Independent Poisson counts with the interface of a predictive distribution."""

    def __init__(self, rate):
        self.mean = rate

    def sample(self, num_samples, key=None, generator=None):
        if key is not None:
            generator = torch.Generator(self.mean.device).manual_seed(
                int(key[0]) + 2**31 * int(key[1] % 2**31)
            )
        with torch.no_grad():
            return torch.poisson(
                self.mean.expand(num_samples, *self.mean.shape), generator=generator
            )

    def log_prob(self, y):
        return torch.xlogy(y, self.mean) - self.mean - torch.lgamma(y + 1)


class LogLinear(nn.Module):
    """y ~ Poisson(exp(x·w + b_s)), with a ridge penalty."""

    needs = Needs()
    is_probabilistic = True

    def __init__(self, num_sites, num_features):
        super().__init__()
        self.config = {"num_sites": num_sites, "num_features": num_features}
        self.weight = nn.Parameter(torch.zeros(num_features))
        self.site = nn.Parameter(torch.zeros(num_sites))

    def forward(self, x):
        return PoissonCounts((x @ self.weight + self.site).exp())

    def penalty(self):
        return 0.5 * self.site.square().sum()


class Scorer(nn.Module):
    """Scores from the last counts and the features."""

    is_probabilistic = False

    def __init__(self, window, num_features):
        super().__init__()
        self.window = window
        self.linear = nn.Linear(window + num_features, 1)

    def forward(self, history, x):
        return self.linear(torch.cat([history, x], dim=-1))[..., 0]


def panels(num_times=6, num_sites=12, seed=0):
    """(train, valid): counts that depend on the first of two features, with lasting differences
    between sites. Counts before the first period are zero."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_times, num_sites, 2, generator=generator)
    rate = (0.5 * x[..., 0] + torch.randn(num_sites, generator=generator)).exp()
    y = torch.poisson(rate, generator=generator)
    site_ids, times = [f"s{i:02d}" for i in range(num_sites)], list(range(num_times))
    panel = Panel(x, y, site_ids, times, ["u", "v"], absent_lags="zero")
    train, valid, _ = panel.split(valid=[num_times - 2, num_times - 1])
    return train, valid


def batch_of(y, x=None, weights=None):
    y = torch.as_tensor(y, dtype=torch.float32)
    x = torch.zeros(*y.shape, 1) if x is None else x
    return Batch(x, y, torch.arange(len(y), dtype=torch.float32), None, weights)
