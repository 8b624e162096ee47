"""A shared table of events that grows by uploads, and forecasts that are up to date with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from topreach.data import columns as _columns
from topreach.data.event_features import StepCovariates
from topreach.data.events import Events
from topreach.data.moments import end_label, moment_label
from topreach.models.stemmed import Stemmed, StemmedForecast, fitting
from topreach.models.stemmed import forecast as futures
from topreach.online.exchange import Message, Reply
from topreach.online.standing import Standing
from topreach.online.state import State

__all__ = ["Cooperative"]


@dataclass(frozen=True)
class Step:
    """One line of the history. day: as it was given. at, complete_through: moments, as numbers.
    model: of a refit."""

    kind: str
    day: Any
    at: float
    complete_through: float
    events: int
    added: int = 0
    corrected: int = 0
    deleted: int = 0
    warm: bool | None = None
    model: Stemmed | None = None


class Cooperative:
    """Agencies share one table of events: uploads come each month, refits each quarter, forecasts
    at any time [STEMMED Alg. 3].

    Between two refits the parameters stay. Each record that is new, late, corrected or deleted
    changes the excitation of each node, and the network's counts, by its own term (`State`). So
    both always equal the result of a computation from scratch.

    Args:
        model: settings; each refit fits a new model with them, starting from the last one's
            parameters and prior. None: `Stemmed()`.
        refit_every: months after which an upload refits. None: only `refit` does.
        upload_every: months after which a forecast says that an upload is missing.
        horizon: periods of a forecast.
        report_lag: months that reports take. Fits and states end this long before the last upload;
            forecasts cross the gap.
        covariates: a function that gives the `StepCovariates` of events, called at each refit.
        pool_by: as in `Stemmed.fit`.

    If times are numbers, a month is one unit of them.

    Example:
        >>> shared = tr.online.Cooperative(report_lag=2).start(events)  # the first fit
        >>> shared.upload(january, at="2024-01-31")                     # new, corrected records
        >>> shared.upload(february, at="2024-02-29", deleted=["c17"])
        >>> shared.forecast().to_frame()                                # 12 months from March
        >>> shared.forecast(as_of="2024-01-31")                         # as it was made then
    """

    _events: Events  # complete to the last upload
    _standing: Standing

    def __init__(
        self,
        model: Stemmed | None = None,
        *,
        refit_every: int | None = 3,
        upload_every: int = 1,
        horizon: int = 12,
        report_lag: int = 0,
        covariates: Callable[[Events], StepCovariates] | None = None,
        pool_by: Any = None,
    ):
        name = "Cooperative"
        if not isinstance(model, Stemmed | None):
            raise TypeError(f"{name}: model must be a Stemmed, got {type(model).__name__}.")
        wanted = {"upload_every": (upload_every, 1), "horizon": (horizon, 1)}
        wanted["report_lag"] = (report_lag, 0)
        if refit_every is not None:
            wanted["refit_every"] = (refit_every, 1)
        for field, (value, least) in wanted.items():
            if not _columns.is_whole(value) or value < least:
                raise ValueError(
                    f"{name}: {field} must be a whole number >= {least}, got {value!r}."
                )
        self.model = Stemmed() if model is None else model
        self.refit_every, self.upload_every = refit_every, upload_every
        self.horizon, self.report_lag = horizon, report_lag
        self.covariates, self.pool_by = covariates, pool_by
        self._steps: list[Step] = []

    # ---- the table -------------------------------------------------------------------------------

    def start(self, events: Events) -> Cooperative:
        """Set the first table, known to its window's end, and make the first fit.

        Raises:
            TypeError, ValueError: as `Stemmed.fit`; a window that is shorter than `report_lag`.
        """
        name = "Cooperative.start"
        if not isinstance(events, Events):
            raise TypeError(f"{name}: events must be Events, got {type(events).__name__}.")
        complete = self._complete(events, name)
        step = Step(
            "start",
            _day(events, events.end),
            events.end,
            complete.complete_through,
            len(events),
            added=len(events),
        )
        self._steps = []
        self._refit(events, complete, events.end, None, [step])
        return self

    def upload(
        self, records: Events | pd.DataFrame | None = None, *, at: Any, deleted: Iterable[str] = ()
    ) -> Cooperative:
        """Add new records, replace known ones that differ, and remove `deleted` ones.

        The model is fitted again when `refit_every` months have passed since the last fit, or when
        there are new places or types.

        Args:
            records: events, or a table with the columns that the first ones were read from. None,
                or a table without rows: nothing new.
            at: day of the upload; records are complete to it, except for the report lag.

        Raises:
            ValueError: as `Events.revise` and `Events.delete`. The cooperative is then unchanged.
        """
        name = "Cooperative.upload"
        events = self._started(name)
        later = events._revise(records, at, name, "records")
        gone = [deleted] if isinstance(deleted, str) else list(deleted)
        if gone:
            later = later._delete(gone, at, name, "deleted")
        if not later.num_events:
            raise ValueError(
                f"{name}: deleted must leave an event to learn from, got all "
                f"{events.num_events}. Begin anew with another Cooperative."
            )
        before = set(events.ids)
        touched = [i for i in later.changes_since(events) if i not in set(gone)]
        corrected = sum(i in before for i in touched)
        complete = self._complete(later, name)
        step = Step(
            "upload",
            at,
            later.end,
            complete.complete_through,
            len(later),
            added=len(touched) - corrected,
            corrected=corrected,
            deleted=len(gone),
        )
        last, new_nodes = self._last_refit(), later.nodes != events.nodes
        due = self.refit_every is not None and later.end >= self._moved(
            last.at, self.refit_every, later
        )
        if due or new_nodes:
            self._refit(later, complete, later.end, None if new_nodes else last.model, [step])
            return self
        standing = self._standing.moved(complete)
        self._events, self._standing = later, standing
        self._steps.append(step)
        return self

    def refit(self, at: Any = None, *, warm: bool = True) -> Cooperative:
        """Fit a new model to all uploaded events.

        Args:
            at: the day of the refit. None: that of the last upload.
            warm: start from the last parameters and prior. A node whose likelihood has two maxima
                then stays at its present one. False tries all starts.
        """
        name = "Cooperative.refit"
        events = self._started(name)
        moment = events.end if at is None else self._moment(at, name, "at")
        if moment < events.end:
            raise ValueError(
                f"{name}: at must not come before the last upload, "
                f"{end_label(events.end, events.is_dates)}, got {at!r}. For what was known then "
                "use forecast(as_of=...)."
            )
        start = self._last_refit().model if warm else None
        self._refit(events, self._complete(events, name), moment, start, [])
        return self

    def _refit(
        self,
        events: Events,
        complete: Events,
        at: float,
        start: Stemmed | None,
        steps: list[Step],
    ) -> None:
        model = Stemmed(**self.model.config)
        covariates = None if self.covariates is None else self.covariates(complete)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model keeps its notes, and forecasts show them
            model.fit(complete, covariates, pool_by=self.pool_by, start=start)
        step = Step(
            "refit",
            None,
            at,
            complete.complete_through,
            len(complete),
            warm=start is not None,
            model=model,
        )
        standing = Standing(model, complete, State.of(model, complete))
        self._events, self._standing = events, standing
        self._steps += [*steps, step]

    # ---- forecasts -------------------------------------------------------------------------------

    def forecast(
        self,
        at: Any = None,
        *,
        as_of: Any = None,
        periods: int | None = None,
        every: str | float = "month",
        mode: str = "moments",
        num_samples: int = 1000,
        anchor: Any = "fit",
        cumulative: bool = False,
        by: str = "place",
        parameter_draws: int = 20,
        seed: int = 0,
    ) -> StemmedForecast:
        """Counts of the whole periods that begin at or after a day.

        Args:
            at: the first period begins after this day. None: after the last upload.
            as_of: repeat the forecast of an earlier day, with the parameters of the fit that was in
                force then, and the records uploaded by then, as they were.
            periods: how many. None: `horizon`.
            every, mode, num_samples, anchor, cumulative, by, parameter_draws, seed: as in
                `Stemmed.forecast`.

        Raises:
            ValueError: as `Stemmed.forecast`; a day before the last upload (for `as_of`, before the
                first fit).
        """
        name = "Cooperative.forecast"
        events, standing = self._started(name), self._standing
        last = self._steps[-1]
        if as_of is not None:
            if at is not None:
                raise ValueError(
                    f"{name}: at must be None with as_of, which is the day itself, got {at!r}."
                )
            at = as_of
            standing, last = self._past(as_of, name)
            events = standing.events
        begin = events.end if at is None else self._moment(at, name, "at")
        uploaded = max(s.at for s in self._steps if s.kind != "refit" and s.at <= last.at)
        if begin < uploaded:
            raise ValueError(
                f"{name}: at must not come before the last upload, "
                f"{end_label(uploaded, events.is_dates)}, got {at!r}. For a forecast as it was "
                f"made then, use as_of={at!r}."
            )
        made = futures.forecast(
            standing,
            self.horizon if periods is None else periods,
            every=every,
            mode=mode,
            num_samples=num_samples,
            anchor=anchor,
            cumulative=cumulative,
            by=by,
            parameter_draws=parameter_draws,
            seed=seed,
            name=name,
            after=begin,
        )
        missing = begin > self._moved(uploaded, self.upload_every, events)
        if missing:
            made.notes.append(
                f"The last upload was of {end_label(uploaded, events.is_dates)}: one is to come "
                f"every {self.upload_every} months."
            )
        return made

    def _past(self, as_of: Any, name: str) -> tuple[Standing, Step]:
        """The process as it was at the end of a day, from scratch, and the last step until then."""
        moment = self._moment(as_of, name, "as_of")
        past = [s for s in self._steps if s.at <= moment]
        fits = [s for s in past if s.kind == "refit"]
        if not fits:
            first = self._steps[0].at
            raise ValueError(
                f"{name}: as_of must not come before the first fit, "
                f"{end_label(first, self._events.is_dates)}, got {as_of!r}. Start a cooperative "
                "with events.until(as_of)."
            )
        if moment > self._events.end:
            raise ValueError(
                f"{name}: as_of must not come after the last upload, "
                f"{end_label(self._events.end, self._events.is_dates)}, got {as_of!r}. Pass it as "
                "at."
            )
        model = fits[-1].model
        assert model is not None
        upload = next(s for s in reversed(past) if s.kind != "refit")
        known = self._events.until(upload.day, like=model.events_)
        complete = known.complete_to(past[-1].complete_through)
        return Standing(model, complete, State.of(model, complete)), past[-1]

    @property
    def history(self) -> pd.DataFrame:
        """A row per start, upload and refit, in order: kind, at and complete_through (days), events
        known, added, corrected, deleted; of refits warm, log_likelihood, evaluations and
        spectral_radius."""
        rows = []
        for s in self._steps:
            dates = self._events.is_dates
            rows.append(
                {
                    "kind": s.kind,
                    "at": end_label(s.at, dates),
                    "complete_through": end_label(s.complete_through, dates),
                    "events": s.events,
                    "added": s.added,
                    "corrected": s.corrected,
                    "deleted": s.deleted,
                    "warm": s.warm,
                    "log_likelihood": s.model and float(s.model.log_likelihood_.sum()),
                    "evaluations": s.model and s.model.evaluations_,
                    "spectral_radius": s.model and s.model.spectral_radius,
                }
            )
        return pd.DataFrame(rows)

    # ---- table, model and state ------------------------------------------------------------------

    @property
    def events(self) -> Events:
        """The shared table, with all versions of all records."""
        return self._started("Cooperative.events")

    @property
    def fitted(self) -> Stemmed:
        """The model in force: that of the last refit."""
        self._started("Cooperative.fitted")
        return self._standing.model

    @property
    def state(self) -> State:
        """The excitation by past events, up to the time for which records are complete."""
        self._started("Cooperative.state")
        return self._standing.state

    @property
    def complete(self) -> Events:
        """The shared table, complete up to the state's time."""
        self._started("Cooperative.complete")
        return self._standing.events

    # ---- agencies --------------------------------------------------------------------------------

    def message(self, prior: fitting.Prior | None = None) -> Message:
        """The message to an agency: the prior (of the fit in force, or another), all nodes' recent
        rates, and the scaling of covariates."""
        model = self.fitted
        rate = model.recent_rates(12.0 if model.events_.is_dates else model.problem_.duration)
        return Message(
            model.prior_ if prior is None else prior, rate, model.problem_.scaling, model.names_
        )

    def pool(self, replies: Sequence[Reply]) -> Message:
        """The prior that follows from all agencies' fits (one round of Laplace-EM), to send them.

        Raises:
            ValueError: replies that do not cover each node once.
        """
        name = "Cooperative.pool"
        model = self.fitted
        nodes = torch.cat([r.nodes for r in replies]) if replies else torch.zeros(0)
        size = model.problem_.num_nodes
        if not torch.equal(nodes.sort().values, torch.arange(size)):
            raise ValueError(
                f"{name}: replies must cover each of the {size} nodes once, got {len(nodes)} nodes "
                f"of {len(replies)} agencies. Every place belongs to one agency."
            )
        weak = fitting.weak_prior(model.problem_)
        if not model.pooled or size < fitting.FEW_NODES:
            return self.message()
        order = nodes.argsort()
        working = torch.cat([r.working for r in replies])[order]
        variance = torch.cat([r.variance for r in replies])[order]
        return self.message(fitting.prior_of(working, variance, weak, model.pool_by_))

    # ---- helpers ---------------------------------------------------------------------------------

    def _started(self, name: str) -> Events:
        if not self._steps:
            raise RuntimeError(f"{name}: the cooperative must have events. Call start(events).")
        return self._events

    def _last_refit(self) -> Step:
        return next(s for s in reversed(self._steps) if s.kind == "refit")

    def _moment(self, value: Any, name: str, argument: str) -> float:
        return self._events.moment(value, end=True, name=name, argument=argument)

    @staticmethod
    def _moved(moment: float, months: int, events: Events) -> float:
        if not events.is_dates:
            return moment + months
        day = pd.Timestamp(0) + pd.Timedelta(days=moment) + pd.DateOffset(months=months)
        return (day - pd.Timestamp(0)) / pd.Timedelta(days=1)

    def _complete(self, events: Events, name: str) -> Events:
        """The events, complete up to the time for which all reports have come in."""
        time = min(self._moved(events.end, -self.report_lag, events), events.complete_through)
        if time <= events.start:
            raise ValueError(
                f"{name}: the window must be longer than report_lag, {self.report_lag} months, got "
                f"{moment_label(events.start, events.is_dates)} to "
                f"{end_label(events.end, events.is_dates)}."
            )
        return events.complete_to(time)


def _day(events: Events, moment: float) -> Any:
    """A moment as `Events` reads it."""
    if not events.is_dates:
        return moment
    return str((pd.Timestamp(0) + pd.Timedelta(days=moment)).ceil("s"))
