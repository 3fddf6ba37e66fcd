"""The race of profiles runs, and finds both sides' figures equal."""

import json
import zipfile

import pytest

from benchmarks import profile
from tests.fakes import jpeg


@pytest.fixture
def photos(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(40):
            archive.writestr(f"{('cat', 'dog')[number % 2]}/{number:02d}.jpg", jpeg(number))
    return tmp_path / "photos.zip"


def test_half_of_the_images_are_encoded_anew_under_new_names(photos, tmp_path):
    profile.make(photos, tmp_path / "many.zip", 100)
    with zipfile.ZipFile(tmp_path / "many.zip") as many, zipfile.ZipFile(photos) as few:
        names = many.namelist()
        known = {few.read(name) for name in few.namelist()}
        assert len(set(names)) == 100
        assert sum(many.read(name) in known for name in names) == 50


def test_both_sides_find_the_same(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profile, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(
        "sys.argv", ["profile", str(photos), "--images", "60", "--at-most-mb", "600"]
    )
    profile.main()
    assert "largest difference" in capsys.readouterr().out
    (result,) = (tmp_path / "results").iterdir()
    (run,) = json.loads(result.read_text())["runs"]
    assert run["images"] == 60
    assert run["difference"] < 1e-9
    assert 30 < run["peak_mb"] < 600


def test_a_figure_of_an_image_that_differs_ends_the_race():
    one = {"a.jpg": ["hash", 1, 1, [0] * 6]}
    other = {"a.jpg": ["hash", 1, 1, [0] * 5 + [1]]}
    with pytest.raises(SystemExit, match=r"a\.jpg"):
        profile._difference((one, {}), (other, {}))
    assert profile._difference((one, {"mean": [0.25]}), (one, {"mean": [0.5]})) == 0.25
