"""Plans judged by observed counts, and by draws of possible counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from topreach.data.site_ids import in_order, site_ids
from topreach.plan.constraints import read_groups
from topreach.plan.problem import Problem

if TYPE_CHECKING:
    from topreach.plan.plan import Plan


def evaluate(plan: Plan, y: Any, *, groups: Any = None, area: Any = None) -> dict[str, Any]:
    """How good a plan was.

    Args:
        plan: the plan, x.
        y: observed counts, by site id or in the order of the scores.
        groups: also the share of each group's events that fall in the plan: a column, Series or
            list as for `Quotas`; None: the first grouping of the plan's quotas, if any.
        area: size of each site, for `pai`.

    Returns:
        dict with
        `reach`: f(y, x), the plan's objective for y;
        `bpr`: f(y, x) / max over allowed plans of f(y, .), never above 1 (NaN if that is 0);
        `bpr_gap`: relative gap of the best plan in hindsight: 0 if that is proved to be the best,
            NaN if it has no bound;
        `free_bpr`: events in chosen sites over those in the best sites of the same number, without
            constraints;
        `capture`: share of all events that fall in chosen sites;
        `share`: Series by group, if there are groups;
        `pai`: (share of events) / (share of area) of the plan, and `tour_pai` of each tour, if
            there are areas.

    Raises:
        TypeError: a plan that is not judged by counts of its sites (`assign`, `subgraph`).
        ValueError: an infeasible plan, or counts that do not fit the sites.

    Example:
        >>> plan = tr.plan.quota_topk([5.0, 4.0, 3.0], 2)
        >>> found = evaluate(plan, [2.0, 0.0, 2.0])
        >>> found["bpr"], found["capture"]
        (0.5, 0.5)
    """
    problem, solved = _judged(plan, "evaluate")
    values = problem.counts(y, "Plan.evaluate")
    if plan.program == "tours" and not values.sum() > 0:  # a tour gains a share of all events
        reach, hindsight, best_gap = float("nan"), float("nan"), None
    else:
        reach, best = problem.reach(values, solved), problem.solve(values)
        hindsight, best_gap = max(problem.reach(values, best), reach), best.gap
    flat = values if values.ndim == 1 else values.sum(axis=0)
    chosen = solved.chosen
    top = np.sort(flat)[::-1][: len(chosen)].sum()
    total = flat.sum()
    result: dict[str, Any] = {
        "reach": reach,
        "bpr": reach / hindsight if hindsight > 0 else float("nan"),
        "bpr_gap": best_gap if best_gap is not None else float("nan"),
        "capture": float(flat[chosen].sum() / total) if total > 0 else float("nan"),
        "free_bpr": float(flat[chosen].sum() / top) if top > 0 else float("nan"),
    }
    if values.ndim == 2:
        held = sum(values[t, part].sum() for t, part in enumerate(solved.parts))
        best_of = sum(
            np.sort(values[t])[::-1][: len(part)].sum() for t, part in enumerate(solved.parts)
        )
        result["capture"] = float(held / total) if total > 0 else float("nan")
        result["free_bpr"] = float(held / best_of) if best_of > 0 else float("nan")
    if groups is not None:
        _, names, group = read_groups(problem.sites, groups, "Plan.evaluate")
    elif problem.constraints.groups:
        names, group = next(iter(problem.constraints.groups.values()))
    else:
        names = []
    if names:
        inside = group >= 0
        all_of = np.bincount(group[inside], weights=flat[inside], minlength=len(names))
        hit = inside & (plan.mask > 0)
        held_of = np.bincount(group[hit], weights=flat[hit], minlength=len(names))
        with np.errstate(invalid="ignore", divide="ignore"):
            result["share"] = pd.Series(held_of / all_of, index=names)
    if area is not None:
        size = problem.sites.numbers(area, "Plan.evaluate", "area", 1.0)

        def pai(rows: Any) -> float:
            if not total > 0 or not len(rows):
                return float("nan")
            return float(flat[rows].sum() / total / (size[rows].sum() / size.sum()))

        result["pai"] = pai(chosen)
        if plan.program == "tours":
            result["tour_pai"] = [pai(part) for part in solved.parts]
    return result


def stability(plan: Plan, samples: Any) -> tuple[pd.Series, float]:
    """How much the plan depends on chance.

    Args:
        plan: the plan.
        samples: draws [M, S] of counts or scores, as `Forecast.sample` gives them.

    Returns:
        The frequency of each site in the best plans of the draws, by id, highest first; and the
        mean over draws of |plan of the draw and this plan| / |this plan|.

    Raises:
        TypeError, ValueError: as for `evaluate`; samples of another shape.

    Example:
        >>> plan = tr.plan.quota_topk([5.0, 4.0], 1)
        >>> frequency, overlap = stability(plan, [[3, 1], [0, 2], [4, 0], [1, 0]])
        >>> frequency.to_dict(), overlap
        ({'0': 0.75, '1': 0.25}, 0.75)
    """
    problem, _ = _judged(plan, "stability")
    draws = _samples(problem, samples, "Plan.stability")
    masks = _best_masks(problem, draws)
    frequency = pd.Series(masks.mean(axis=0), index=problem.sites.ids, name="frequency")
    own = plan.mask
    overlap = float((masks @ own).mean() / own.sum()) if own.sum() else float("nan")
    return frequency.sort_values(ascending=False, kind="stable"), overlap


def swap_with(plan: Plan, site: Any) -> tuple[list[str], float]:
    """Which sites come in if one must go.

    Args:
        plan: the plan. site: id of one of its sites.

    Returns:
        The ids that are in the best plan without the site but not in this plan, and the value lost.

    Raises:
        ValueError: the site is not in the plan, or every plan needs it.

    Example:
        >>> swap_with(tr.plan.quota_topk([5.0, 4.0, 3.0], 2), 0)
        (['2'], 2.0)
    """
    problem, _ = _judged(plan, "swap_with")
    (name,) = site_ids([site], "Plan.swap_with", "site")
    if name not in plan.ids:
        raise ValueError(f"Plan.swap_with: site must be one of the plan's, got {name!r}.")
    without = problem.solve(problem.sites.scores, lock_out=[name])
    if without.status == "infeasible":
        raise ValueError(f"Plan.swap_with: no plan does without {name!r}.")
    ids = [problem.sites.ids[i] for i in without.chosen]
    assert plan.value is not None
    return [i for i in ids if i not in set(plan.ids)], plan.value - without.value


def information(plan: Plan, samples: Any) -> tuple[float, float]:
    """The value of knowing: E[max over plans f(y, .)] - E f(y, x), and its standard error.

    With draws of the counts y it is the expected value of perfect information. With draws of the
    *expected* counts, for instance from models fitted to bootstrap samples, it is the cost of wrong
    scores. Units: the objective's, per period.

    Args:
        plan: the plan, x. samples: draws [M, S], M >= 2.

    Raises:
        TypeError, ValueError: as for `stability`; fewer than two draws.

    Example:
        >>> plan = tr.plan.quota_topk([7.0, 8.0], 1)
        >>> information(plan, [[7, 0]] * 9 + [[7, 80]])[0]
        6.3
    """
    problem, solved = _judged(plan, "information")
    draws = _samples(problem, samples, "Plan.information")
    if len(draws) < 2:
        raise ValueError(f"Plan.information: samples must be 2 or more draws, got {len(draws)}.")
    own = np.asarray([problem.reach(draw, solved) for draw in draws])
    best = np.maximum([problem.reach(d, problem.solve(d)) for d in draws], own)
    gain = best - own
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))


def by_ratio(plan: Plan, samples: Any) -> Plan:
    """The allowed plan of largest E[f(y, x) / R(y)], R(y) the largest reach of any allowed plan.

    f is linear in y, so E[f(y, x) / R(y)] = f(E[y / R(y)], x): one solution for each draw, then one
    more. Draws in which nothing can be reached are left out.

    Args:
        plan: a plan of the program. samples: draws [M, S] of the counts.

    Returns:
        A plan whose value is the expected ratio. `notes` say if some of the R(y) have a gap.

    Raises:
        TypeError, ValueError: as for `stability`; samples in which nothing can be reached.

    Example:
        >>> plan = tr.plan.quota_topk([1.0, 8.0], 1)
        >>> by_ratio(plan, [[1, 0], [1, 0], [2, 32]]).ids  # the first in two draws of three
        ['0']

    Source: the ratio ranking of Learning where to intervene (2023), for any set of allowed plans.
    """
    from topreach.plan.plan import Plan as Made

    problem, solved = _judged(plan, "by_ratio")
    draws = _samples(problem, samples, "Plan.by_ratio")
    weights = np.zeros(draws.shape[1:])
    widest, used = 0.0, 0
    for draw in draws:
        best = problem.solve(draw)
        most = max(problem.reach(draw, best), problem.reach(draw, solved))
        if most <= 0:
            continue
        widest = max(widest, float("inf") if best.gap is None else best.gap)
        weights += draw / most
        used += 1
    if not used:
        raise ValueError("Plan.by_ratio: samples must reach something in a draw, got none.")
    weights /= used
    made = Made(problem, problem.solve(weights))
    if widest > 1e-6:
        made.notes.append(f"The best reach of a draw is known up to a gap of {100 * widest:.2g} %.")
    return made


def price_of_constraints(plan: Plan) -> float:
    """The cost of the constraints as a share: 1 - V / V₀, V₀ the value without quotas and locks.

    For plans that are fair, spaced or connected, V is the sum of scores, and V₀ that of the best
    sites of the same number. NaN if V₀ is not above 0.

    Raises:
        TypeError, ValueError: as for `evaluate`.

    Example:
        >>> plan = tr.plan.quota_topk([6.0, 2.0, 0.0], 2, groups=["a", "a", "b"], at_least=1)
        >>> price_of_constraints(plan)
        0.25
    """
    problem, _ = _judged(plan, "price_of_constraints")
    free = problem.solve_free(len(plan.ids))
    if plan.value is None or free.status == "infeasible" or free.value <= 0:
        return float("nan")
    value = plan.numbers.get("total", plan.value)
    return 1 - value / max(free.value, value)


def _judged(plan: Plan, what: str) -> tuple[Problem, Any]:
    problem, solved = plan._problem, plan._solved
    if problem.objective is None:
        raise TypeError(f"Plan.{what}: a plan of {plan.program} is not judged by counts of sites.")
    if plan.value is None:
        raise ValueError(f"Plan.{what}: there must be a plan, got status 'infeasible'.")
    return problem, solved


def _samples(problem: Problem, samples: Any, caller: str) -> np.ndarray:
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().numpy()
    if isinstance(samples, pd.DataFrame):
        samples = in_order(samples, problem.sites.ids, caller, "samples", axis=1)
    draws = np.asarray(samples, dtype=float)
    shape = problem.sites.scores.shape
    if draws.ndim != len(shape) + 1 or draws.shape[1:] != shape or not len(draws):
        raise ValueError(
            f"{caller}: samples must have shape [M, {', '.join(map(str, shape))}], got "
            f"{list(draws.shape)}."
        )
    return draws


def _best_masks(problem: Problem, draws: np.ndarray) -> np.ndarray:
    if problem.rows is not None:
        core = problem.constraints.core(problem.sites, problem.name)
        return problem.rows(problem.scaled(draws), core)
    masks = np.zeros((len(draws), len(problem.sites.ids)))
    for mask, draw in zip(masks, draws, strict=True):
        mask[problem.solve(draw).chosen] = 1
    return masks
