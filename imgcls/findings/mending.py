"""From findings to a list of fixes, one for each image."""

from collections.abc import Iterable, Iterator

from imgcls.data.fix_list import MAX_PATH, MAX_TEXT, FixRow
from imgcls.data.twins import SURE
from imgcls.findings.types import Finding


def to_fixes(findings: Iterable[Finding], least: float = SURE) -> list[FixRow]:
    """What mends the findings with a confidence of `least` and more, the surest first.

    An image that is to go needs nothing else; of two labels for one, the surer stands.
    """
    rows: dict[tuple[str, str], FixRow] = {}
    for row in sorted(_rows(findings), key=lambda row: -row.confidence):
        if row.confidence >= least:
            rows.setdefault((row.path, row.action), row)
    gone = {path for path, action in rows if action == "drop"}
    return [row for row in rows.values() if row.action in ("drop", "merge") or row.path not in gone]


def _rows(findings: Iterable[Finding]) -> Iterator[FixRow]:
    for finding in findings:
        if finding.fix is None:
            continue
        for path in finding.fix.paths:
            if len(path) > MAX_PATH:
                continue  # of an archive that means no good
            yield FixRow(
                path=path,
                action=finding.fix.action,
                value=finding.fix.value or "",
                reason=f"{finding.kind}: {finding.message}"[:MAX_TEXT],
                confidence=finding.confidence,
            )
