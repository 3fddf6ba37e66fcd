"""Answers: predictions written to CSV, Parquet or JSON lines while they come.

One row a file: `path`, `label`, `probability`, `error`, and `p_<class>` for every class, with
`abstained` before the error where the model can abstain. Of a regression: `path`, `score`, `error`,
with `low` and `high` before the error where the model gives an interval. The file is written as
`NAME.part` and takes its name when it is complete.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from imgcls import console
from imgcls.card import ModelCard
from imgcls.data.entries import printable
from imgcls.errors import BadArgument
from imgcls.files import check_folder
from imgcls.offline import Answers

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".parquet", ".jsonl")
_GROUP_VALUES = 2_000_000
"""Numbers in one Parquet row group: what is held before it is written."""


class Sink(Protocol):
    """What takes answers; `close` is called once, also after a failure."""

    def write(self, answers: Answers) -> None: ...
    def close(self) -> None: ...


class OutFile:
    """The answers' file, in the format of its ending. Use as a context manager.

    Raises `BadArgument` for other endings and folders that are not there.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        ending = path.suffix.lower()
        if ending not in FORMATS:
            raise BadArgument(f"--out must end in {', '.join(FORMATS)}; got {path.name!r}.")
        check_folder(path)
        self.path = path
        self.part = path.with_name(path.name + ".part")
        kinds: dict[str, type[_Csv] | type[_JsonLines] | type[_Parquet]] = {
            ".csv": _Csv,
            ".jsonl": _JsonLines,
            ".parquet": _Parquet,
        }
        self._sink: Sink = kinds[ending](self.part, card)

    def write(self, answers: Answers) -> None:
        self._sink.write(answers)

    def __enter__(self) -> "OutFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._sink.close()
        if kind is None:
            os.replace(self.part, self.path)
        else:
            console.note(f"The answers so far are in {self.part}.")


class JsonLines:
    """JSON lines to any text stream; `null` where there is nothing to say."""

    def __init__(self, stream: IO[str], card: ModelCard) -> None:
        self._stream = stream
        self._columns = _columns(card)

    def write(self, answers: Answers) -> None:
        for row in _rows(self._columns, answers):
            line = json.dumps(dict(zip(self._columns, row, strict=True)), ensure_ascii=False)
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


class _JsonLines(JsonLines):
    def __init__(self, path: Path, card: ModelCard) -> None:
        super().__init__(path.open("w", encoding="utf-8"), card)

    def close(self) -> None:
        self._stream.close()


class _Csv:
    def __init__(self, path: Path, card: ModelCard) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._columns = _columns(card)
        self._writer = csv.writer(self._file)
        self._writer.writerow(self._columns)

    def write(self, answers: Answers) -> None:
        self._writer.writerows(_rows(self._columns, answers))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, card: ModelCard) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"path": pa.string(), "label": pa.string(), "error": pa.string()}
        kinds |= {"abstained": pa.bool_()} | dict.fromkeys(("score", "low", "high"), pa.float64())
        self._columns = _columns(card)
        self._schema = pa.schema(
            pa.field(name, kinds.get(name, pa.float32()), nullable=name != "path")
            for name in self._columns
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._group = max(1, _GROUP_VALUES // len(self._columns))
        self._held: list[pa.RecordBatch] = []
        self._count = 0

    def write(self, answers: Answers) -> None:
        self._held.append(self._batch(answers))
        self._count += len(answers.paths)
        if self._count >= self._group:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            table = pa.Table.from_batches(self._held, self._schema)
            self._writer.write_table(table, row_group_size=self._count)
        self._held, self._count = [], 0

    def _batch(self, answers: Answers) -> "pa.RecordBatch":
        import pyarrow as pa

        table = answers.probabilities
        values = _values(self._columns, answers)
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(values, self._schema, strict=False)
        ]
        shares = [pa.array(table[:, c], from_pandas=True) for c in range(table.shape[1])]
        return pa.record_batch([*arrays, *shares], schema=self._schema)


def _columns(card: ModelCard) -> list[str]:
    """The columns of a card's answers; those of the classes come last."""
    if card.task == "regression":
        return ["path", "score", *(["low", "high"] if card.interval else []), "error"]
    abstained = [] if card.abstain_below is None else ["abstained"]
    shares = [f"p_{label}" for label in card.labels]
    return ["path", "label", "probability", *abstained, "error", *shares]


def _values(columns: list[str], answers: Answers) -> list[list[Any]]:
    """The values of all columns but those of the classes."""
    found: dict[str, list[Any]] = {
        "path": [printable(path) for path in answers.paths],
        "label": answers.labels,
        "probability": answers.probability,
        "abstained": answers.abstained,
        "score": answers.scores,
        "low": [interval and interval[0] for interval in answers.intervals],
        "high": [interval and interval[1] for interval in answers.intervals],
        "error": answers.errors,
    }
    classes = answers.probabilities.shape[1]
    return [found[name] for name in columns[: len(columns) - classes]]


def _rows(columns: list[str], answers: Answers) -> Iterator[list[Any]]:
    values = zip(*_values(columns, answers), strict=True)
    for head, row in zip(values, answers.probabilities.tolist(), strict=True):
        yield [*head, *(None if p != p else round(p, 6) for p in row)]
