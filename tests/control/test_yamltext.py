"""YAML from outside: the shapes that cost a reader its time, its memory or its process, each refused in one line."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control.yamltext import YamlProblem, documents

LAUGHS = "a: &a {k: v}\n" + "".join(
    f"{here}: &{here}\n  <<: [{', '.join([f'*{before}'] * 10)}]\n" for before, here in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 300_000,  # the C composer is recursive and unguarded: this ended the process
        "[" * 300_000 + "]" * 300_000,
        "- " * 300_000,
        "{a: " * 300_000,
        "a: &x [1]\nb: *x\n",
        LAUGHS,  # merge keys are copied while reading: ten million pairs from 400 bytes
        "&a [*a]",
        "a: !!bool x",
        "a: !!int ''",
        "a: !!float x",
        "a: !!int 1:59",
        "a: !!timestamp 99999-99-99",
        "? [a]\n: b",
        "a: !!python/object/apply:os.system [id]",
        "a: [",
        "\x00",
    ],
    ids=lambda text: text[:24],
)
def test_refused_in_one_line(text: str) -> None:
    with pytest.raises(YamlProblem) as refused:
        documents(text, aliases=False)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_what_kubernetes_reads_as_text_is_text() -> None:
    text = "a: 2024-05-01\nb: 2024-05-01T10:00:00Z\nc: 1:59:59\nd: 1:30.5\ne: 0x10\nf: 012\ng: 1_000\nh: 1.5\ni: .inf\nj: -3\n"
    (found,) = documents(text, aliases=False)
    assert [found[key] for key in "abcd"] == ["2024-05-01", "2024-05-01T10:00:00Z", "1:59:59", "1:30.5"]
    assert [found[key] for key in "efghij"] == [16, 10, 1000, 1.5, float("inf"), -3]


def test_a_long_base_60_number_costs_nothing() -> None:
    (found,) = documents("a: 1" + ":59" * 300_000, aliases=False)
    assert isinstance(found["a"], str)  # as a number it took half a minute


def test_aliases_where_the_author_is_the_reader() -> None:
    assert documents("a: &x [1]\nb: *x\n", aliases=True) == [{"a": [1], "b": [1]}]


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_documents_or_a_problem(raw: bytes, aliases: bool) -> None:
    try:
        documents(raw, aliases=aliases)
    except YamlProblem as problem:
        assert "\n" not in str(problem)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="ascii", categories=("L", "N"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_reads_what_the_library_writes(value: Any) -> None:
    assert documents(yaml.safe_dump(value), aliases=False) == [value]
