"""`python -m training.mislabelled`: which images of a dataset are likely labelled wrong.

Models of a recipe are fitted on parts of the dataset, and each judges the images that it has not
seen, copies of them included. Labels that they contradict (by cleanlab) are weighed against how
rare wrong labels are, so that models which are often wrong accuse few images.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from imgcls import console
from imgcls.data import Dataset, DatasetStore
from imgcls.errors import BadArgument, BadDataset
from imgcls.findings import Finding, Fix
from imgcls.findings.kept import keep
from imgcls.jobs import Told
from imgcls.recipes import Recipe, load_recipe, parse_override
from training.calibrate import fit_temperature, scaled
from training.events import OnEvent, ignore
from training.fit import fit
from training.repeats import fold_of
from training.seeding import reproducible

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

SIMPLE = {"kind": "features", "features": {"kind": "hog"}, "head": {"kind": "linear"}}
"""The recipe where none is named: it needs no weights, and a minute for a few thousand photos."""
_FOLDS = 5
_WRONG = 0.033
"""Share of wrong labels that is the mean of ten well-known test sets (C. Northcutt, A. Athalye,
J. Mueller, "Pervasive Label Errors in Test Sets", NeurIPS 2021)."""
_LEAST = 0.1
"""Confidence below which a contradiction is no finding."""


def find_mislabelled(
    dataset: Dataset, recipe: Recipe, *, folds: int = _FOLDS, on_event: OnEvent = ignore
) -> list[Finding]:
    """The images whose labels `folds` models doubt, the surest first.

    The confidence is how probable the proposed label is, where one label in thirty is wrong. A weak
    recipe is sure of little. Raises `BadArgument` for a regression, `BadDataset` where classes are
    too small to be divided, and what `fit` raises.
    """
    if dataset.task == "regression":
        raise BadArgument("Wrong labels are looked for among classes; a regression has none.")
    rows, probabilities = _out_of_fold(dataset, recipe, folds, on_event)
    targets = dataset.targets(rows)
    temperature = fit_temperature(probabilities, targets)
    probabilities = scaled(probabilities, temperature)
    sureness = posterior(probabilities, targets)
    found = []
    for at in _contradicted(targets, probabilities):
        path, given = dataset.name(rows[at]), dataset.labels[targets[at]]
        guess = int(sureness[at].argmax())
        if sureness[at, guess] < _LEAST:
            continue
        likely = dataset.labels[guess]
        found.append(
            Finding(
                kind="mislabelled",
                paths=[path],
                confidence=round(float(sureness[at, guess]), 3),
                message=f"Labelled {given!r}, and looks like {likely!r}.",
                fix=Fix(action="relabel", paths=[path], value=likely),
            )
        )
    return sorted(found, key=lambda finding: -finding.confidence)


def posterior(probabilities: Floats, targets: Rows) -> Floats:
    """`[n, C]`: how probable it is that each other label is the right one, 0 for the given one.

    `probabilities` are those of the true label before anybody looked at the given one; this is
    Bayes' theorem, with given labels that are right as often as in the usual dataset.
    """
    rows, classes = np.arange(len(targets)), probabilities.shape[1]
    likelihood = np.full(probabilities.shape, _WRONG / (classes - 1))
    likelihood[rows, targets] = 1 - _WRONG
    found: Floats = probabilities * likelihood
    found /= found.sum(axis=1, keepdims=True)
    found[rows, targets] = 0
    return found


def _out_of_fold(
    dataset: Dataset, recipe: Recipe, folds: int, emit: OnEvent
) -> tuple[Rows, Floats]:
    """Rows of all splits, and for each the probabilities `[n, C]` of a model that has not seen it.

    Images of a class that the model was not trained on are left out: it knows nothing of them.
    """
    too_few = BadDataset(
        f"{dataset.tag} has too few images to be divided into {folds} parts; looking for wrong "
        "labels needs dozens of each class."
    )
    rows = np.sort(np.concatenate([dataset.rows(split) for split in ("train", "val", "test")]))
    part = fold_of(dataset, rows, folds, recipe.seed)
    targets = dataset.targets(rows)
    judged = np.zeros(len(rows), bool)
    probabilities = np.zeros((len(rows), len(dataset.labels)), np.float32)
    for fold in range(folds):
        unseen, choosing = part == fold, part == (fold + 1) % folds
        rest = ~unseen & ~choosing
        known = np.unique(targets[rest])
        if not unseen.any() or not choosing.any() or len(known) < 2:
            raise too_few
        view = dataset.view(train=rows[rest], val=rows[choosing], test=rows[unseen])
        with reproducible(recipe.seed):
            probabilities[unseen] = fit(view, recipe, ignore).answers["test"]
        judged |= unseen & np.isin(targets, known)
        emit("folds", progress=(fold + 1) / folds, message=f"{fold + 1}/{folds}")
    if not judged.any():
        raise too_few
    return rows[judged], probabilities[judged]


def _contradicted(targets: Rows, probabilities: Floats) -> list[int]:
    """Places of the labels that are not the most probable ones.

    Not by the confident joint: with a few wrong labels in a class it rounds to none of them.
    """
    from cleanlab.filter import find_label_issues  # it takes a second to load

    exact = np.clip(probabilities.astype(np.float64), 1e-6, 1)
    exact /= exact.sum(axis=1, keepdims=True)
    suspect = find_label_issues(targets, exact, filter_by="predicted_neq_given", n_jobs=1)
    return [int(at) for at in np.flatnonzero(suspect)]


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the dataset was judged and the findings are kept, 1 where not."""
    args = _parser().parse_args(argv)
    console.use_json(args.json)
    return console.exit_code(lambda: _judge(args))


def _judge(args: argparse.Namespace) -> None:
    recipe = load_recipe(args.recipe or SIMPLE, dict(parse_override(text) for text in args.set))
    with console.Stages() as stages, DatasetStore().open(args.tag, seed=args.seed) as dataset:
        stages.count("judging by models", 0, args.folds)

        def on_event(stage: str, **told: Unpack[Told]) -> None:
            done = round((told.get("progress") or 0.0) * args.folds)
            stages.count("judging by models", done, args.folds)

        found = find_mislabelled(dataset, recipe, folds=args.folds, on_event=on_event)
        keep(dataset.tag, found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.mislabelled", description=__doc__)
    parser.add_argument("tag", help="a stored dataset")
    parser.add_argument("--recipe", help="a preset (default: HOG and a linear head)")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--folds", type=int, default=_FOLDS, help="models that judge")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--json", action="store_true", help="print a refusal as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
