"""Journal: an interrupted pass goes on; what is damaged or of another pass is measured anew."""

import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from imgcls.data import Labelling, open_dataset
from imgcls.data import scan as scan_module
from imgcls.data.journal import _FRAME, Journal
from imgcls.data.scan import scan
from imgcls.data.source import open_source
from tests.data.test_scan import assert_equal


class Stop(Exception):
    pass


@pytest.fixture
def source(pets, zip_of, tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    monkeypatch.setattr(scan_module, "_KEEP_FILES", 1)
    found = open_source(zip_of(pets | {"cat/bad.jpg": b"x"}), tmp_path / "unused.tar")
    entries = found.listing.entries

    def run(journal=None, **more):
        kept = Journal(journal)
        return scan("zip", found.path, entries, threads=1, processes=0, journal=kept, **more)

    return run


def stop_at(images):
    def progress(done, total):
        if done >= images:
            raise Stop

    return progress


def file_of(stem):
    [path] = stem.parent.glob(f"{stem.name}-*")
    return path


def interrupt(source, journal, images=9):
    with pytest.raises(Stop):
        source(journal=journal, progress=stop_at(images))


def test_an_interrupted_pass_goes_on_and_finds_the_same(source, tmp_path, measured):
    whole = source()
    interrupt(source, tmp_path / "journal")
    measured.clear()
    seen = []
    found = source(journal=tmp_path / "journal", progress=lambda *now: seen.append(now))
    assert sum(measured) == 21 - 9
    assert seen[0] == (9, 21)
    assert_equal(found, whole)


def test_a_pass_goes_on_in_other_chunks_and_after_several_interrupts(
    source, tmp_path, measured, monkeypatch
):
    whole = source()
    interrupt(source, tmp_path / "journal", images=6)
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (2, 2))
    interrupt(source, tmp_path / "journal", images=10)
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (5, 5))
    measured.clear()
    assert_equal(source(journal=tmp_path / "journal"), whole)
    assert measured == [5, 5, 1]


def test_what_lies_between_the_parts_that_are_kept_is_measured(source, tmp_path, measured):
    """Threads and children end their chunks in any order."""
    whole = source()
    interrupt(source, tmp_path / "journal", images=15)
    file = file_of(tmp_path / "journal")
    frames, data, at = [], file.read_bytes(), 0
    while at < len(data):
        size, _ = _FRAME.unpack_from(data, at)
        frames.append(data[at : at + _FRAME.size + size])
        at += len(frames[-1])
    assert len(frames) == 1 + 5
    file.write_bytes(b"".join((frames[0], frames[5], frames[2])))
    measured.clear()
    assert_equal(source(journal=tmp_path / "journal"), whole)
    assert measured == [3, 3, 3, 3, 3]


@pytest.mark.parametrize("keep", [0, 5, 40, 300, 700])
def test_a_journal_cut_anywhere_is_read_up_to_there(source, tmp_path, measured, keep):
    whole, path = source(), tmp_path / "journal"
    interrupt(source, path)
    size = file_of(path).stat().st_size
    os.truncate(file_of(path), min(keep, size - 1))
    measured.clear()
    assert_equal(source(journal=path), whole)
    assert sum(measured) > 21 - 9


def test_a_damaged_journal_is_read_up_to_the_damage(source, tmp_path, measured):
    whole, path = source(), tmp_path / "journal"
    interrupt(source, path)
    data = bytearray(file_of(path).read_bytes())
    data[-100] ^= 1
    file_of(path).write_bytes(data)
    measured.clear()
    assert_equal(source(journal=path), whole)
    assert sum(measured) == 21 - 6


def test_the_journal_of_other_images_or_limits_is_not_used(
    source, pets, zip_of, tmp_path, measured, limit
):
    path = tmp_path / "journal"
    interrupt(source, path)
    limit(max_image_pixels=100)
    measured.clear()
    interrupt(source, path)
    assert sum(measured) == 9
    limit(max_image_pixels=100_000)
    other = open_source(zip_of(pets, "other.zip"), tmp_path / "unused.tar")
    measured.clear()
    scan("zip", other.path, other.listing.entries, threads=1, processes=0, journal=Journal(path))
    assert sum(measured) == 20
    limit(max_image_pixels=100)
    measured.clear()
    source(journal=path)
    assert sum(measured) == 21 - 9


def test_a_second_pass_at_the_same_time_goes_without(source, tmp_path, measured):
    path = tmp_path / "journal"
    interrupt(source, path)
    file = file_of(path)
    before = file.read_bytes()
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        measured.clear()
        assert len(source(journal=path)) == 21
    assert sum(measured) == 21
    assert file.read_bytes() == before


def test_a_full_disk_ends_the_journal_and_not_the_pass(source, tmp_path):
    interrupt(source, tmp_path / "journal")
    file = file_of(tmp_path / "journal")
    file.unlink()
    file.symlink_to("/dev/full")
    assert len(source(journal=tmp_path / "journal")) == 21


def test_a_pass_by_another_filter_leaves_the_journal_of_the_first(
    pets, zip_of, monkeypatch, measured
):
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    monkeypatch.setattr(scan_module, "_KEEP_FILES", 1)
    path = zip_of(pets)
    with pytest.raises(Stop):
        open_dataset(path, progress=stop_at(9))
    labelling = Labelling(pattern="{label}/{number}", where="number>=4")
    assert len(open_dataset(path, labelling=labelling)) == 12
    measured.clear()
    assert len(open_dataset(path)) == 20
    assert sum(measured) <= 20 - 9


def test_a_small_dataset_leaves_no_journal(pets, zip_of, home):
    with pytest.raises(Stop):
        open_dataset(zip_of(pets), progress=stop_at(1))
    assert [path for path in (home / "datasets").iterdir() if path.name != ".lock"] == []


SLOW = """
import sys, time
from imgcls.data import open_dataset, scan as scan_module
scan_module._CHUNK_FILES, scan_module._KEEP_FILES = (3, 3), 1
measure = scan_module.measure
def slow(reader, entries, *others):
    print(f"{len(entries)}\\n", end="", flush=True)  # one write: threads take turns
    time.sleep(float(sys.argv[2]))
    return measure(reader, entries, *others)
scan_module.measure = slow
print("tag", open_dataset(sys.argv[1]).tag)
"""


def test_a_pass_that_was_killed_goes_on_and_leaves_nothing(pets, zip_of, home, tmp_path):
    path = zip_of(pets)
    script = tmp_path / "slow.py"
    script.write_text(SLOW)

    def run(seconds):
        command = [sys.executable, str(script), str(path), str(seconds)]
        environment = os.environ | {"PYTHONPATH": os.getcwd()}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    with run(0.5) as first:
        for _ in range(4):
            first.stdout.readline()
        time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
    kept = [file.name for file in (home / "datasets").iterdir() if file.name[:6] == ".pass-"]
    assert len(kept) == 1
    with run(0) as second:
        *counts, last = second.stdout.read().splitlines()
    assert 0 < sum(map(int, counts)) <= 20 - 6
    assert last == f"tag {open_dataset(path).tag}"
    assert not (home / "datasets" / kept[0]).exists()
