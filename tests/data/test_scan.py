"""Scan: threads and processes find the same; failures and progress reach the caller."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from imgcls.data import children as children_module
from imgcls.data import measure as measure_module
from imgcls.data import open_dataset
from imgcls.data import scan as scan_module
from imgcls.data.measure import join
from imgcls.data.scan import scan
from imgcls.data.source import open_source
from imgcls.data.url_reader import open_reader
from imgcls.errors import BadDataset, ImgclsError


@pytest.fixture
def entries(pets, zip_of, tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    source = open_source(zip_of(pets | {"cat/bad.jpg": b"x"}), tmp_path / "unused.tar")
    return source.path, source.listing.entries


@pytest.mark.parametrize(("threads", "processes"), [(1, 0), (3, 0), (1, 1), (2, 2)])
def test_whoever_measures_the_result_is_the_same(entries, threads, processes):
    path, rows = entries
    alone = scan("zip", path, rows, threads=1, processes=0)
    found = scan("zip", path, rows, threads=threads, processes=processes)
    assert_equal(found, alone)


def test_chunks_are_as_large_as_their_time_allows_and_the_result_is_the_same(
    entries, monkeypatch, measured
):
    path, rows = entries
    alone = scan("zip", path, rows, threads=1, processes=0)
    for seconds, most, expected in [
        (1e3, 9, [3, 9, 4, 3, 2]),  # time enough: half of what is left, so that all end together
        (1e3, 4, [3, 4, 4, 4, 3, 3]),
        (0.0, 9, [3] * 7),
    ]:
        measured.clear()
        monkeypatch.setattr(scan_module, "_CHUNK_S", seconds)
        monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, most))
        assert_equal(scan("zip", path, rows, threads=1, processes=0), alone)
        assert measured == expected


def assert_equal(found, expected):
    for column in ("numbers", "blur", "cells", "content_hash", "format"):
        assert np.array_equal(getattr(found, column), getattr(expected, column)), column
    assert found.error == expected.error


def test_children_read_folders_with_any_file_name(pets, folder_of, tmp_path, monkeypatch):
    root = folder_of(pets)
    (root / "cat" / os.fsdecode(b"\xff.jpg")).write_bytes(pets["cat/00.jpg"])
    entries = open_source(root, tmp_path / "unused.tar").listing.entries
    slow_start(monkeypatch)
    found = scan("folder", root, entries, threads=1, processes=1)
    assert (len(found), found.error) == (21, {})


def slow_start(monkeypatch):
    """Let the caller wait for the first chunk, so that the children get work."""
    work = scan_module._Scan._work

    def late(self, *, report=False):
        if report:
            while not self._done and self._failure is None:
                with self._changed:
                    self._changed.wait(0.01)
        work(self, report=report)

    monkeypatch.setattr(scan_module._Scan, "_work", late)


def test_progress_counts_up_to_all_in_the_callers_thread(pets, zip_of, monkeypatch):
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    seen = []
    open_dataset(zip_of(pets), progress=lambda *now: seen.append((*now, threading.get_ident())))
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1] == (20, 20, threading.get_ident())


@pytest.mark.parametrize("processes", [0, 1])
def test_what_progress_raises_ends_the_scan_and_leaves_nothing(
    pets, zip_of, home, monkeypatch, processes
):
    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    monkeypatch.setattr(children_module, "_PROCESS_FILES", 1)
    monkeypatch.setattr(scan_module, "usable_cores", lambda: 1 + processes)
    monkeypatch.setattr(children_module, "usable_cores", lambda: 1 + processes)
    started = kept(monkeypatch, children_module, "_start_child")
    with pytest.raises(Stop):
        open_dataset(zip_of(pets), progress=stop)
    assert [child.poll() is not None for child in started] == [True] * processes
    assert [path.name for path in (home / "datasets").iterdir() if path.name != ".lock"] == []


def test_an_interrupt_while_helpers_start_ends_those_that_run(entries, monkeypatch):
    path, rows = entries
    before, start = set(threading.enumerate()), threading.Thread.start

    def interrupted(thread):
        if set(threading.enumerate()) - before:
            raise KeyboardInterrupt
        start(thread)

    measure = scan_module.measure
    slowly = lambda *given: time.sleep(0.1) or measure(*given)  # noqa: E731
    monkeypatch.setattr(scan_module, "measure", slowly)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan("zip", path, rows, threads=3, processes=0)
    assert set(threading.enumerate()) == before


def test_a_child_that_is_killed_is_an_error_that_says_so(entries, monkeypatch):
    path, rows = entries
    slow_start(monkeypatch)
    start = children_module._start_child

    def doomed():
        child = start()
        os.kill(child.pid, signal.SIGKILL)
        return child

    monkeypatch.setattr(children_module, "_start_child", doomed)
    with pytest.raises(ImgclsError, match="ended with code -9"):
        scan("zip", path, rows, threads=1, processes=1)


def test_a_childs_refusal_is_the_callers(entries, monkeypatch, tmp_path):
    _, rows = entries
    slow_start(monkeypatch)
    gone = tmp_path / "gone.zip"
    with pytest.raises(BadDataset, match=r"gone\.zip"):
        scan("zip", gone, rows, threads=1, processes=1)


def test_a_server_that_has_no_main_module_of_its_own_can_index(entries, monkeypatch):
    import sys

    path, rows = entries
    monkeypatch.delitem(sys.modules, "__main__")
    found = []
    slow_start(monkeypatch)
    thread = threading.Thread(
        target=lambda: found.append(scan("zip", path, rows, threads=1, processes=1))
    )
    thread.start()
    thread.join()
    assert len(found[0]) == 21


def test_pictures_of_many_shapes_are_measured_as_each_alone(picture, folder_of, tmp_path):
    """More shapes than are kept, large and small ones, in turn and in rows."""
    files = {}
    for n in range(150):
        size = (40 + n % 40, 50) if n < 100 else (40, 50)
        fmt = "PNG" if n % 7 == 3 else "JPEG"
        files[f"a/{n:03d}.{fmt.lower()}"] = picture(n, size, fmt)
    files["b/large.png"] = picture(999, (300, 200), "PNG")
    files["b/bad.jpg"] = files["a/000.jpeg"][:200]
    root = folder_of(files)
    entries = open_source(root, tmp_path / "unused.tar").listing.entries
    together = scan("folder", root, entries, threads=1, processes=0)
    parts = [
        scan("folder", root, entries.take(slice(n, n + 1)), threads=1, processes=0)
        for n in range(len(entries))
    ]
    assert_equal(together, join(parts))
    assert len(together.error) == 1
    assert (together.column("sum_r") > 0).sum() == 151


def test_memory_of_shapes_that_do_not_come_again_is_let_go(picture, folder_of, tmp_path):
    """Also where each chunk of tiny pictures fills no stack."""
    root = folder_of(
        {f"a/{n:03d}.png": picture(n, (1 + n % 10, 1 + n // 10), "PNG") for n in range(90)}
    )
    entries = open_source(root, tmp_path / "unused.tar").listing.entries
    bench = measure_module.Bench()
    with open_reader("folder", root) as reader:
        for start in range(0, 90, 10):
            chunk = entries.take(slice(start, start + 10))
            assert not measure_module.measure(reader, chunk, 10**6, bench).error
            assert len(bench.stacks) <= measure_module._SHAPES + 10
    assert len(bench.stacks) <= measure_module._SHAPES


@pytest.mark.parametrize("kept", [3, 1000])
def test_copies_have_the_figures_of_the_file_that_was_decoded(
    kept, picture, folder_of, tmp_path, monkeypatch
):
    """Small and large ones, a format of its own, a broken one; also where few are kept."""
    contents = {f"{n}.jpg": picture(n) for n in range(5)}
    contents |= {"l.png": picture(9, (300, 200), "PNG"), "x.jpg": picture(0)[:200]}
    files = {f"a/{copy:02d}-{name}": data for copy in range(9) for name, data in contents.items()}
    root = folder_of(files)
    listed = open_source(root, tmp_path / "unused.tar").listing.entries
    entries = listed.take(np.argsort(listed.names))
    alone = [
        scan("folder", root, entries.take(slice(n, n + 1)), threads=1, processes=0)
        for n in range(len(entries))
    ]
    counted, statistics = [], measure_module.statistics
    monkeypatch.setattr(
        measure_module,
        "statistics",
        lambda stack, scratch: counted.append(len(stack)) or statistics(stack, scratch),
    )
    monkeypatch.setattr(measure_module, "_KNOWN", kept)
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    found = scan("folder", root, entries, threads=1, processes=0)
    assert_equal(found, join(alone))
    assert (sum(counted) == 6) == (kept == 1000)


def test_children_come_up_while_a_large_zip_is_listed(pets, zip_of, monkeypatch):
    started, taken = watch_children(monkeypatch)
    slow_start(monkeypatch)
    with open_dataset(zip_of(pets)) as dataset:
        assert len(dataset) == 20
    assert taken == started
    assert [child.poll() is not None for child in started] == [True]


def test_children_that_are_not_needed_end(pets, zip_of, monkeypatch):
    started, taken = watch_children(monkeypatch)
    with pytest.raises(BadDataset, match="Only one class"):
        open_dataset(zip_of({name: data for name, data in pets.items() if name[:3] == "cat"}))
    assert (len(started), taken) == (1, [])
    assert started[0].poll() is not None


def watch_children(monkeypatch):
    """Those started, and those that got work; from one file on, on two cores."""
    monkeypatch.setattr(children_module, "_PROCESS_FILES", 1)
    monkeypatch.setattr(scan_module, "_CHUNK_FILES", (3, 3))
    monkeypatch.setattr(children_module, "usable_cores", lambda: 2)
    started = kept(monkeypatch, children_module, "_start_child")
    return started, kept(monkeypatch, children_module.Children, "take")


def kept(monkeypatch, owner, name):
    """What calls of a function will have returned."""
    found, function = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given: found.append(function(*given)) or found[-1])
    return found
