"""Errors: what the system refuses, told with what to do about it."""

import errno
import os

import pytest

from imgcls.errors import BadDataset, StorageUnavailable, of_system, out_of_reach


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("/store/datasets/.lock",), "/store/datasets/.lock is not"),
        (("/store/datasets/.tmp-ab12/index",), "/store/datasets/.tmp-ab12/index is not"),
        (("/store/.tmp-ab12",), "/store is not"),
        (("/out/.report.html-ab12cd_9",), "/out is not"),
        ((".fix.csv-ab12cd_9",), "the folder around you is not"),
        (("/data/.photos",), "/data/.photos is not"),
        (("out/a.csv.part",), "out/a.csv is not"),
        ((b"/data/a",), "/data/a is not"),
        ((3,), "Something is not"),
        ((), "Something is not"),
        (("/from", None, "/to"), "/to is not"),
    ],
)
def test_what_is_forbidden_is_named_as_people_know_it(names: tuple[object, ...], told: str) -> None:
    refusal = of_system(OSError(errno.EACCES, os.strerror(errno.EACCES), *names))
    assert type(refusal) is StorageUnavailable
    assert refusal.message.startswith(told)
    assert "allow it" in refusal.message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_no_memory_say_what_to_do(number: int) -> None:
    full = of_system(OSError(number, os.strerror(number), "/store/.tmp-1"))
    assert full.message.startswith("A disk is full, the one of /store: free some room")
    assert of_system(OSError(number, "full")).message.startswith("A disk is full: free some room")
    assert "too little memory" in of_system(MemoryError()).message


def test_out_of_reach_is_forbidden_or_for_the_moment() -> None:
    assert type(out_of_reach("a.jpg", PermissionError(errno.EACCES, "no"))) is BadDataset
    refusal = out_of_reach("a.jpg", OSError(errno.EIO, "Input/output error"))
    assert type(refusal) is StorageUnavailable
    assert refusal.message == "a.jpg cannot be read (Input/output error); try again."
