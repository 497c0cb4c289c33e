"""The part of CEL that is obeyed: what it becomes, and that everything else is refused in one line."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.resources.check import validate
from control.resources.expressions import log_filter, tag_value
from meshproxy.model.telemetry import LogCondition


def conditions(text: str) -> list[list[tuple[str, str, str]]]:
    return [[(c.field, c.op, c.value) for c in clause] for clause in log_filter(text).any_of]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("response.code >= 400", [[("status", ">=", "400")]]),
        ("400 <= response.code", [[("status", ">=", "400")]]),
        ("!(response.code < 400)", [[("status", ">=", "400")]]),
        ("response.duration > 500 && request.method == 'GET'", [[("duration", ">", "500"), ("method", "==", "GET")]]),
        ("request.duration >= duration('1.5s')", [[("duration", ">=", "1500")]]),
        ("response.flags != 0", [[("flags", "present", "")]]),
        ("response.code in [500, 503]", [[("status", "==", "500")], [("status", "==", "503")]]),
        ("has(request.headers['X-A'])", [[("header:x-a", "present", "")]]),
        ("'x-a' in request.headers", [[("header:x-a", "present", "")]]),
        ("!has(request.useragent)", [[("header:user-agent", "absent", "")]]),
        ("request.headers[\"x\"] == 'it\\'s'", [[("header:x", "==", "it's")]]),
        ("request.headers['x'] != 'a'", [[("header:x", "present", ""), ("header:x", "!=", "a")]]),
        ("!request.path.startsWith('/health')", [[("path", "not-prefix", "/health")]]),
        ("request.url_path == '/a'", [[("path", "==", "/a")], [("path", "prefix", "/a?")]]),
        (
            "(response.code == 1 || response.code == 2) && request.host.endsWith('.x')",
            [[("status", "==", "1"), ("authority", "suffix", ".x")], [("status", "==", "2"), ("authority", "suffix", ".x")]],
        ),
    ],
)
def test_what_a_filter_becomes(text: str, expected: list[list[tuple[str, str, str]]]) -> None:
    assert conditions(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "response.code",
            "response.code >=",
            "response.code >= 400 &&",
            "(response.code >= 400",
            "response.code >= 400)",
        ),
        *("response.code == 'a'", "request.method == 1", "request.method < 'a'", "response.flags == 2", "connection.mtls"),
        *("request.headers[1] == 'a'", "request.headers == 'a'", "request.headers['a b'] == 'a'", "has(response.code)"),
        *("request.path.matches('x')", "'a' in request.path", "response.code == response.code", "1 == 1", "response.code # 1"),
        *("request.url_path.contains('a')", "!" * 100 + "response.code == 1", "(" * 100, "a" * 5000),
        " && ".join(["(response.code == 1 || response.code == 2)"] * 10),
    ],
)
def test_everything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        log_filter(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


_ATOMS = ["response.code == 1", "response.code >= 2", "request.method == 'G'", "has(request.headers['a'])"]
_TREES = st.recursive(
    st.sampled_from(_ATOMS),
    lambda inner: st.one_of(
        inner.map(lambda a: f"!({a})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} && {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} || {p[1]})"),
    ),
    max_leaves=6,
)


@given(_TREES)
def test_the_alternatives_mean_what_the_expression_means(text: str) -> None:
    """Against Python's own reading of the same tree, for every combination of facts."""
    found = log_filter(text).any_of
    for code, method, header in product((0, 1, 2), ("G", "P"), (False, True)):

        def holds(c: LogCondition, code: int = code, method: str = method, header: bool = header) -> bool:
            left: object = {"status": code, "method": method, "header:a": header}[c.field]
            right: object = int(c.value) if c.field == "status" else c.value
            tests = {"==": left == right, "!=": left != right, "present": left is True, "absent": left is False}
            if c.field == "status":
                tests |= {"<": code < int(c.value), ">=": code >= int(c.value)}
            return tests[c.op]

        python = text.replace("!", " not ").replace("&&", " and ").replace("||", " or ")
        for atom, value in zip(_ATOMS, (code == 1, code >= 2, method == "G", header), strict=True):
            python = python.replace(atom, str(value))
        assert any(all(map(holds, clause)) for clause in found) == eval(python)  # our own text


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    for read in (log_filter, tag_value):
        try:
            read(text)
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'100%'", "100%%"),
        ("request.host", "%REQ(:AUTHORITY)%"),
        ("request.headers['x-a']", "%REQ(X-A)%"),
        ("response.headers['x-a']", "%RESP(X-A)%"),
        ("request.method + ':' + string(response.code)", "%REQ(:METHOD)%:%RESPONSE_CODE%"),
        ("xds.route_name", "%ROUTE_NAME%"),
    ],
)
def test_what_a_tag_becomes(text: str, expected: str) -> None:
    assert tag_value(text) == expected


@pytest.mark.parametrize("text", ["", "filter_state['x']", "node.metadata['x']", "request.headers", "a.b.c", "'a' 'b'", "'a\n'"])
def test_a_tag_that_has_no_operator_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        tag_value(text)


def test_telemetry_is_refused_at_the_field() -> None:
    spec = {
        "accessLogging": [{"filter": {"expression": "connection.mtls"}}],
        "metrics": [{"overrides": [{"tagOverrides": {"a": {"value": "node"}, "b-c": {"value": "'x'"}}}]}],
        "tracing": [{"customTags": {"t": {"formatter": {"value": "%NO%"}}}}],
    }
    verdict = validate({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "a"}, "spec": spec})
    assert [p.path for p in verdict.errors] == [
        "spec.tracing[0].customTags[t].formatter.value",
        "spec.metrics[0].overrides[0].tagOverrides[a].value",
        "spec.metrics[0].overrides[0].tagOverrides[b-c]",
        "spec.accessLogging[0].filter.expression",
    ]
