"""docs/injection.md names every annotation and every setting, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

from injector.annotations import TABLE
from injector.decide import LEFT_ALONE
from injector.settings import Cni, Init, Proxy, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "injection.md").read_text()


def rows(section: str) -> set[str]:
    """What stands in code in the first column of a section's table."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return {
        name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    }


def test_annotations() -> None:
    assert rows("Annotations") == set(TABLE)


def test_settings() -> None:
    expected = set(Settings.__struct_encode_fields__) - {"proxy", "init", "cni"}
    for prefix, part in (("proxy", Proxy), ("init", Init), ("cni", Cni)):
        expected |= {f"{prefix}.{field}" for field in part.__struct_encode_fields__}
    assert rows("Settings") == expected


def test_namespaces() -> None:
    assert ", ".join(LEFT_ALONE) in PAGE
