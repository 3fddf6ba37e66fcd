"""Filters over fields: what they let through, and what is no filter."""

import time

import pytest

from imgcls.data.where import Where, number
from imgcls.errors import BadArgument, BadDataset

RECORD = {"votes": "12", "gender": "m", "rate": "7.50", "code": "007", "place": "New York"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("votes>=12", True), ("votes > 12", False), ("votes<13", True), ("votes<=11.5", False),
        ("rate==7.5", True), ("rate = 7.5", True), ("code==7", True), ("gender==m", True),
        ("gender!=m", False), ("gender == 'm'", True), ("place=='New York'", True),
        ("votes>=5 and gender==m", True), ("votes>=5  AND  gender==w", False), ("gender==1", False),
        ("place!='Paris, or >'", True), ('place!="a & b"', True), ("place==or", False),
        ("place!='it's'", True), ("votes>.5", True),
    ],
)  # fmt: skip
def test_comparisons(text, holds):
    assert Where(text).holds(RECORD, "x.jpg") is holds


def test_a_size_of_what_is_no_number_names_the_image():
    with pytest.raises(BadDataset, match=r"'gender' of 'a/x\.jpg' is 'm', which is no number"):
        Where("gender>3").holds(RECORD, "a/x.jpg")


@pytest.mark.parametrize(
    "text",
    ["", "votes", "votes>=", "votes>=many", "votes>=5 and", "and", ">=5", "5<votes", "a===5",
     "__import__('os').system('true')", "votes>=5 or votes<2", "votes>=1e999", "a\n==1",
     "x==1" + " and x==1" * 20, "x==" + "1" * 500],
)  # fmt: skip
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(BadArgument, match=r"filter|comparison|no number"):
        Where(text)


@pytest.mark.parametrize(
    "text",
    ["gender!=m or votes>=50", "gender!=m OR votes>=50", "gender!=m && votes>=50",
     "gender!=m | place==x", "gender!=m, votes>=50", "gender=='m' or gender=='w'", "votes=>5",
     "gender!=m or"],
)  # fmt: skip
def test_what_joins_comparisons_otherwise_is_no_part_of_a_value(text):
    with pytest.raises(BadArgument, match=r"joined by `and` alone.* in quotes"):
        Where(text)


def test_no_filter_takes_long_to_read():
    begun = time.perf_counter()
    for text in (" " * 490 + "x", "x" * 499, "a" + " " * 480 + "=", " and" * 120):
        with pytest.raises(BadArgument):
            Where(text)
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "1_000", "7,3", "\u0667", "0x10", "1e999", "9" * 99, ".", "-.e1"]
)
def test_what_is_not_written_like_a_number_is_none(text):
    assert number(text) is None


def test_numbers():
    assert [number(text) for text in ("7", "-7.25", "+3.", "1e-3")] == [7, -7.25, 3, 0.001]
    assert [number(text) for text in ("4e-120", ".5", "-.5e1")] == [4e-120, 0.5, -5]
