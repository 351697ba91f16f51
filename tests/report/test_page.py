from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from nas.core.files import read_json, write_json
from nas.report import build_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
SECTIONS = [
    "overview",
    "front",
    "drivers",
    "breakdown",
    "agreement",
    "training",
    "samples",
    "export",
    "stages",
    "origins",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skip = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skip = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the parser calls it
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text += data


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page_path(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    shutil.copytree(finished_run, folder)
    return build_report(folder)


def test_page_is_one_file_that_asks_nothing_of_any_host(page_path: Path) -> None:
    page = read_page(page_path)
    sources = [attrs.get(key) for _, attrs in page.tags for key in ("src", "href", "srcset", "data", "action")]
    assert all(re.match(r"data:image/gif;|#|tables/", source) for source in sources if source)
    assert not [tag for tag, _ in page.tags if tag in {"link", "iframe", "object", "embed", "base"}]
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_page_stays_below_fifteen_megabytes(page_path: Path) -> None:
    assert page_path.stat().st_size < 15_000_000


def test_every_section_of_a_finished_run_has_content(page_path: Path) -> None:
    page = read_page(page_path)
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs]
    assert sections == SECTIONS
    assert "has not run" not in page.text
    assert "Mind this first" not in page.text


def test_every_plot_has_its_data_and_a_description(page_path: Path) -> None:
    text = page_path.read_text(encoding="utf-8")
    bodies = dict(
        re.findall(r'<script type="application/json" data-for="([\w-]+)"[^>]*>(.*?)</script>', text, re.DOTALL)
    )
    plots = {attrs["id"]: attrs for _, attrs in Page(text).tags if attrs.get("class") == "plot"}
    assert set(bodies) == set(plots)
    assert len(bodies) >= 9
    for name, body in bodies.items():
        assert json.loads(body)["data"], name
        assert plots[name]["aria-label"], name


def test_figures_of_the_page_are_those_of_the_files(page_path: Path) -> None:
    front = read_json(page_path.parent.parent / "search/front.json")
    body = re.search(r'data-for="pareto"[^>]*>(.*?)</script>', page_path.read_text(encoding="utf-8"), re.DOTALL)
    assert body is not None
    traces = {trace["name"]: trace for trace in json.loads(body[1])["data"]}
    members = sorted((item["cost"]["latency_ms"], item["quality"]["score"]) for item in front["members"])
    drawn = traces["Pareto front"]
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == members
    chosen = next(item for item in front["members"] if item["cost"]["latency_ms"] == traces["chosen"]["x"][0])
    from nas.core.architecture import Architecture

    assert Architecture.from_dict(chosen["proposal"]["architecture"]).digest == front["selected"]


def test_an_empty_run_says_which_stage_is_missing(tmp_path: Path) -> None:
    page = read_page(build_report(tmp_path))
    for stage in ("search", "train", "calibrate", "closed_loop", "export"):
        assert f"The stage “{stage}” has not run." in page.text


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("search", "search"),
        ("train", "train"),
        ("calibrate", "calibrate"),
        ("export", "export"),
        ("closed_loop", "closed_loop"),
    ],
)
def test_a_stage_left_out_leaves_a_notice_and_the_rest(run_dir: Path, name: str, section: str) -> None:
    shutil.rmtree(run_dir / name)
    page = read_page(build_report(run_dir))
    assert f"The stage “{section}” is done and left no usable file." in page.text


def test_failed_stale_and_damaged_are_said_at_the_top(run_dir: Path) -> None:
    status = read_json(run_dir / "status.json")
    status["stages"]["export"] |= {"state": "failed", "error": "no space left"}
    write_json(run_dir / "status.json", status)
    front = run_dir / "search/front.json"
    front.write_text(front.read_text(encoding="utf-8") + " ", encoding="utf-8")
    (run_dir / "closed_loop/closed_loop.json").write_text("{", encoding="utf-8")
    text = read_page(build_report(run_dir)).text
    start = text.index("Mind this first")
    notices = text[start : text.index("Overview", start)]
    assert "Stage “export” failed. no space left" in notices
    assert "Stage “train” is stale: search/front.json" in notices
    assert "closed_loop/closed_loop.json cannot be used" in notices


def test_hostile_names_are_text_and_never_markup(run_dir: Path) -> None:
    for name in ("search/front.json", "search/evaluations.jsonl", "closed_loop/closed_loop.json", "status.json"):
        path = run_dir / name
        hostile = json.dumps(HOSTILE)[1:-1]
        text = path.read_text(encoding="utf-8").replace("host-cpu", hostile).replace("supernet", hostile)
        path.write_text(text.replace("mid.0", f"mid{hostile}.0"), encoding="utf-8")
    evaluation = next((run_dir / "train").glob("*/evaluation.json"))
    data = read_json(evaluation)
    data["rows"][1] |= {"name": HOSTILE, "stage": HOSTILE, "clip": HOSTILE}
    write_json(evaluation, data)
    (run_dir / "resolved.yaml").write_text(f"run: {{name: {json.dumps(HOSTILE)}}}\n", encoding="utf-8")
    text = build_report(run_dir).read_text(encoding="utf-8")
    page = Page(text)
    assert HOSTILE in page.text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert sum(tag == "script" for tag, _ in page.tags) == text.count("</script>")
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]


def test_tables_hold_the_unrounded_numbers(page_path: Path) -> None:
    folder = page_path.parent / "tables"
    with (folder / "evaluations.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = (page_path.parent.parent / "search/evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    latencies = [json.loads(line)["cost"]["latency_ms"] for line in lines]
    assert [float(row["latency_ms"]) for row in rows] == latencies
    assert sum(row["selected"] == "True" for row in rows) == 1
    names = {path.name for path in folder.iterdir()}
    assert {"blocks.csv", "training.csv", "attributes.csv", "predicted_measured.csv", "origins.csv"} <= names


def test_two_builds_of_one_run_are_equal(run_dir: Path) -> None:
    first = build_report(run_dir).read_bytes()
    assert build_report(run_dir).read_bytes() == first


@pytest.fixture
def browse(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")

    def run(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--enable-logging=stderr",
            "--hide-scrollbars", *options, page.as_uri(),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)

    return run


def test_browser_draws_every_plot_without_an_error(
    page_path: Path, browse: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = browse(page_path, "--window-size=1400,3000", "--dump-dom")
    assert "CONSOLE" not in result.stderr, [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    page = Page(result.stdout)
    wanted = sum(attrs.get("class", "").split()[:1] == ["plot"] for _, attrs in page.tags if attrs.get("class"))
    backgrounds = sum(
        tag == "svg" and attrs.get("class") == "main-svg" and "background" in (attrs.get("style") or "")
        for tag, attrs in page.tags
    )
    assert wanted >= 9
    assert backgrounds == wanted
    assert result.stdout.count('class="trace scatter') > 10
    assert result.stdout.count('class="trace bars"') >= 4


def test_page_does_not_scroll_sideways_on_a_phone(
    page_path: Path, tmp_path: Path, browse: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # Headless windows are at least 500 px wide, so the width of a phone needs a frame; the copy says how wide it got.
    probe = (
        "<script>window.addEventListener('load', () => parent.postMessage("
        "document.documentElement.scrollWidth, '*'))</script></body>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(page_path.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<p id=w></p><iframe src='{copy.name}' style='width:400px;height:800px;border:0'></iframe>"
        "<script>addEventListener('message', e => { document.getElementById('w').textContent = 'width ' + e.data })"
        "</script>",
        encoding="utf-8",
    )
    result = browse(frame, "--dump-dom")
    assert "width 400<" in result.stdout
