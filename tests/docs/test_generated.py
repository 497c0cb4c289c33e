"""Documentation that is made from code is what the code says now; documentation that names files names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import pages

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted(pages()), ids=lambda path: path.name)
def test_generated_page_is_current(path: Path) -> None:
    assert path.read_text() == pages()[path], "run: python -m docs.generate"


@pytest.mark.parametrize("page", ["map.md", "life-of-a-request.md"])
def test_files_named_in_the_docs_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.py)[` ]", text)
    assert named
    bases = (ROOT, ROOT / "meshproxy", ROOT / "control")
    assert [name for name in named if not any((base / name).exists() for base in bases)] == []
