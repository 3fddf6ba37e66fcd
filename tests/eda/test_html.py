"""The page of a dataset: what it shows, how large it may get, and that no name can act in it."""

import html.parser
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from imgcls.cli.app import app
from imgcls.data import DatasetStore, open_dataset
from imgcls.eda import faults, profile
from imgcls.eda.html import page
from imgcls.findings import find
from tests.fakes import class_folders, jpeg

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
HOSTILE = (
    "<script>document.title = 'taken'",
    "\"'><img src=x onerror=alert(1)>",
    "&lt;b&gt; {title} <!-- ]]>",
    "javascript:alert(1)",
)


class Elements(html.parser.HTMLParser):
    """All elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[bytes]:
        return [str(a["src"]).encode() for tag, a in self.found if tag == "img"]


def written(folder: Path) -> str:
    with open_dataset(folder) as dataset:
        return page(dataset, profile(dataset), find(dataset))


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Three classes of twelve images in train, val and test, all different."""
    return class_folders(tmp_path / "colours", splits=("train", "val", "test"))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Classes and files whose names are HTML, with copies and broken files among them."""
    rng = np.random.default_rng(5)
    for label in HOSTILE:
        folder = tmp_path / "hostile" / label
        folder.mkdir(parents=True)
        for n in range(6):
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
        (folder / f"{HOSTILE[1]}.png").write_bytes(jpeg("red"))
        (folder / f"{HOSTILE[0]}.png").write_bytes(b"x")
        (folder / "\u202egnp.exe\x1b[31m.png").write_bytes(b"")
    return tmp_path / "hostile"


def test_figures_samples_and_findings_are_shown(colours: Path) -> None:
    shutil.copy(colours / "train/red/000.jpg", colours / "test/red/leak.jpg")
    shutil.copy(colours / "train/red/001.jpg", colours / "train/blue/lie.jpg")
    (colours / "train/green/cut.jpg").write_bytes(jpeg()[:400])
    shown = Elements(written(colours))
    told = " ".join(shown.text.split())
    for words in ("One image in several splits", "leak.jpg", "One image under several labels",
                  "lie.jpg", "Files that cannot be read", "train/green/cut.jpg", "37 images",
                  "JPEG 110. All are 28 x 24 pixels."):  # fmt: skip
        assert words in told
    pictures = shown.pictures()
    assert len(pictures) >= 3 * 8 + 4
    assert all(source.startswith(b"data:image/jpeg;base64,") for source in pictures)
    assert len(set(pictures)) < len(pictures)  # the copies side by side
    bars = [a for tag, a in shown.found if tag == "rect" and a.get("fill") == "#3f6fb5"]
    assert len(bars) > 3
    charts = {a.get("aria-label") for tag, a in shown.found if tag == "svg"}
    assert {"Images of each class, by split", "File size"} <= charts
    assert "Width in pixels" not in charts  # all are of one width


def test_nothing_wrong_is_said_in_so_many_words(colours: Path) -> None:
    with open_dataset(colours) as dataset:
        shown = page(dataset, profile(dataset), [])
    assert "Nothing was found to be wrong with it." in shown


def test_no_name_acts_in_the_page(hostile: Path) -> None:
    shown = Elements(written(hostile))
    tags = {tag for tag, _ in shown.found}
    assert not tags & {"script", "a", "iframe", "object", "link", "form", "base"}
    for tag, attributes in shown.found:
        assert not [name for name in attributes if name.startswith("on") or name == "href"]
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    for label in HOSTILE:
        assert label in shown.text
    assert "\u202e" not in shown.text
    assert "\x1b" not in shown.text


def test_a_large_dataset_makes_no_large_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_SHOWN", 3)
    monkeypatch.setattr(faults, "_PICTURES", 2)
    monkeypatch.setattr("imgcls.eda.samples.MAX_CLASSES", 5)
    monkeypatch.setattr("imgcls.eda.html.MAX_CLASSES", 5)
    rng = np.random.default_rng(3)
    for n in range(30):
        folder = tmp_path / "many" / f"class {n:02d}"
        folder.mkdir(parents=True)
        for k in range(3):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
            (folder / f"{k}.png").write_bytes(buffer.getvalue())
            (folder / f"copy {k}.png").write_bytes(buffer.getvalue())
        (folder / "bad.png").write_bytes(b"x")
    shown = Elements(written(tmp_path / "many"))
    assert "The 5 largest of 30 classes." in shown.text
    assert "surest of" in shown.text
    kinds = sum(tag == "h2" for tag, _ in shown.found)
    assert len(shown.pictures()) <= 5 * 6 + kinds * 3 * 2


def test_targets_have_a_histogram(tmp_path: Path) -> None:
    class_folders(tmp_path / "rates")
    paths = sorted((tmp_path / "rates").rglob("*.jpg"))
    rows = [f"{path.relative_to(tmp_path / 'rates')},{n}" for n, path in enumerate(paths)]
    (tmp_path / "rates" / "t.csv").write_text("\n".join(["path,target", *rows]))
    shown = Elements(written(tmp_path / "rates" / "t.csv"))
    assert "Always saying the median, 17.5, is wrong by 9 on average." in shown.text
    assert "0 to 4" in shown.text
    assert any(a.get("aria-label") == "Images by target, by split" for _, a in shown.found)


def test_the_command_writes_the_page(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["eda", str(colours), "--html", str(out)])
    assert (done.exit_code, done.stdout.strip()) == (0, f"wrote {out}"), done.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    as_json = CliRunner().invoke(app, ["eda", str(colours), "--html", str(out), "--json"])
    assert '"overall"' in as_json.stdout


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_the_pass(
    colours: Path, tmp_path: Path, place: str
) -> None:
    done = CliRunner().invoke(app, ["eda", str(colours), "--html", str(tmp_path / place)])
    assert done.exit_code == 1
    assert "folder" in done.stderr
    assert DatasetStore().list() == []
    assert not (tmp_path / "missing").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to look at the page")
def test_a_browser_shows_it_and_runs_nothing(hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(written(hostile), encoding="utf-8")
    common = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,3000",
    ]  # fmt: skip

    def run(*options: str) -> str:
        command = [*common, *options, (tmp_path / "page.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
        return done.stdout

    dumped = run("--dump-dom")
    assert "<title>hostile:" in dumped
    run(f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    # Red pictures of the copies, and the blue of the bars.
    red = (np.abs(pixels - (250, 10, 10)).sum(axis=2) < 120).sum()
    blue = (np.abs(pixels - (0x3F, 0x6F, 0xB5)).sum(axis=2) < 12).sum()
    assert red > 1_000
    assert blue > 5_000
    # Nothing is wider than the window: the right edge stays white.
    assert (pixels[:, -8:] > 250).all()
