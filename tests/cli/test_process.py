"""The command line as a process: pipes, colours, speed, the server, the demo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgcls import Client
from imgcls.cli.local_server import Server, running_server
from imgcls.errors import ImgclsError
from imgcls.registry import Registry
from tests.commands import without
from tests.fakes import class_folders, tiny_model

ROOT = Path(__file__).parents[2]
IMGCLS = [sys.executable, "-m", "imgcls.cli"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*IMGCLS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        check=False,
    )


def processes_of(session: int) -> list[str]:
    listed = subprocess.run(
        ["ps", "-s", str(session), "-o", "pid=,stat="], capture_output=True, text=True, check=False
    )
    return [line for line in listed.stdout.splitlines() if " Z" not in line]


@pytest.mark.parametrize("arguments", ["['--help']", "['models', 'list']", "['recipes', 'cnn']"])
def test_quick_commands_load_nothing_heavy(arguments: str) -> None:
    heavy = {"torch", "bentoml", "pyarrow", "sklearn", "onnxruntime", "httpx", "numpy", "PIL"}
    code = (
        "import sys, atexit; from imgcls.cli import main; "
        f"atexit.register(lambda: print('HEAVY', sorted({heavy!r} & set(sys.modules)))); "
        f"sys.argv[1:] = {arguments}; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_without_the_extra_it_says_what_to_install() -> None:
    done = without("typer")
    assert done.returncode == 1
    assert "imgcls[cli]" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_while_it_loads_leaves_no_traceback() -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "imgcls.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from imgcls.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_a_reader_that_goes_away_stops_it_quietly(registry: Registry, tmp_path: Path) -> None:
    tag = tiny_model(tmp_path / "model", registry)
    photos = class_folders(tmp_path / "photos", per_class=400)
    with subprocess.Popen(
        [*IMGCLS, "predict", photos, "--model", tag, "--json", "--batch", "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["label"] == "blue"
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 0
    assert "Traceback" not in errors
    assert "Exception" not in errors


def test_json_stands_alone_on_standard_output(tmp_path: Path) -> None:
    done = run("eda", class_folders(tmp_path / "photos"), "--json")
    assert json.loads(done.stdout)["overall"]["images"] == 36
    assert "reading images: 100%" in done.stderr


def test_there_is_no_colour_where_none_is_wanted(registry: Registry, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", registry)
    for environment in ({}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        done = run("models", "show", "tiny", **environment)
        assert "\x1b[3" not in done.stdout  # bold is no colour
    refused = run("models", "show", "nothing", FORCE_COLOR="1")
    assert "\x1b[1;31merror: " in refused.stderr


def test_serve_becomes_a_server_that_ends_with_its_process() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        taken = run("serve", "--port", port)
    assert taken.returncode == 1
    assert "--port" in taken.stderr
    process = subprocess.Popen(
        [*IMGCLS, "serve", "--port", str(port), "--workers", "2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            client.wait_ready(90)
            assert client.list().active is None
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert json.loads(output) == {"url": f"http://127.0.0.1:{port}", "pid": process.pid}
    assert processes_of(process.pid) == []


def test_a_server_never_outlives_its_block(tmp_path: Path) -> None:
    started: list[Server] = []

    def fail() -> None:
        with running_server(0, tmp_path / "server.log") as server:
            started.append(server)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert processes_of(started[0].pid) == []


def test_a_server_that_does_not_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGCLS_WORKERS", "none")
    with (
        pytest.raises(ImgclsError, match=r"server\.log"),
        running_server(0, tmp_path / "server.log"),
    ):
        pass


def test_the_demo_ends_with_right_predictions_and_can_leave_its_server() -> None:
    done = run("demo", "--keep")
    assert done.returncode == 0, done.stderr
    assert "predicted rightly over HTTP" in done.stdout.splitlines()[-1]
    assert (Registry().active() or "").startswith("digits:")
    pid = int(done.stderr.split("kill ")[1].split()[0])
    try:
        assert processes_of(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while processes_of(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(pid) == []
