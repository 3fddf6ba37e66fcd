"""Every head answers as its graph does, learns what there is to learn, and stays in its range."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from imgcls.errors import BadRecipe, TrainingFailed
from imgcls.recipes.types import (
    CatBoostHead,
    Head,
    LightGbmHead,
    LinearHead,
    RandomForestHead,
    SvcHead,
)
from training import graphs, heads

SMALL: dict[str, Head] = {
    "softmax": LinearHead(epochs=5),
    "sigmoid": LinearHead(epochs=5, activation="sigmoid"),
    "rbf": SvcHead(),
    "linear": SvcHead(kernel="linear", C=1),
    "poly": SvcHead(kernel="poly", degree=2, gamma=0.1),
    "random-forest": RandomForestHead(trees=20),
    "lightgbm": LightGbmHead(trees=20, leaves=7, min_leaf=5),
    "catboost": CatBoostHead(trees=30, depth=3),
}


def examples(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of 12 features around a centre a class."""
    draw = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    centres = 2 * np.random.default_rng(7).normal(size=(classes, 12))
    features = centres[targets] + draw.normal(size=(count, 12))
    return features.astype(np.float32), targets.astype(np.int64)


def numbers(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, 6)).astype(np.float32)
    return features, (40 + 10 * features[:, 0] - 5 * features[:, 1]).astype(np.float32)


def answers_of_graph(head: heads.FittedHead, features: np.ndarray) -> np.ndarray:
    width = features.shape[1]
    start = graphs.affine(np.eye(width, dtype=np.float32), np.zeros(width, np.float32))
    parts = [start, *head.parts]
    return graphs.runner(graphs.joined(parts, {"answers": (len(parts) - 1, ("n", "c"))}))(features)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", SMALL)
def test_the_graph_of_a_head_answers_as_the_head(kind: str, classes: int) -> None:
    if kind == "sigmoid" and classes != 2:
        with pytest.raises(BadRecipe, match="softmax"):
            heads.check(SMALL[kind], classes)
        return
    problem = heads.Problem(examples(200, classes), examples(50, classes, 1), classes)
    head = heads.fit(SMALL[kind], problem)
    features, targets = examples(200, classes, 2)
    source = head.answer(features)
    assert source.shape == (200, classes)
    assert source.dtype == np.float32
    assert np.allclose(source.sum(1), 1, atol=1e-5)
    assert (source.argmax(1) == targets).mean() > 0.9
    found = answers_of_graph(head, features)
    assert np.abs(found - source).max() < 1e-4
    assert np.array_equal(found.argmax(1), source.argmax(1))
    assert np.abs(answers_of_graph(head, features[:1]) - source[:1]).max() < 1e-4


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ("sigmoid", "poly")])
def test_a_head_for_numbers_learns_them_and_never_leaves_the_range(kind: str) -> None:
    problem = heads.Problem(numbers(300), numbers(50, 1), None)
    head = heads.fit(SMALL[kind], problem, output_range=(30, 55))
    features, targets = numbers(200, 2)
    features = np.concatenate([features, 100 * features])
    source = head.answer(features)
    assert source.shape == (400,)
    assert source.dtype == np.float32
    found = answers_of_graph(head, features)
    assert found.shape == (400,)
    assert np.abs(found - source).max() < 1e-3
    assert found.min() >= 30
    assert found.max() <= 55
    inside = targets.clip(30, 55)
    error = np.abs(source[:200] - inside).mean()
    assert error < 0.5 * np.abs(inside - np.median(inside)).mean()


@pytest.mark.parametrize("kind", ["softmax", "rbf", "random-forest", "lightgbm", "catboost"])
def test_a_class_without_training_images_keeps_its_place(kind: str) -> None:
    features, targets = examples(200, 4)
    there = targets != 1
    problem = heads.Problem((features[there], targets[there]), examples(50, 4, 1), 4)
    head = heads.fit(SMALL[kind], problem)
    source = head.answer(features)
    assert source.shape == (200, 4)
    assert source[:, 1].max() < 0.5
    assert (source.argmax(1) == targets)[there].mean() > 0.9
    assert np.abs(answers_of_graph(head, features) - source).max() < 1e-4


def test_one_kernel_for_all_machines_gives_what_scikit_learn_gives() -> None:
    train, (asked, _) = examples(200, 3), examples(100, 3, 2)
    head = heads.fit(SvcHead(gamma=0.05), heads.Problem(train, examples(50, 3, 1), 3))
    plain = CalibratedClassifierCV(SVC(C=10, gamma=0.05), cv=5, ensemble=False).fit(*train)
    assert np.abs(head.answer(asked) - plain.predict_proba(asked)).max() < 1e-3


def test_support_vectors_take_no_more_images_than_they_may() -> None:
    problem = heads.Problem(examples(400, 3), examples(50, 3, 1), 3)
    head = heads.fit(SvcHead(max_images=40), problem)
    features, targets = examples(200, 3, 2)
    assert (head.answer(features).argmax(1) == targets).mean() > 0.9
    (graph,) = head.parts
    (machine,) = [node for node in graph.graph.node if node.op_type == "SVMClassifier"]
    vectors = {a.name: a for a in machine.attribute}["support_vectors"].floats
    assert len(vectors) <= 40 * 12


def test_a_class_of_one_image_has_no_support_vectors_probabilities() -> None:
    features, targets = examples(40, 2)
    alone = np.concatenate([np.flatnonzero(targets == 0), [1]])
    problem = heads.Problem((features[alone], targets[alone]), (features, targets), 2)
    with pytest.raises(BadRecipe, match="two training images"):
        heads.fit(SvcHead(), problem)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ("linear", "poly")])
def test_what_counts_more_decides(kind: str) -> None:
    features, targets = examples(100, 2)
    twice, both = np.tile(features, (2, 1)), np.concatenate([targets, 1 - targets])
    for first, second in ((1.9, 0.1), (0.1, 1.9)):
        counts = np.repeat(np.array([first, second], np.float32), 100)
        problem = heads.Problem((twice, both), (features, targets), 2, counts=counts)
        answered = heads.fit(SMALL[kind], problem).answer(features).argmax(1)
        agreed = (answered == targets).mean()
        assert agreed > 0.9 if first > second else agreed < 0.1


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ("sigmoid", "poly")])
def test_what_counts_more_decides_on_numbers(kind: str) -> None:
    features, targets = numbers(100)
    twice, both = np.tile(features, (2, 1)), np.concatenate([targets, targets + 20])
    for first, second in ((1.9, 0.1), (0.1, 1.9)):
        counts = np.repeat(np.array([first, second], np.float32), 100)
        problem = heads.Problem((twice, both), (features, targets), None, counts=counts)
        above = heads.fit(SMALL[kind], problem).answer(features) - targets
        assert above.mean() < 7 if first > second else above.mean() > 13


def test_what_a_library_cannot_fit_is_said_in_words() -> None:
    problem = heads.Problem(examples(40, 2), examples(20, 2, 1), 2)
    with pytest.raises(TrainingFailed, match="head svc could not"):
        heads.fit(SvcHead(kernel="poly", degree=10, gamma=1e200), problem)


@pytest.mark.parametrize("kind", ["random-forest", "lightgbm", "catboost", "rbf"])
def test_the_same_seed_gives_the_same_head(kind: str) -> None:
    problem = heads.Problem(examples(200, 3), examples(50, 3, 1), 3)
    asked = examples(50, 3, 2)[0]
    first, second = (heads.fit(SMALL[kind], problem).answer(asked) for _ in range(2))
    assert np.array_equal(first, second)
