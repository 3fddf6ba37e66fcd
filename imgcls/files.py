"""Files that are never seen half written, and names that are safe to use as files.

Everything imgcls keeps on disk is written to a temporary name, flushed, and renamed.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from imgcls.errors import BadArgument

NAME = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
"""A model's or dataset's name, as a regular expression."""
VERSION = r"[a-z0-9][a-z0-9._-]{0,62}"
_HELD = ".held"
"""A file in a folder of work, locked while the work goes on."""
_ABANDONED = 24 * 3600
"""Seconds after which unfinished work belongs to nobody."""


def check_name(name: str, what: str = "name") -> str:
    """A model's or dataset's name, as BentoML's tags allow it. Raises `BadArgument`."""
    if not re.fullmatch(NAME, name):
        raise BadArgument(
            f"The {what} {name[:80]!r} is not valid: use 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning and ending with a letter or digit."
        )
    return name


def split_tag(tag: str) -> tuple[str, str | None]:
    """`name:version` into its parts; `name` and `name:latest` give None. Raises `BadArgument`."""
    name, _, version = tag.partition(":")
    check_name(name, "tag")
    if version in ("", "latest"):
        return name, None
    if not re.fullmatch(VERSION, version):
        raise BadArgument(f"The tag {tag[:140]!r} is not valid: write it name:version.")
    return name, version


def check_folder(path: Path) -> None:
    """Refuse, before the work, a file that could not be written after it. Raises `BadArgument`."""
    if path.is_dir():
        raise BadArgument(f"{path} is a folder; give the name of a file.")
    if not path.absolute().parent.is_dir():
        raise BadArgument(f"There is no folder {path.parent}; make it first.")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data`, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        # The kernel's own time has steps of milliseconds; two changes in one could look like none.
        now = time.time_ns()
        os.utime(temporary, ns=(now, now))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def appended(path: Path, line: str) -> Iterator[None]:
    """Add a line to a file for good if the block succeeds; else the file is left as it was.

    The line is a line of its own, even where the last one was cut short by a kill.
    """
    with path.open("ab+", buffering=0) as file:
        end = file.tell()
        file.seek(max(0, end - 1))
        cut = file.read(1) not in (b"", b"\n")
        data = f"{chr(10) * cut}{line}\n".encode()
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield
        except BaseException:
            file.truncate(end)
            raise


Stamp = tuple[int, int, int] | None
"""Identity of one state of a file; None while there is none."""


def stamp(path: Path) -> Stamp:
    """Changes whenever the file is replaced by `write_atomic`; costs one `stat`."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


@contextlib.contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder under `parent` for the length of the block.

    Folders of the same prefix that killed processes left behind are removed on the way.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent, prefix)
    made = tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True)
    with made as folder, locked(Path(folder) / _HELD):
        yield Path(folder)


def sweep(parent: Path, prefix: str) -> None:
    """Remove files and folders of unfinished work that nobody holds or has touched for a day."""
    for left in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > _ABANDONED
            if old and not _is_held(left):
                shutil.rmtree(left, ignore_errors=True)
                left.unlink(missing_ok=True)


def _is_held(folder: Path) -> bool:
    try:
        with (folder / _HELD).open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file, or a folder of before
        return False
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes (flock) for the length of the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
