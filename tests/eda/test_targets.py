"""The profile of a regression: its histogram, and the error of always saying the median."""

import io

import numpy as np
import pytest
from PIL import Image

from imgcls.cli.eda import profile_tables
from imgcls.data import Labelling, open_dataset
from imgcls.eda import Profile, profile


@pytest.fixture
def opened(tmp_path):
    def write(rates, labelling=None):
        for number, rate in enumerate(rates):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (tmp_path / f"{number}_{'mw'[number % 2]}_{rate}.png").write_bytes(buffer.getvalue())
        labelling = labelling or Labelling(pattern="{id}_{sex}_{rate}", target="rate", group="sex")
        return open_dataset(tmp_path, labelling=labelling)

    return write


def test_the_histogram_counts_every_image_once(opened):
    rates = [round(n / 7, 2) for n in range(60)]
    found = profile(opened(rates))
    target = found.target
    assert (found.labels, found.classes) == ([], {})
    assert found.split_classes == {"train": {}, "val": {}, "test": {}}
    assert {split: group.images for split, group in found.splits.items()} == {
        split: sum(counts) for split, counts in target.counts.items()
    }
    totals = np.sum(list(target.counts.values()), axis=0)
    assert totals.tolist() == np.histogram(rates, target.edges)[0].tolist()
    assert (target.name, target.images, target.min, target.max) == ("rate", 60, 0, 8.43)
    assert target.groups == {"m": 30, "w": 30}
    assert target.median == pytest.approx(np.median(rates))
    assert target.mae_of_median == pytest.approx(np.abs(np.array(rates) - np.median(rates)).mean())
    assert Profile.model_validate_json(found.model_dump_json()) == found
    assert any("always saying the median" in str(line) for line in profile_tables(found))


@pytest.mark.parametrize(
    "rates", [[5] * 12, ["1e30", "-1e30", *[0] * 9], ["1e20", "1.0000000001e20"]]
)
def test_odd_targets_have_a_histogram_too(opened, rates):
    target = profile(opened(rates)).target
    assert np.sum(list(target.counts.values())) == len(rates)


def test_copies_with_different_targets_are_found(opened, tmp_path):
    opened(range(12))
    (tmp_path / "x_m_9.png").write_bytes((tmp_path / "1_w_1.png").read_bytes())
    (tmp_path / "y_m_2.png").write_bytes((tmp_path / "2_m_2.png").read_bytes())
    labelling = Labelling(pattern="{id}_{sex}_{rate}", target="rate")
    found = profile(open_dataset(tmp_path, labelling=labelling)).duplicates
    assert (found.total, found.across_labels, found.across_splits) == (2, 1, 0)
