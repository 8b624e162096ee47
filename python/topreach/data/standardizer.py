"""Standardisation of features from training rows only: x'_p = (x_p − mean_p) / scale_p."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from topreach import _C

from .panel import Panel

# A column whose spread is within a few roundings of its float32 values counts as constant.
_ROUNDING = 4 * torch.finfo(torch.float32).eps


class Standardizer:
    """Centre and scale each feature by its mean and population sd over the training rows.

    Columns that are constant in training (up to float32 rounding) are dropped, with a warning that
    names them: their coefficients are not identified.

    Fitted attributes:
        feature_names_: the P names seen in training.
        kept_: indices into them of the columns kept, ascending.
        dropped_: names of the columns dropped.
        mean_, scale_: float64, one entry per kept column, in the order of `kept_`.

    Example:
        >>> train, valid, test = topreach.datasets.cook_county()
        >>> standardizer = Standardizer().fit(train)
        >>> standardizer.transform(test).num_features
        12
    """

    def fit(self, panel: Panel) -> Standardizer:
        if not isinstance(panel, Panel):
            raise TypeError(f"Standardizer.fit: panel must be a Panel, got {type(panel).__name__}.")
        x = panel.x.flatten(0, 1).to(device="cpu", dtype=torch.float64)
        mean = x.mean(dim=0)
        scale = (x - mean).square().mean(dim=0).sqrt()
        constant = scale <= _ROUNDING * x.abs().amax(dim=0)
        self.feature_names_ = list(panel.feature_names)
        self.kept_ = torch.nonzero(~constant).flatten().tolist()
        self.dropped_ = [
            name for name, c in zip(panel.feature_names, constant.tolist(), strict=True) if c
        ]
        self.mean_, self.scale_ = mean[self.kept_], scale[self.kept_]
        if self.dropped_:
            warnings.warn(
                f"Standardizer.fit: dropped the column(s) {self.dropped_}, constant in training.",
                stacklevel=2,
            )
        return self

    def transform(self, panel: Panel) -> Panel:
        """The panel with the kept features, found by name and standardised; others are left out."""
        self._check_fitted("transform")
        if not isinstance(panel, Panel):
            raise TypeError(
                f"Standardizer.transform: panel must be a Panel, got {type(panel).__name__}."
            )
        names = [self.feature_names_[i] for i in self.kept_]
        panel = panel.align(feature_names=names)
        return panel.with_features(self._scaled(panel.x), names)

    def transform_tensor(self, x: Tensor) -> Tensor:
        """Raw features [..., P] in the order of `feature_names_` to standardised [..., kept]."""
        self._check_fitted("transform_tensor")
        if x.ndim == 0 or x.shape[-1] != len(self.feature_names_):
            raise ValueError(
                "Standardizer.transform_tensor: x must have shape [..., "
                f"{len(self.feature_names_)}], got {list(x.shape)}."
            )
        return self._scaled(x[..., self.kept_])

    def fit_transform(self, panel: Panel) -> Panel:
        return self.fit(panel).transform(panel)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, as in the model file under "standardizer"."""
        self._check_fitted("state_dict")
        return {
            "feature_names": list(self.feature_names_),
            "kept": list(self.kept_),
            "mean": self.mean_.clone(),
            "scale": self.scale_.clone(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Standardizer:
        absent = {"feature_names", "kept", "mean", "scale"} - set(state)
        if absent:
            raise ValueError(
                "Standardizer.from_state_dict: state must have feature_names, kept, mean and "
                f"scale, got none of {sorted(absent)}."
            )
        standardizer = cls()
        standardizer.feature_names_ = [str(name) for name in state["feature_names"]]
        standardizer.kept_ = [int(i) for i in state["kept"]]
        standardizer.mean_ = torch.as_tensor(state["mean"], dtype=torch.float64)
        standardizer.scale_ = torch.as_tensor(state["scale"], dtype=torch.float64)
        size, known = (len(standardizer.kept_),), len(standardizer.feature_names_)
        if standardizer.mean_.shape != size or standardizer.scale_.shape != size:
            raise ValueError(
                f"Standardizer.from_state_dict: mean and scale must have {size[0]} entries like "
                f"kept, got {list(standardizer.mean_.shape)} and {list(standardizer.scale_.shape)}."
            )
        if (
            any(not 0 <= i < known for i in standardizer.kept_)
            or not (standardizer.scale_ > 0).all()
        ):
            raise ValueError(
                f"Standardizer.from_state_dict: kept must index the {known} feature_names and "
                f"scale must be positive, got {standardizer.kept_} and "
                f"{standardizer.scale_.tolist()}."
            )
        kept = set(standardizer.kept_)
        standardizer.dropped_ = [
            name for i, name in enumerate(standardizer.feature_names_) if i not in kept
        ]
        return standardizer

    def _scaled(self, x: Tensor) -> Tensor:
        return _C.standardized(x, self.mean_, self.scale_)

    def _check_fitted(self, method: str) -> None:
        if not hasattr(self, "mean_"):
            raise RuntimeError(f"Standardizer.{method}: fit must be called first.")
