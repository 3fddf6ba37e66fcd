"""What is on disk of the shadow model: its pointer, its counts, and what it saw differently.

    shadow/pointer.json   which model shadows, and how often; every worker follows it
           report.json    counts of all workers, and the newest disagreements
           images/        the images of those, as they were sent

Workers add to the counts under a lock; a new shadow begins at zero and with an empty gallery.
"""

import contextlib
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from imgcls.files import Stamp, locked, stamp, write_atomic
from imgcls.schemas import Disagreement, ShadowCounts, ShadowReport

_MAX_GALLERY_MB = 256
"""MiB that the images of the gallery may have together; the newest stay."""


class ShadowPointer(BaseModel):
    """`pointer.json`: the model that shadows; `run` tells one shadow's counts from another's."""

    schema_version: int = 1
    tag: str | None = None
    rate: float = 0.0
    run: str = ""


class ShadowFiles:
    def __init__(self, home: Path) -> None:
        self.folder = home / "shadow"
        self.images = self.folder / "images"
        self._pointer = self.folder / "pointer.json"
        self._report = self.folder / "report.json"
        self._lock = self.folder / "lock"

    def stamp(self) -> Stamp:
        """Changes whenever the pointer does; costs one `stat`."""
        return stamp(self._pointer)

    def pointer(self) -> ShadowPointer:
        """A pointer that is missing or damaged names no model."""
        try:
            return ShadowPointer.model_validate_json(self._pointer.read_bytes())
        except (FileNotFoundError, ValidationError):
            return ShadowPointer()

    def start(self, tag: str, rate: float) -> None:
        """Let `tag` shadow the share `rate` of the answers, with counts from zero."""
        run = secrets.token_hex(8)
        with locked(self._lock):
            self._write(ShadowReport(run=run, tag=tag, rate=rate, since=datetime.now(UTC)))
            pointer = ShadowPointer(tag=tag, rate=rate, run=run)
            write_atomic(self._pointer, pointer.model_dump_json(indent=2))

    def stop(self) -> None:
        """Let no model shadow; the report of the last one stays."""
        write_atomic(self._pointer, ShadowPointer().model_dump_json(indent=2))

    def add(
        self,
        run: str,
        counts: ShadowCounts,
        found: Sequence[tuple[Disagreement, bytes]],
        *,
        keep: int,
    ) -> None:
        """Add what one worker has counted since the last time; another run's is left out.

        Of all disagreements the newest `keep` stay.
        """
        with locked(self._lock):
            report = self.report()
            if report.run != run:
                return
            for field in ShadowCounts.model_fields:
                setattr(report, field, getattr(report, field) + getattr(counts, field))
            self.images.mkdir(exist_ok=True)
            for disagreement, image in found:
                (self.images / disagreement.image).write_bytes(image)
            report.disagreements = [one for one, _ in reversed(found)] + report.disagreements
            self._write(self._within_limits(report, keep))

    def report(self) -> ShadowReport:
        """The newest shadow's counts and disagreements; one without a tag where none has been."""
        try:
            report = ShadowReport.model_validate_json(self._report.read_bytes())
        except (FileNotFoundError, ValidationError):
            report = ShadowReport()
        report.running = bool(report.run) and report.run == self.pointer().run
        return report

    def _within_limits(self, report: ShadowReport, keep: int) -> ShadowReport:
        room = _MAX_GALLERY_MB * 1024 * 1024
        kept = []
        for one in report.disagreements[:keep]:
            with contextlib.suppress(FileNotFoundError):  # somebody has deleted it
                room -= (self.images / one.image).stat().st_size
                if room >= 0:
                    kept.append(one)
        report.disagreements = kept
        return report

    def _write(self, report: ShadowReport) -> None:
        write_atomic(self._report, report.model_dump_json(indent=2))
        kept = {one.image for one in report.disagreements}
        for path in self.images.glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
