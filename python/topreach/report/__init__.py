"""Plots of what a ranking reaches."""

from topreach.report.plots import plot_history, plot_reach, reach_curve

__all__ = ["plot_history", "plot_reach", "reach_curve"]
