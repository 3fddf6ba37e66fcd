"""What the race makes of its figures: medians, verdicts and tables."""

import io
from typing import Any

import pytest
from PIL import Image

from benchmarks import pictures
from benchmarks.serve.claims import judge
from benchmarks.serve.report import cells, claims, markdown_table, report, summary


def row(rate: float, **others: float) -> dict[str, Any]:
    usual = {"p50_ms": 10.0, "p99_ms": 20.0, "start_seconds": 4.0, "memory_mb": 200.0, "errors": 0}
    return {"rate": rate, **usual, **others}


def test_a_summary_has_medians_and_the_sum_of_errors() -> None:
    found = summary([row(10, errors=1), row(40), row(20, p50_ms=30.0, errors=2)])
    assert (found["requests_per_second"], found["min"], found["max"]) == (20, 10, 40)
    assert (found["p50_ms"], found["errors"]) == (10.0, 3)


def test_a_contestant_without_load_has_no_rate() -> None:
    found = summary([{"start_seconds": 3.0, "memory_mb": 150.0}])
    assert "requests_per_second" not in found
    assert found["start_seconds"] == 3.0


def test_the_best_of_ours_is_held_against_the_best_of_theirs() -> None:
    ours = {"imgcls": 90, "imgcls-2": 130, "imgcls-serve": 90}
    rates = ours | {"bentoml": 50, "fastapi-2": 100, "offline-serial": 140}
    networks = {"resnet18": {name: summary([row(rate)]) for name, rate in rates.items()}}
    found = {claim.text: claim for claim in judge(networks)}
    peer = found["requests/s, imgcls-2 / fastapi-2"]
    assert peer.value == pytest.approx(1.3)
    assert peer.holds
    assert found["requests/s, imgcls-2 / offline-serial"].value == pytest.approx(130 / 140)
    assert not found["start to first prediction, imgcls-serve / bentoml"].holds


def test_claims_about_who_did_not_race_are_left_out() -> None:
    only_ours = {"tiny": {"imgcls": summary([row(100)])}}
    assert [claim.text for claim in judge(only_ours)] == ["errors of imgcls"]


def test_who_answered_nothing_is_compared_with_nobody() -> None:
    rounds = {"imgcls": summary([row(100)]), "bentoml": summary([row(0)])}
    assert [claim.text for claim in judge({"tiny": rounds})] == ["errors of imgcls"]


def test_a_report_says_which_claims_hold() -> None:
    found = report({"tiny": {"imgcls": [row(300)], "bentoml": [row(100)]}}, {"rounds": 1})
    assert [claim.holds for claim in claims(found)] == [True, True]
    table = markdown_table(cells(found["networks"]["tiny"])).splitlines()
    assert table[2].startswith("| imgcls | 300.0 |")
    assert len(table) == 4


def test_photos_have_the_size_of_photos() -> None:
    for file in pictures.photos(None, 3):
        assert 0.6 * pictures.PHOTO_BYTES < len(file) <= pictures.PHOTO_BYTES
        assert max(Image.open(io.BytesIO(file)).size) == pictures.PHOTO_SIDE
