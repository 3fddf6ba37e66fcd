"""What the routes of datasets do, without a server."""

from pathlib import Path

import pytest

from imgcls import stored_data
from tests.fakes import class_folders


def test_a_proposal_that_is_cut_says_how_long_it_is_and_is_applied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_data, "_LISTED_FIXES", 3)
    folder = class_folders(tmp_path / "colours")
    for number in range(5):
        (folder / "red" / f"bad-{number}.jpg").write_bytes(b"x")
    tag = stored_data.stored().add(folder).tag
    proposed = stored_data.fix(tag, None, False, 1, 0)
    assert proposed.dataset is None
    assert proposed.total >= 5
    assert len(proposed.fixes) == 3
    applied = stored_data.fix(tag, None, True, 1, 0)
    assert applied.dataset is not None
    assert applied.dataset.unreadable == 0
    assert (applied.total, applied.fixes) == (proposed.total, proposed.fixes)
