"""The pages say nothing that is not so: links lead somewhere, examples run, C++ is that of
examples/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")])
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("example", blocks("python"), ids=lambda text: text.split("\n")[0])
def test_python_example_runs(example, tmp_path):
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def test_there_are_python_examples():
    assert len(blocks("python")) == 2


def test_cpp_examples_are_those_of_the_examples():
    sources = [path.read_text() for path in (ROOT / "examples" / "cpp").glob("*.cpp")]
    assert len(blocks("cpp")) == 2
    for block in blocks("cpp"):
        assert any(block in source for source in sources), block


def test_version_stands_in_one_place():
    import topreach

    text = (ROOT / "CMakeLists.txt").read_text()
    assert f"project(topreach VERSION {topreach.__version__} " in text


def test_map_of_the_maths_names_every_operator_file():
    page = (ROOT / "docs" / "maths.md").read_text()
    files = [*(ROOT / "csrc").glob("models/*.cpp"), *(ROOT / "csrc").glob("objectives/*.cpp")]
    files += [
        p for p in (ROOT / "csrc" / "ops").glob("*.cpp") if p.stem not in ("common", "schemas")
    ]
    files += (ROOT / "csrc" / "metrics").glob("*.cpp")
    missing = [
        str(p.relative_to(ROOT))
        for p in files
        if f"({Path('..') / p.relative_to(ROOT)})" not in page
    ]
    assert not missing
