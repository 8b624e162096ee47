"""Progress reports of a long run, and how Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pandas as pd
from tqdm import tqdm


class Report:
    """Progress: a bar on a terminal or in a notebook, plain lines elsewhere, nothing if not asked
    for."""

    def __init__(self, shown: bool, total: int, done: int):
        self._total, self._bar, self._lines = total, None, shown
        self._every = max(1, total // 10)
        if shown and shows_bar():
            self._lines = False
            self._bar = tqdm(
                total=total, initial=done, unit="epoch", desc="fit", dynamic_ncols=True, leave=True
            )
        self._latest: dict[str, str] = {}
        self._started, self._done = time.perf_counter(), done

    def epoch(self, row: dict[str, float]) -> None:
        self._latest["loss"] = f"{row['loss']:.5g}"
        bpr = row.get("valid_bpr", row.get("train_bpr"))
        if bpr is not None:
            self._latest["BPR"] = f"{bpr:.3f}"
            self._latest.pop("train BPR", None)
        elif "BPR" not in self._latest and "bpr" in row:
            self._latest["train BPR"] = f"{row['bpr']:.3f}"
        if self._bar is not None:
            self._bar.set_postfix(self._latest, refresh=False)
            self._bar.update(1)
        elif self._lines and (row["epoch"] % self._every == 0 or row["epoch"] == self._total):
            spent = time.perf_counter() - self._started
            left = spent / (row["epoch"] - self._done) * (self._total - row["epoch"])
            found = ", ".join(f"{name} {value}" for name, value in self._latest.items())
            print(
                f"fit: epoch {row['epoch']}/{self._total}, {found}, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def delayed_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step, so that no half update is saved; a second one does not
    wait."""
    hit = False

    def handler(number: int, frame: Any) -> None:
        nonlocal hit
        if hit:
            raise KeyboardInterrupt
        hit = True

    usable = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if usable:
        signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: hit
    finally:
        if usable:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def shows_bar() -> bool:
    """Whether a progress bar can be drawn: on a terminal or in a notebook, not in a log file."""
    if sys.stderr.isatty():
        return True
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def history_frame(rows: list[dict[str, float]]) -> pd.DataFrame:
    """`Trainer.history_`: a row per epoch, its number first, learning rate and seconds last."""
    frame = pd.DataFrame(rows)
    if not rows:
        return pd.DataFrame(columns=["epoch", "loss", "lr", "seconds"])
    last = ["lr", "seconds"]
    return frame[[c for c in frame.columns if c not in last] + last].astype({"epoch": int})
