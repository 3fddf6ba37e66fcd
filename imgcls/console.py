"""Console: what the command line shows, and where.

Results go to standard output: tables for people, JSON with `--json`. Notes, progress and (for
people) errors go to standard error, so that output can always be piped. Progress is a bar with the
time left on a terminal, and a plain line now and then elsewhere. `NO_COLOR` is obeyed. Names from
data are printed as they are: no markup or emoji in them is acted on, no control characters sent.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import to_json
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from imgcls.errors import ImgclsError, of_system

_PLAIN_EVERY = 10.0
"""Seconds between progress lines where there is no terminal."""
_PLAIN = "\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Not printable by Unicode's categories, and harmless; words and emoji have joiners in them."""
_INVISIBLE = "\N{REPLACEMENT CHARACTER}"

_json = False


def use_json(on: bool) -> bool:
    """Whether results are JSON from now on; every command decides it by its `--json`."""
    global _json
    _json = on
    return on


def is_json() -> bool:
    return _json


def exit_code(work: Callable[[], None]) -> int:
    """0 when `work` is done; 1 where it is refused and 130 where it is stopped, which is told."""
    try:
        work()
    except (ImgclsError, OSError, MemoryError) as err:
        fail(err)
        return 1
    except KeyboardInterrupt:
        note("stopped")
        return 130
    return 0


def is_attended() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def clean(value: object) -> str:
    """Text that is safe to print: control characters and broken encodings made visible."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c in _PLAIN else _INVISIBLE for c in text)


def show(*items: Any) -> None:
    """Print tables and text for people to standard output."""
    console = _console()
    for item in items:
        console.print(clean(item) if isinstance(item, str) else item)


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value (pydantic models included) as JSON; numbers that JSON lacks become null."""
    text = to_json(value, indent=indent, inf_nan_mode="null", fallback=str).decode()
    sys.stdout.write(text + "\n")


def note(text: str, *, style: str = "") -> None:
    """Print one line for people to standard error."""
    _console(stderr=True).print(clean(text), style=style or None, soft_wrap=True)


def fail(error: ImgclsError | OSError | MemoryError) -> None:
    """Print a refusal: a red line, or with `--json` the same object as the service's."""
    refusal = error if isinstance(error, ImgclsError) else of_system(error)
    if _json:
        show_json(refusal.to_dict())
    else:
        note(f"error: {' '.join(refusal.message.split())}", style="bold red")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], **options: Any) -> Table:
    """A table; a column whose name begins with `#` holds numbers and is set to the right."""
    made = Table(box=SIMPLE_HEAD, **options)
    for column in columns:
        numeric = column.startswith("#")
        made.add_column(column.lstrip("#"), justify="right" if numeric else "left")
    for row in rows:
        made.add_row(*(clean(cell) for cell in row))
    return made


def facts(rows: Iterable[Sequence[object]]) -> Table:
    """Names and values, a line each."""
    return table(["", ""], rows, show_header=False)


def plural(count: int, thing: str) -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def span(seconds: float) -> str:
    """`4 s`, `1:05`, `2:03:00`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class Stages:
    """Progress through named stages. Use as a context manager."""

    def __init__(self) -> None:
        console = _console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                SpinnerColumn(finished_text=" "),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
        self._task: TaskID | None = None
        self._stage = ""
        self._begun = self._printed = self._share = 0.0
        self._line = self._said = ""

    def __enter__(self) -> "Stages":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            if kind is None:
                self._finish()
            self._bar.stop()
        elif self._line != self._said:
            note(self._line)

    def update(
        self,
        stage: str,
        share: float | None = None,
        detail: str = "",
        *,
        eta: float | None = None,
    ) -> None:
        """Show that `share` (0 to 1) of `stage` is done; `eta` is estimated if it is not given."""
        now = time.monotonic()
        fresh = stage != self._stage
        if fresh:
            self._finish()
            self._stage, self._begun, self._share = stage, now, share or 0.0
        # What an interrupted stage had done before took none of the time.
        if eta is None and share is not None and self._share < share < 1:
            eta = (now - self._begun) * (1 - share) / (share - self._share)
        parts = [f"{share:.0%}"] if share is not None else []
        parts += [detail] if detail else []
        parts += [f"{span(eta)} left"] if eta and share is not None and share < 1 else []
        told = clean(", ".join(parts))
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(Text(clean(stage)).markup, total=None, note="")
            total = None if share is None else 1.0
            self._bar.update(
                self._task, total=total, completed=share or 0.0, note=Text(told).markup
            )
            return
        self._line = f"{stage}: {told}" if told else stage
        if fresh or now - self._printed >= _PLAIN_EVERY:
            self._printed, self._said = now, self._line
            note(self._line)

    def count(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """The same for a number of things, `total` of them in all."""
        counted = f"{done:,} of {total:,}" + (f", {detail}" if detail else "")
        self.update(stage, done / total if total else None, counted)

    def _finish(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=1.0, completed=1.0)
            self._task = None


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Let a reader of our output go away (`| head`) without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Send what is still to be printed nowhere, since nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = 10_000  # a pipe has no edge to wrap at
    return made
