"""Fields from file names, whatever the pattern or the name."""

import time

import pytest

from imgcls.data.pattern import Pattern
from imgcls.errors import BadArgument


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("{id}_{rate}", "a/b/x_7.25.jpg", {"id": "x", "rate": "7.25"}),
        ("{id}_{rate}.{ext}", "x_7.25.jpg", {"id": "x", "rate": "7.25"}),
        ("{id}_{rate}", "IMG_12_7.png", {"id": "IMG_12", "rate": "7"}),
        ("score-{rate}(of 10)", "score-3(of 10).jpg", {"rate": "3"}),
        ("{group}/{id}_{rate}", "top/men/x_7.jpg", {"group": "men", "id": "x", "rate": "7"}),
        ("{{{id}}}_{rate}", "{x}_7.jpg", {"id": "x", "rate": "7"}),
        ("{id}_{rate}", "x7.jpg", None),
        ("{id}_{rate}", "_7.jpg", None),
        ("{id}_{rate}", "x_.jpg", None),
        ("{group}/{id}_{rate}", "x_7.jpg", None),
        ("{a}/{b}_{c}", "x_y/z.jpg", None),
        ("a{x}a", "a.jpg", None),
    ],
)
def test_a_name_is_cut_at_the_texts_of_the_pattern(pattern, path, found):
    assert Pattern(pattern).match(path) == found


def test_the_names_of_the_score_system():
    pattern = Pattern("{uuid}_{gender}_{country}_{rate}_{votes}.{ext}")
    path = "photos/0a1b-22_m_US_7.31_120.jpeg"
    assert pattern.fields == ("uuid", "gender", "country", "rate", "votes")
    assert pattern.match(path) == {
        "uuid": "0a1b-22", "gender": "m", "country": "US", "rate": "7.31", "votes": "120",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "plain", "{a}{b}", "{a}_{a}", "{", "}", "{}", "{a.__class__}", "{a[0]}", "{a!r}", "{a:>9}",
     "{a\u00e4}", "{a}\n{b}", "{a}_" * 200, "_".join(f"{{f{n}}}" for n in range(17))],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_an_example(text):
    with pytest.raises(BadArgument, match=r"\{id\}_\{gender\}_\{rate\}"):
        Pattern(text)


def test_no_name_takes_long():
    """Expressions made of such patterns would try every way to divide the underscores."""
    pattern = Pattern("_".join(f"{{f{n}}}" for n in range(16)) + "!")
    begun = time.perf_counter()
    for _ in range(100):
        assert pattern.match("_" * 4000 + ".jpg") is None
        assert pattern.match("_" * 4000 + "!.jpg") is None
    assert time.perf_counter() - begun < 1
