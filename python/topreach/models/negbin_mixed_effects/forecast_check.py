"""Whether a forecast stays within the range of the past."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topreach.models.negbin_mixed_effects.mixed_effects import MixedEffects
from topreach.models.negbin_mixed_effects.tables import fitted


@dataclass(frozen=True)
class ForecastCheck:
    """Expected totals beside those of the fitted periods.

    Attributes:
        expected: total over the sites expected in each period asked for.
        least, most: smallest and largest total of a fitted period; with an exposure, per unit of it
            and for the exposure of the period asked for, one number a period.
    """

    expected: list[float]
    least: list[float]
    most: list[float]

    @property
    def outside(self) -> list[bool]:
        """Whether each expected total lies outside the range of the past."""
        rows = zip(self.expected, self.least, self.most, strict=True)
        return [not low <= value <= high for value, low, high in rows]


def check_forecast(
    model: MixedEffects, x: Tensor, time: Tensor, exposure: Tensor | None
) -> ForecastCheck:
    fit = fitted(model, "check_forecast")
    expected = model(x, time, exposure).mean.detach().double().sum(-1)
    if (exposure is None) != (fit.past_exposure is None):
        raise ValueError(
            "NegBinMixedEffects.check_forecast: exposure must be given as in the fit, got "
            f"{'None' if exposure is None else 'one'}."
        )
    past = fit.past_totals
    scale = [1.0] * len(expected)
    if exposure is not None and fit.past_exposure is not None:
        past = [total / people for total, people in zip(past, fit.past_exposure, strict=True)]
        scale = exposure.detach().double().sum(-1).tolist()
    return ForecastCheck(
        expected=expected.tolist(),
        least=[min(past) * s for s in scale],
        most=[max(past) * s for s in scale],
    )
