"""Every Python snippet of the README and the docs runs and prints what it is said to print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from forkyard import SandboxClient

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "bindings-python/README.md", *sorted(ROOT.glob("docs/*/*.md"))]


class Snippet(NamedTuple):
    """A program and, where the page says it, its output."""

    place: str
    program: str
    output: str | None


def snippets() -> list[Snippet]:
    """All of them, in the order in which a reader meets them."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", text, re.DOTALL):
            place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
            found.append(Snippet(place, *match.groups()))
    return found


def test_no_page_has_lost_its_snippets() -> None:
    """A pattern that finds nothing would prove nothing."""
    fenced = sum(page.read_text().count("```python") for page in PAGES)
    assert len(snippets()) == fenced > 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("snippet", snippets(), ids=lambda snippet: snippet.place)
def test_a_snippet_does_what_it_says(snippet: Snippet, client: SandboxClient) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet.program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "it shows something"
    if snippet.output is not None:
        assert done.stdout == snippet.output
