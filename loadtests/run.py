"""One command around the locustfile: a service and two small models where none is given.

    python -m loadtests.run [--scenario steady|set] [--seconds 30] [--users 16] [--host URL]

Without `--host` (or LOADTEST_HOST) it starts the real service with a store of its own, and stops it
afterwards. Ends with Locust's exit code, which is not 0 when a request failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import models
from benchmarks.servers import ROOT, serving, stop_on_sigterm

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SIDE = 64
"""Pixels of the two models that are made for the test."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Run Locust against the service, headless.")
    parser.add_argument("--scenario", choices=("steady", "set"), default="steady")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="of the service that is started")
    parser.add_argument("--host", default=os.environ.get("LOADTEST_HOST"))
    arguments = parser.parse_args()
    stop_on_sigterm()
    if arguments.host:
        raise SystemExit(_locust(arguments, arguments.host))
    with tempfile.TemporaryDirectory(prefix="loadtest-") as scratch:
        home = Path(scratch) / "bentoml"
        for seed in range(2):
            models.cnn(home, side=SIDE, seed=seed)
        env = {"BENTOML_HOME": str(home), "IMGCLS_WORKERS": str(arguments.workers)}
        with serving("service:ImageClassifier", env=env) as server:
            code = _locust(arguments, server.url)
            if code:
                print(f"The service's log ends:\n{server.tail()}", file=sys.stderr)
    raise SystemExit(code)


def _locust(arguments: argparse.Namespace, host: str) -> int:
    users = arguments.users + (arguments.scenario == "set")
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
    command += ["-u", str(users), "-r", str(users), "-t", f"{arguments.seconds}s"]
    command += ["--host", host, "--only-summary", "--stop-timeout", "10s"]
    env = os.environ | {"SCENARIO": arguments.scenario}
    return subprocess.run(command, cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    main()
