"""Answers: predictions written to CSV, Parquet or JSON lines while they come.

One row a file: `path`, `label`, `probability`, `error`, and `p_<class>` for every class. The file
is written as `NAME.part` and takes its name when it is complete.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

from imgcls import console
from imgcls.data.entries import printable
from imgcls.errors import BadArgument
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

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        ending = path.suffix.lower()
        if ending not in FORMATS:
            raise BadArgument(f"--out must end in {', '.join(FORMATS)}; got {path.name!r}.")
        if not path.absolute().parent.is_dir():
            raise BadArgument(f"There is no folder {path.parent}; make it first.")
        self.path = path
        self.part = path.with_name(path.name + ".part")
        kinds: dict[str, type[_Csv] | type[_JsonLines] | type[_Parquet]] = {
            ".csv": _Csv,
            ".jsonl": _JsonLines,
            ".parquet": _Parquet,
        }
        self._sink: Sink = kinds[ending](self.part, classes)

    def write(self, answers: Answers) -> None:
        self._sink.write(answers)

    def __enter__(self) -> "OutFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sink.close()
        if kind is None:
            os.replace(self.part, self.path)
        else:
            console.note(f"The answers so far are in {self.part}.")


class JsonLines:
    """JSON lines to any text stream; `null` where there is nothing to say."""

    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self._stream = stream
        self._columns = _columns(classes)

    def write(self, answers: Answers) -> None:
        for row in _rows(answers):
            line = json.dumps(dict(zip(self._columns, row, strict=True)), ensure_ascii=False)
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


class _JsonLines(JsonLines):
    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        super().__init__(path.open("w", encoding="utf-8"), classes)

    def close(self) -> None:
        self._stream.close()


class _Csv:
    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(_columns(classes))

    def write(self, answers: Answers) -> None:
        self._writer.writerows(_rows(answers))

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text = [pa.field("path", pa.string(), nullable=False), pa.field("label", pa.string())]
        rest = [pa.field("probability", pa.float32()), pa.field("error", pa.string())]
        shares = [pa.field(name, pa.float32()) for name in _columns(classes)[4:]]
        self._schema = pa.schema([*text, *rest, *shares])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._group = max(1, _GROUP_VALUES // (len(classes) + 4))
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
        shares = [pa.array(table[:, c], from_pandas=True) for c in range(table.shape[1])]
        paths = pa.array([printable(path) for path in answers.paths], pa.string())
        return pa.record_batch(
            [
                paths,
                pa.array(answers.labels, pa.string()),
                pa.array(answers.probability, pa.float32()),
                pa.array(answers.errors, pa.string()),
                *shares,
            ],
            schema=self._schema,
        )


def _columns(classes: Sequence[str]) -> list[str]:
    return ["path", "label", "probability", "error", *(f"p_{label}" for label in classes)]


def _rows(answers: Answers) -> Iterator[list[Any]]:
    for i, path in enumerate(answers.paths):
        shares = [None if p != p else round(p, 6) for p in answers.probabilities[i].tolist()]
        head = [printable(path), answers.labels[i], answers.probability[i], answers.errors[i]]
        yield [*head, *shares]
