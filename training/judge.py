"""Judge: what is fitted on the validation images of a model, and then measures it on others."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from imgcls.card import Interval, Metrics, RegressionMetrics
from imgcls.data import Dataset
from imgcls.recipes import Recipe
from training import calibrate, evaluate
from training.fitted import Floats, output_range
from training.resample import RESAMPLES


@dataclass(frozen=True, slots=True)
class Judge:
    """Fields as in the model card; those of the other task are as they are by default."""

    labels: list[str]
    threshold: float | None = None
    temperature: float = 1.0
    abstain_below: float | None = None
    output_range: tuple[float, float] | None = None
    interval: Interval | None = None
    median: float = 0.0
    """Of the training targets of a regression."""

    @classmethod
    def of(cls, dataset: Dataset, recipe: Recipe, answers: Floats) -> "Judge":
        """From the answers to the validation images: probabilities `[n, C]` or scores `[n]`."""
        targets = dataset.targets(dataset.rows("val"))
        if dataset.task == "regression":
            half_width = calibrate.conformal_half_width(answers - targets, recipe.coverage)
            return cls(
                labels=[],
                output_range=output_range(dataset, recipe),
                interval=Interval(coverage=recipe.coverage, half_width=half_width),
                median=float(np.median(dataset.targets(dataset.rows("train")))),
            )
        threshold = recipe.threshold if len(dataset.labels) == 2 else None
        temperature, abstain_below = 1.0, None
        if recipe.calibrate:
            temperature = calibrate.fit_temperature(answers, targets)
            answers = calibrate.scaled(answers, temperature)
        if recipe.abstain_error is not None:
            abstain_below = calibrate.abstain_threshold(
                answers, targets, recipe.abstain_error, threshold=threshold
            )
        return cls(dataset.labels, threshold, temperature, abstain_below)

    def calibrated(self, answers: Floats) -> Floats:
        """What the source answered, as the graph is to answer it."""
        return calibrate.scaled(answers, self.temperature)

    def measure(
        self, targets: Any, answers: Floats, *, split: str = "test", resamples: int = RESAMPLES
    ) -> Metrics | RegressionMetrics:
        """The figures of calibrated answers; `targets` are class numbers or the true scores."""
        if self.interval is not None:
            return evaluate.measure_scores(
                targets,
                answers,
                median=self.median,
                interval=self.interval,
                split=split,
                resamples=resamples,
            )
        return evaluate.measure(
            self.labels,
            targets,
            answers,
            threshold=self.threshold,
            abstain_below=self.abstain_below,
            split=split,
            resamples=resamples,
        )
