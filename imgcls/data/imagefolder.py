"""Metadata beside the images, as in the `imagefolder` layout of Hugging Face's datasets.

`metadata.csv` or `metadata.jsonl` in the folder of the images, or above them, names each one in its
column `file_name` as seen from there; the other columns are fields, as those of a table.
https://huggingface.co/docs/datasets/image_dataset
"""

import hashlib
import json

from imgcls.data.entries import Entries
from imgcls.data.measure import HASH_BYTES
from imgcls.data.pattern import FIELD
from imgcls.data.reader import Reader
from imgcls.data.tables import MAX_BYTES, Lines, Table, common_depth, csv_lines, to_rows
from imgcls.errors import BadDataset, BadImage

_FILE_NAME = "file_name"


def read_metadata(reader: Reader, files: Entries) -> Table | None:
    """One table of all metadata files; None where none of them names images.

    Raises `BadDataset` for what is no such file.
    """
    rows: dict[str, dict[str, str]] = {}
    fields: list[tuple[str, ...]] = []
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    if sum(files.size.tolist()) > MAX_BYTES:
        raise BadDataset(f"The metadata has more than {MAX_BYTES >> 20} MiB; leave out columns.")
    order = sorted(range(len(files)), key=files.names.__getitem__)
    depth = common_depth(files.names) if files.names else 0
    contents = [data for data, _ in reader.scan(files)]
    for at in order:
        name, data = files.names[at], contents[at]
        if isinstance(data, BadImage):
            raise BadDataset(f"{name[:200]} cannot be read: {data.message}")
        header, lines = _json_lines(data, name) if name.endswith(".jsonl") else csv_lines(data)
        if _FILE_NAME not in header:
            continue
        folder = name.rpartition("/")[0]
        rows |= to_rows(header, lines, column=_FILE_NAME, folder=folder, known=rows)
        fields.append(tuple(name for name in header if FIELD.fullmatch(name)))
        # Below the folders around all: an archive of a folder is the same dataset.
        below = "/".join(name.split("/")[depth:])
        digest.update(b"\0".join((below.encode("utf-8", "surrogateescape"), data)))
    if not rows:
        return None
    # A field that some image lacks is none: the test images of a competition have no labels.
    shared = set.intersection(*map(set, fields)) - {_FILE_NAME}
    return Table(digest.hexdigest(), tuple(name for name in fields[0] if name in shared), rows)


def _json_lines(data: bytes, name: str) -> Lines:
    """Keys of all lines, and the values of each; lists and objects are left out."""
    records = []
    try:
        for line in data.decode("utf-8-sig").split("\n"):  # other line ends may stand in texts
            if line.strip():
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("a line is no object")
                records.append({key: _text(value) for key, value in record.items()})
    except (ValueError, RecursionError) as err:
        raise BadDataset(f"{name[:200]} is not JSON lines in UTF-8: {err}.") from err
    header = list(dict.fromkeys(key for record in records for key in record))
    return header, ([record.get(key, "") for key in header] for record in records)


def _text(value: object) -> str:
    if value is None or isinstance(value, list | dict):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
