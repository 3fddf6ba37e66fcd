"""What `find` says of small datasets with known faults."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls.data import open_dataset
from imgcls.findings import Finding, find

Files = dict[str, bytes]


def photo(seed: int, side: int = 64, quality: int = 90) -> bytes:
    """A smooth random picture: a photo's statistics, and a different one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def found(tmp_path: Path) -> Callable[[Files], list[Finding]]:
    def write_and_find(files: Files) -> list[Finding]:
        for path, data in files.items():
            (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / path).write_bytes(data)
        with open_dataset(tmp_path / "data") as dataset:
            return find(dataset)

    return write_and_find


@pytest.fixture
def clean() -> Files:
    return {
        f"{split}/{label}/{n}.jpg": photo(1000 * s + 100 * k + n)
        for s, split in enumerate(("train", "val", "test"))
        for k, label in enumerate(("cat", "dog"))
        for n in range(8)
    }


def test_clean_data_has_no_findings(found, clean):
    assert found(clean) == []


@pytest.mark.parametrize(
    ("copy", "kind"),
    [
        ("train/cat/copy.jpg", "exact_duplicate"),
        ("test/cat/copy.jpg", "leak"),
        ("train/dog/copy.jpg", "label_conflict"),
        ("test/dog/copy.jpg", "label_conflict"),
    ],
)
def test_the_same_bytes_elsewhere_are_found_by_what_they_spoil(found, clean, copy, kind):
    [finding] = found(clean | {copy: clean["train/cat/0.jpg"]})
    assert (finding.kind, finding.confidence) == (kind, 1)
    assert finding.paths == sorted(["train/cat/0.jpg", copy])


def test_a_truncated_file_is_found_and_dropped(found, clean):
    [finding] = found(clean | {"train/cat/cut.jpg": photo(7)[:600]})
    assert (finding.kind, finding.paths) == ("unreadable", ["train/cat/cut.jpg"])
    assert finding.fix is not None
    assert finding.fix.action == "drop"
