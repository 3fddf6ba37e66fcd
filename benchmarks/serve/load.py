"""`wrk` against a server: the same prepared multipart bodies for every contestant."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BOUNDARY = "imgcls-benchmark-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FIELD = "images"
PATH = "/predict"
_SCRIPT = Path(__file__).with_name("post.lua")
_TIMEOUT = "10s"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run under load; times in milliseconds, from sending to the whole answer."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    bad_status: int
    broken: int
    timeouts: int

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def errors(self) -> int:
        """Requests that got no 2xx."""
        return self.bad_status + self.broken + self.timeouts


def body(file: bytes) -> bytes:
    """A multipart form with one picture."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{FIELD}"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


class Wrk:
    """Keeps `connections` requests under way, one picture each, all pictures in turn."""

    def __init__(self, folder: Path, files: Sequence[bytes], connections: int) -> None:
        found = shutil.which("wrk")
        if found is None:
            raise SystemExit("wrk is not installed: apt-get install wrk (or brew install wrk).")
        folder.mkdir()
        for number, file in enumerate(files):
            (folder / f"{number}.body").write_bytes(body(file))
        self._command = [found, f"-c{connections}", "-t1", "--timeout", _TIMEOUT, "-s", _SCRIPT]
        self._arguments = ["--", folder, str(len(files)), BOUNDARY, PATH]

    def run(self, url: str, seconds: int) -> Measured:
        command = [*self._command, f"-d{seconds}s", url, *self._arguments]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        line = next(line for line in printed.splitlines() if line.startswith("JSON "))
        return Measured(**json.loads(line.removeprefix("JSON ")))
