"""Tracking: figures land in TensorBoard and MLflow, and a tracker's trouble stops no training."""

import logging
from pathlib import Path

import pytest

from imgcls.data import Dataset
from imgcls.errors import BadArgument
from imgcls.recipes import NetworkRecipe
from training import train
from training.events import ignore
from training.tracking import flat, tracked


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_both_trackers_have_every_epoch_the_settings_and_the_result(
    dataset: Dataset, small_cnn: NetworkRecipe, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracked(["tensorboard", "mlflow"], "shapes-1", small_cnn, ignore) as run:
        card = train(dataset, small_cnn, name="shapes", on_event=run.on_event)
        run.end(card.metrics.headline(), tag=card.tag)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home}/tracking/mlflow.db")
    experiment = client.get_experiment_by_name("imgcls")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.tags["tag"] == card.tag
    assert found.data.params["optimizer.lr"] == "0.01"
    assert found.data.metrics["result_accuracy"] == pytest.approx(
        card.metrics.headline()["accuracy"]
    )
    losses = client.get_metric_history(found.info.run_id, "val_loss")
    assert [point.step for point in losses] == [1, 2, 3]
    expected = [row["val_loss"] for row in card.history]
    assert [point.value for point in losses] == pytest.approx(expected)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(home / "tracking" / "tensorboard" / "shapes-1"))
    board.Reload()
    scalars = board.Scalars("val_loss")
    assert [point.step for point in scalars] == [1, 2, 3]
    assert [point.value for point in scalars] == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_server_that_is_not_there_refuses_the_run_before_it_begins(
    small_cnn: NetworkRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(BadArgument, match=r"http://127\.0\.0\.1:9"),
        tracked(["mlflow"], "x", small_cnn, ignore),
    ):
        pass


def test_a_tracker_that_fails_later_is_let_go(
    small_cnn: NetworkRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    passed: list[str] = []

    def on_event(stage: str, **told: object) -> None:
        passed.append(stage)

    with (
        tracked(["tensorboard"], "x", small_cnn, on_event) as run,
        caplog.at_level(logging.WARNING),
    ):
        for epoch in (1, 2):
            run.on_event("training", epoch=epoch, metrics={"val_loss": "no number"})
    assert passed == ["training", "training"]
    assert caplog.text.count("left out") == 1


def test_without_a_tracker_nothing_is_written(small_cnn: NetworkRecipe, home: Path) -> None:
    with tracked([], "x", small_cnn, ignore) as run:
        run.on_event("training", epoch=1, metrics={"val_loss": 1.0})
    assert not (home / "tracking").exists()


def test_settings_are_flat_text() -> None:
    assert flat({"a": {"b": 1, "c": None}, "d": "x"}) == {"a.b": "1", "d": "x"}
