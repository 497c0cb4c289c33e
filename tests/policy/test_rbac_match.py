"""The strings of policies: wildcards at one end, path templates, addresses, ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.invalid import Invalid
from meshproxy.policy.rbac_match import addresses, glob, paths, ports, strings


@pytest.mark.parametrize(
    ("values", "value", "expected"),
    [
        (["abc"], "abc", True),
        (["abc"], "abcd", False),
        (["a", "abc"], "abc", True),
        (["abc*"], "abc", True),
        (["abc*"], "abcdef", True),
        (["abc*"], "xabc", False),
        (["*abc"], "xabc", True),
        (["*abc"], "abcx", False),
        (["*"], "x", True),
        (["*"], "", False),
        (["a*c"], "abc", False),  # no wildcard in the middle: literal
        (["a*c"], "a*c", True),
        (["x", "y*", "*z"], "yes", True),
        (["x", "y*", "*z"], "fizz", True),
        (["x", "y*", "*z"], "x", True),
        (["x", "y*", "*z"], "no", False),
        ([], "x", False),
    ],
)
def test_strings(values: list[str], value: str, expected: bool) -> None:
    assert strings(values, "")(value) is expected
    assert strings([one.encode() for one in values], "")(value.encode()) is expected


@pytest.mark.parametrize("compile", [strings, glob, paths])
def test_an_empty_string_is_refused_by_its_place(compile: object) -> None:
    with pytest.raises(Invalid) as error:
        compile(("a", ""), "paths")  # type: ignore[operator]
    assert error.value.path == "paths[1]"


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ("prod-*", "prod-a", True),
        ("*-eu", "prod-eu", True),
        ("prod-*-eu", "prod-a-eu", True),
        ("prod-*-eu", "prod-eu", False),
        ("p*d-*-e*", "prod-x-eu", True),
        ("p*d-*-e*", "prodx-eu", False),
        ("*", "", False),
        ("**", "x", True),
        ("a*a", "a", False),
    ],
)
def test_namespaces_have_wildcards_anywhere(value: str, name: str, expected: bool) -> None:
    assert bool(glob([value], "")(name)) is expected


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [  # the examples of Istio's AuthorizationPolicy reference, and their edges
        ("/foo/{*}", "/foo/bar", True),
        ("/foo/{*}", "/foo/bar/baz", False),
        ("/foo/{*}", "/foo/", False),
        ("/foo/{*}", "/foo", False),
        ("/foo/{**}/", "/foo/bar/", True),
        ("/foo/{**}/", "/foo//", True),
        ("/foo/{**}/", "/foo/bar", False),
        ("/foo/{**}/", "/foo/bar/baz/", True),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", True),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", True),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar", False),
        ("/foo/{*}/bar/{**}", "/foo/a/b/bar/baz", False),
        ("/{**}/end", "/a/b/end", True),
        ("/{**}/end", "/end", False),
        ("/{**}/end", "/a/bend", False),
        ("/{**}", "/", True),
        ("/{*}/x", "/a=b*c/x", True),
    ],
)
def test_path_templates(template: str, path: str, expected: bool) -> None:
    assert paths([template], "")(path.encode()) is expected
    assert paths([template, "/other"], "")(path.encode()) is expected


@pytest.mark.parametrize(
    "template", ["/*/baz/{*}", "/**/baz/{*}", "/{**}/foo/{*}", "/foo/{*}.txt", "{*}/a", "/a//{*}", "/{**}/{**}", "/{x}/{*}"]
)
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(Invalid):
        paths([template], "paths")


@pytest.mark.parametrize(
    ("block", "address", "expected"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.0.0/16", "10.1.200.4", True),
        ("10.1.7.9/16", "10.1.200.4", True),  # host bits are left out
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("2001:db8::/32", "10.1.2.3", False),
        ("0.0.0.0/0", "not an address", False),
        ("0.0.0.0/0", "", False),
    ],
)
def test_addresses(block: str, address: str, expected: bool) -> None:
    within = addresses([block], "")
    assert within(address) is expected
    assert within(address) is expected  # from memory


def test_addresses_forget_in_time() -> None:
    within = addresses(["10.0.0.0/8"], "")
    for number in range(3000):
        assert within(f"10.0.{number // 250}.{number % 250}")
    assert not within("11.0.0.0")
    assert not within("x" * 1000)


@pytest.mark.parametrize("bad", ["10.0.0.0/33", "books", "", "10.0.0"])
def test_blocks_that_are_none(bad: str) -> None:
    with pytest.raises(Invalid):
        addresses([bad], "ip_blocks")


@pytest.mark.parametrize("bad", ["0", "65536", "x", "", "-1", "８０"])
def test_ports_that_are_none(bad: str) -> None:
    with pytest.raises(Invalid):
        ports([bad], "ports")


@given(st.lists(st.text(alphabet="ab*", min_size=1, max_size=4), max_size=4), st.text(alphabet="ab*", max_size=5))
def test_a_list_is_the_or_of_its_values(values: list[str], value: str) -> None:
    assert bool(strings(values, "")(value)) is any(strings([one], "")(value) for one in values)


@given(st.text(alphabet="ab/{}*", max_size=10), st.text(alphabet="ab/", max_size=8))
def test_any_template_compiles_or_is_refused_and_any_path_is_judged(template: str, path: str) -> None:
    try:
        test = paths([template], "")
    except Invalid:
        return
    assert test(path.encode()) in (True, False)
