"""One command around the locustfile: a service and two small models where none is given.

    python -m loadtests.run [--scenario NAME] [--seconds 30] [--users 16] [--host URL]

Without `--host` (or LOADTEST_HOST) it starts the real service with a store of its own, and stops it
afterwards. Leaves Locust's report and the verdict under `loadtests/results/`. Ends with Locust's
exit code, which is not 0 when a limit of the scenario was exceeded.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import models
from benchmarks.servers import ROOT, serving, stop_on_sigterm
from loadtests.scenarios import SCENARIOS

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
RESULTS = Path(__file__).with_name("results")
SIDE = 64
"""Pixels of the two models that are made for the test."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run Locust against the service, headless.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:8} {scenario.about}" for name, scenario in SCENARIOS.items()),
    )
    parser.add_argument("--scenario", choices=SCENARIOS, default="steady")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--users", type=int, default=16, help="who ask for predictions")
    parser.add_argument("--workers", type=int, default=1, help="of the service that is started")
    parser.add_argument("--host", default=os.environ.get("LOADTEST_HOST"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the reports")
    arguments = parser.parse_args()
    stop_on_sigterm()
    if arguments.host:
        if SCENARIOS[arguments.scenario].own_store:
            raise SystemExit(
                f"The scenario {arguments.scenario} leaves datasets and models behind, so it needs "
                "a service of its own: leave out --host and LOADTEST_HOST."
            )
        raise SystemExit(_locust(arguments, arguments.host))
    with tempfile.TemporaryDirectory(prefix="loadtest-") as scratch:
        home = Path(scratch) / "bentoml"
        for seed in range(2):
            models.cnn(home, side=SIDE, seed=seed)
        env = {"BENTOML_HOME": str(home), "IMGCLS_WORKERS": str(arguments.workers)}
        with serving("service:ImageClassifier", env=env) as server:
            code = _locust(arguments, server.url, pid=server.process.pid)
            if code:
                print(f"The service's log ends:\n{server.tail()}", file=sys.stderr)
    raise SystemExit(code)


def _locust(arguments: argparse.Namespace, host: str, pid: int | None = None) -> int:
    arguments.results.mkdir(parents=True, exist_ok=True)
    report = arguments.results / f"{arguments.scenario}.html"
    verdict = report.with_suffix(".json")
    verdict.unlink(missing_ok=True)
    users = arguments.users + sum(SCENARIOS[arguments.scenario].beside.values())
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
    command += ["-u", str(users), "-r", str(users), "-t", f"{arguments.seconds}s"]
    command += ["--host", host, "--only-summary", "--stop-timeout", "10s", "--html", str(report)]
    env = os.environ | {"SCENARIO": arguments.scenario, "LOADTEST_VERDICT": str(verdict)}
    if pid is not None:
        env["LOADTEST_PID"] = str(pid)
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    print(f"The report is {report}; its figures are in {verdict.name} beside it.")
    return code


if __name__ == "__main__":
    main()
