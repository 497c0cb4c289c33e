"""Reading pod logs: the end of a file, the kubelet's line form, limits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.serve.kube import logs
from control.serve.kube.status import ApiError

PLAIN: dict[str, Any] = {
    "container": "", "follow": False, "previous": False, "timestamps": False, "tail": None, "limit": None, "since": None,
}  # fmt: skip


def asked(**given: Any) -> logs.LogOptions:
    return logs.LogOptions(**{**PLAIN, **given})


def read(path: Path, **given: Any) -> bytes:
    async def all_of_it() -> bytes:
        return b"".join([piece async for piece in logs.read(path, asked(**given), asyncio.Event())])

    return asyncio.run(all_of_it())


@given(
    st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b""))),
    st.booleans(),
    st.integers(0, 6),
    st.integers(1, 9),
)
def test_the_tail_is_the_last_lines(tmp_path_factory: Any, lines: list[bytes], closed: bool, count: int, block: int) -> None:
    path = tmp_path_factory.mktemp("log") / "a.log"
    text = b"\n".join(lines) + (b"\n" if closed and lines else b"")
    path.write_bytes(text)
    whole = text.split(b"\n")
    if whole[-1] == b"":
        whole.pop()
    wanted = whole[len(whole) - min(count, len(whole)) :]
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(logs, "_BLOCK", block)  # so that lines lie across blocks
        file.seek(logs._tail_start(file, count))
        found = file.read()
    expected = b"\n".join(wanted) + (b"\n" if wanted and text.endswith(b"\n") else b"")
    assert found == expected


def test_the_kubelets_form(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(
        "2024-05-01T10:00:00.123456789Z stdout F one\n2024-05-01T10:00:02Z stderr F two\n2024-05-01T10:00:03Z stdout F three"
    )
    assert read(path) == b"one\ntwo\nthree"
    assert read(path, timestamps=True, tail=2) == b"2024-05-01T10:00:02Z two\n2024-05-01T10:00:03Z three"
    assert read(path, since=1714557601.0) == b"two\nthree"
    assert read(path, limit=5) == b"one\nt"
    logs.refuse_untimed(path, asked(timestamps=True))


def test_plain_lines_have_no_times(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("one\ntwo\n")
    assert read(path, limit=5) == b"one\nt"
    logs.refuse_untimed(path, asked())
    for question in (asked(timestamps=True), asked(since=1.0)):
        with pytest.raises(ApiError, match="carry no time"):
            logs.refuse_untimed(path, question)


def test_which_file(tmp_path: Path) -> None:
    folder = tmp_path / "n" / "p"
    folder.mkdir(parents=True)
    (folder / "c.log").touch()
    assert logs.find(tmp_path, "n", "p", ["c"], asked()) == folder / "c.log"
    assert logs.find(tmp_path, "n", "p", ["c", "d"], asked(container="d")) is None
    assert logs.find(tmp_path, "n", "p", ["c", "d"], asked(container="d", follow=True)) == folder / "d.log"
    refusals = {
        "choose one of: .c d.": (tmp_path, "n", "p", ["c", "d"], asked()),
        "is not valid for pod p": (tmp_path, "n", "p", ["c"], asked(container="x")),
        "keeps no logs": (None, "n", "p", ["c"], asked()),
        "each a plain name": (tmp_path, "..", "p", ["c"], asked()),
        "each a plain name ": (tmp_path, "n", "p", ["../../x"], asked()),
    }
    for message, question in refusals.items():
        with pytest.raises(ApiError, match=message.strip()):
            logs.find(*question)
