"""What the splits promise."""

from collections import Counter

import numpy as np
import pytest

from imgcls.data.splits import SHARES, TEST, TRAIN, VAL, assign_splits, without_scenes


def hashes(count, start=0):
    import hashlib

    return [
        hashlib.blake2b(b"%d" % n, digest_size=20).hexdigest() for n in range(start, start + count)
    ]


def assign(labels, given, names, seed):
    """Splits of images by content hash; None for one that could not be read."""
    known = sorted({name for name in names if name is not None})
    picture = np.array([-1 if name is None else known.index(name) for name in names])
    return assign_splits(labels, given, picture, known, seed)


def none_given(count):
    return np.full(count, -1)


def test_nothing_given_makes_75_10_15_in_every_class():
    labels = np.repeat([0, 1, 2], [1000, 200, 40])
    splits = assign(labels, none_given(1240), hashes(1240), 0)
    for label, size in enumerate([1000, 200, 40]):
        counts = Counter(splits[labels == label].tolist())
        val, test = round(size * 0.10), round(size * 0.15)
        assert counts == {TRAIN: size - val - test, VAL: val, TEST: test}


@pytest.mark.parametrize("missing", [VAL, TEST])
def test_only_the_missing_split_is_carved_out_of_train(missing):
    other = VAL + TEST - missing
    given = np.repeat([TRAIN, other], [200, 50])
    labels = np.tile([0, 1], 125)
    splits = assign(labels, given, hashes(250), 0)
    assert (splits[200:] == other).all()
    carved = round(200 * SHARES[missing])
    assert Counter(splits[:200].tolist()) == {TRAIN: 200 - carved, missing: carved}


def test_splits_that_are_all_given_are_kept():
    given = np.array([TRAIN, VAL, TEST] * 10)
    assert (assign(np.tile([0, 1], 15), given, hashes(30), 0) == given).all()


def test_the_choice_depends_on_seed_and_content_and_not_on_order():
    labels, names = np.tile([0, 1], 100), hashes(200)
    first = assign(labels, none_given(200), names, 0)
    order = np.random.default_rng(0).permutation(200)
    again = assign(labels[order], none_given(200), [names[i] for i in order], 0)
    assert (again == first[order]).all()
    assert (assign(labels, none_given(200), names, 1) != first).any()


@pytest.mark.parametrize("size", range(3, 12))
def test_three_images_are_enough_for_a_place_in_every_split(size):
    labels = np.repeat([0, 1], [size, 50])
    splits = assign(labels, none_given(size + 50), hashes(size + 50), size)
    assert set(splits[labels == 0].tolist()) == {TRAIN, VAL, TEST}


def test_train_comes_first_where_there_are_too_few():
    splits = assign(np.array([0, 1, 1]), none_given(3), hashes(3), 0)
    assert splits[0] == TRAIN
    assert sorted(splits[1:].tolist()) == [TRAIN, TEST]


def test_copies_stay_together_also_across_classes():
    names = hashes(40) * 3
    labels = np.tile([0, 1, 0], 40)
    for seed in range(5):
        splits = assign(labels, none_given(120), names, seed)
        assert all(len(set(splits[n::40].tolist())) == 1 for n in range(40))


def test_a_crowd_of_copies_does_not_fill_the_test_split():
    names = hashes(1) * 90 + hashes(30, start=1)
    labels = np.repeat([0], 120)
    for seed in range(20):
        splits = assign(labels, none_given(120), names, seed)
        assert splits[0] == TRAIN
        assert Counter(splits.tolist())[TEST] in range(1, 19)


def test_pairs_of_copies_still_reach_every_split():
    names = [name for name in hashes(4) for _ in range(2)]
    splits = assign(np.zeros(8, int), none_given(8), names, 0)
    assert set(splits.tolist()) == {TRAIN, VAL, TEST}


def test_unreadable_images_take_no_place():
    names = [None] * 10 + hashes(20)
    splits = assign(np.zeros(30, int), none_given(30), names, 0)
    assert (splits[:10] == TRAIN).all()
    assert Counter(splits[10:].tolist()) == {TRAIN: 15, VAL: 2, TEST: 3}


@pytest.mark.parametrize(
    ("alike", "size", "scene"), [(60, 60, True), (31, 60, True), (30, 60, False), (9, 9, False)]
)
def test_a_picture_that_is_most_of_a_class_is_a_scene_whose_shots_may_part(alike, size, scene):
    content = np.arange(size + 20)
    picture = content.copy()
    picture[:alike] = 0
    labels = np.repeat([0, 1], [size, 20])
    found = without_scenes(picture, content, labels)
    assert (found == (content if scene else picture)).all()


def test_copies_of_one_file_are_no_scene_however_many_they_are():
    content = np.repeat([0, 1, 2, 3], [40, 1, 1, 20])
    picture, labels = content.copy(), np.repeat([0, 1], [42, 20])
    assert (without_scenes(picture, content, labels) == content).all()
    picture[:42] = 0
    assert (without_scenes(picture, content, labels) == picture).all()


def test_unreadable_images_belong_to_no_scene():
    content = np.array([-1, *range(30)])
    picture = np.where(content < 0, -1, 0)
    assert without_scenes(picture, content, np.zeros(31, int))[0] == -1
