"""What the README tells people to type exists, and what it shows runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "docs" / "recipes.md",
    ROOT / "docs" / "scale.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "loadtests" / "README.md",
]
SHELL = ("sh", "bash", "shell", "console")
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_THERE = re.compile(r"does not exist|no such file", re.IGNORECASE)
"""The reader's own files, such as `pets.zip`, are not here; that alone is no mistake."""


USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""Typer carries its own copy of click, and names only this exception's subclass."""


@dataclass(frozen=True)
class Block:
    document: Path
    language: str
    marks: str
    """What stands behind the language: ```python no-test."""
    text: str


@dataclass(frozen=True)
class Command:
    document: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {shlex.join(self.words)}"


def blocks(document: Path) -> list[Block]:
    return [Block(document, *found) for found in FENCE.findall(document.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell block, without variable settings and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ")
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>()")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("&|;()"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def called(program: str) -> list[Command]:
    """Every call of a program in the shell blocks of the documents."""
    found = []
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language not in SHELL:
                continue
            for words in commands(block.text):
                cut = next((i for i, word in enumerate(words) if set(word) <= set("<>")), None)
                words = words[:cut]
                while words and (re.match(r"\w+=", words[0]) or words[0] in ("time", "env")):
                    words = words[1:]
                if words[:3] == ["uv", "run", "--frozen"]:
                    words = words[3:]
                if words and Path(words[0]).name == program:
                    found.append(Command(document, tuple(words)))
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w.-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def misuse(words: tuple[str, ...]) -> str | None:
    """Parse a call of the command line and run nothing; what is wrong with it, if anything."""
    from imgcls.cli.app import app

    command: Any = typer.main.get_command(app)
    name, arguments, parent = words[0], list(words[1:]), None
    try:
        while True:
            context = command.make_context(name, arguments, parent=parent)
            if not hasattr(command, "resolve_command"):
                return None
            left = [*context._protected_args, *context.args]
            name, command, arguments = command.resolve_command(context, left)
            parent = context
    except typer.Exit:  # --help and --version
        return None
    except USAGE_ERROR as err:
        message = str(err.format_message())
        return None if NOT_THERE.search(message) else message


@pytest.mark.parametrize("command", called("imgcls"), ids=str)
def test_imgcls_understands_the_command(command: Command) -> None:
    assert misuse(command.words) is None


@pytest.mark.parametrize(
    "words",
    [
        ("imgcls", "trian", "x"),
        ("imgcls", "train", "x", "--no-such-option"),
        ("imgcls", "train"),
        ("imgcls", "models", "nothing"),
        ("imgcls", "train", "x", "--seed", "many"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_found_out(words: tuple[str, ...]) -> None:
    assert misuse(words)


def test_a_right_command_passes() -> None:
    assert misuse(("imgcls", "train", "pets.zip", "--recipe", "cnn")) is None


@pytest.mark.parametrize("command", called("make"), ids=str)
def test_make_has_the_target(command: Command) -> None:
    wanted = {word for word in command.words[1:] if "=" not in word and not word.startswith("-")}
    assert wanted <= make_targets()


def test_the_two_commands_that_are_promised_exist() -> None:
    assert {"demo", "test"} <= make_targets()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_that_is_linked_or_run_exists(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def python_blocks() -> list[Block]:
    """The README's Python, in order, unless a block is marked ```python no-test."""
    if not README.exists():
        return []
    found = [block for block in blocks(README) if block.language == "python"]
    return [block for block in found if "no-test" not in block.marks]


@pytest.mark.parametrize(
    "block", [b for b in blocks(README) if b.language == "python"], ids=lambda b: b.text[:40]
)
def test_python_of_the_readme_compiles(block: Block) -> None:
    compile(block.text, str(README), "exec")


@pytest.mark.skipif(not python_blocks(), reason="the README shows no Python to run")
@pytest.mark.timeout(300)
def test_python_of_the_readme_runs_against_a_real_server(tmp_path: Path) -> None:
    """All blocks, in one process and in their order, in a folder that holds what they name.

    There are `pets/` (a dataset of two classes), `cat.jpg` and `dog.jpg`, and a service at
    localhost:3000 with a model that is active; its address is rewritten to the real one.
    """
    from benchmarks import models, pictures
    from benchmarks.servers import serving

    for label, files in (("cat", pictures.cut(32, 32, 12)), ("dog", pictures.cut(48, 32, 12))):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for number, file in enumerate(files):
            (tmp_path / "pets" / label / f"{number}.jpg").write_bytes(file)
        (tmp_path / f"{label}.jpg").write_bytes(files[0])
    home = tmp_path / "bentoml"
    models.cnn(home, name="pets")
    environment = {"BENTOML_HOME": str(home)}
    with serving("service:ImageClassifier", env=environment) as server:
        code = "\n".join(block.text for block in python_blocks())
        code = code.replace("http://localhost:3000", server.url)
        code = code.replace("Client()", f"Client({server.url!r})")
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
