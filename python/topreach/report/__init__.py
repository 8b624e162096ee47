"""Plots of the reach of rankings."""

from topreach.report.plots import plot_history, plot_reach, reach_curve

__all__ = ["plot_history", "plot_reach", "reach_curve"]
