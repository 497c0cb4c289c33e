"""meshctl test: cases that hold, cases that do not, cases that are none, and the report for CI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from control.cli.__main__ import main
from tests.control.cli.mesh_files import APP

Run = Callable[..., tuple[int, str, str]]
RATE = {"url": "http://rating:8080/rate/1"}
JO = {**RATE, "headers": {"x-user": "jo"}}
EDGE = {"url": "http://shop.example.com/api"}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    (tmp_path / "app.yml").write_text(APP)

    def go(cases: Any, *words: str) -> tuple[int, str, str]:
        path = tmp_path / "cases.yaml"
        path.write_text(cases if isinstance(cases, str) else yaml.safe_dump({"cases": cases}))
        code = main(["test", str(path), "-f", str(tmp_path / "app.yml"), *words])
        said = capsys.readouterr()
        return code, said.out.replace(str(tmp_path), "."), said.err.replace(str(tmp_path), ".")

    return go


# request, what holds of it, what does not and what is then said
HOLD: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (JO, {"decision": "forward"}, {"decision": "redirect"}, "expect.decision: expected redirect, got forward"),
    (JO, {"subset": "v2", "host": "rating"}, {"subset": "v1"}, "expect.subset: expected v1, got v2"),
    (JO, {"host": "rating.default.svc.cluster.local"}, {"host": "other"}, "got rating.default.svc.cluster.local"),
    (JO, {"port": 8080}, {"port": 80}, "expect.port: expected 80, got 8080"),
    (JO, {"cluster": "outbound|8080|v2|rating.default.svc.cluster.local"}, {"cluster": "x"}, "expect.cluster"),
    (
        JO,
        {"rule": "for-jo"},
        {"rule": "VirtualService default/rating http[5]"},
        "got VirtualService default/rating http[0].match[0]",
    ),
    (JO, {"rule": "VirtualService default/rating http[0]"}, {"rule": "for-jane"}, "expected for-jane"),
    (JO, {"timeout": "2s"}, {"timeout": "1500ms"}, "expect.timeout: expected 1500ms, got 2s"),
    (RATE, {"timeout": "none"}, {"timeout": "2s"}, "expected 2s, got none"),
    (JO, {"retries": 2}, {"retries": 3}, "expect.retries: expected 3, got 2"),
    (RATE, {"retries": "none"}, {"retries": {"attempts": 1}}, "expect.retries.attempts: expected 1, got 0"),
    (JO, {"retries": {"retryOn": "reset, 5xx", "perTryTimeout": "0.5s"}}, {"retries": {"perTryTimeout": "1s"}}, "got 0.5s"),
    (JO, {"retries": {"retryOn": ["5xx", "reset"]}}, {"retries": {"retryOn": "5xx"}}, "expected 5xx, got 5xx, reset"),
    (JO, {"mirrors": {"v1": 10}}, {"mirrors": {"rating/v1": 20}}, "expected rating/v1 20 %, got outbound|8080|v1|"),
    (RATE, {"mirrors": "none"}, {"mirrors": {"v1": 1}}, "expect.mirrors: expected v1 1 %, got none"),
    (JO, {"path": "/v2/rate/1", "authority": "rating:8080"}, {"path": "/rate/1"}, "expected /rate/1, got /v2/rate/1"),
    (JO, {"requestHeaders": {"X-New": 1, "x-user": None}}, {"requestHeaders": {"x-new": 2}}, "expected 2, got 1"),
    (RATE, {"host": "rating"}, {"requestHeaders": {"x-new": None}}, "expected removed, got not changed"),
    (JO, {"responseHeaders": {"x-served": "mesh", "x-debug": None}}, {"responseHeaders": {"x-served": "y"}}, "got mesh"),
    (JO, {"endpoints": ["rating-v2"]}, {"endpoints": ["rating-v1-0"]}, "expected rating-v1-0, got rating-v2"),
    (
        RATE,
        {"weights": {"v1": 75, "v2": 25}},
        {"weights": {"v1": 50, "v2": 50}},
        "expected v1 50 %, v2 50 %, got v1 75 %, v2 25 %",
    ),
    (RATE, {"weights": {"rating/v1": 3, "rating/v2": 1}}, {"weights": {"v1": 100}}, "expected v1 100 %, got v1 75 %, v2 25 %"),
    (RATE, {"weights": {"rating": 1}}, {"subset": "v1"}, "expect.subset: expected v1, got v1, v2"),
    (
        {"url": "http://rating:8080/old"},
        {"redirect": "http://rating:8080/new"},
        {"redirect": "none"},
        "got http://rating:8080/new",
    ),
    ({"url": "http://rating:8080/old"}, {"redirect": {"status": 302}}, {"redirect": {"status": 301}}, "expected 301, got 302"),
    (RATE, {"redirect": "none"}, {"redirect": "http://x/"}, "expect.redirect: expected http://x/, got none"),
    ({"url": "http://rating:8080/tea"}, {"status": 418, "body": "short"}, {"body": "stout"}, "expected stout, got short"),
    (
        {"url": "http://rating:8080/gone"},
        {"status": 503, "body": "no healthy upstream"},
        {"status": 200},
        "expected 200, got 503",
    ),
    ({"url": "http://rating:8080/broken"}, {"status": 500, "abort": 500}, {"abort": "none"}, "expect.abort: expected none"),
    ({"url": "http://rating:8080/broken"}, {"abort": {"percent": 100}}, {"abort": {"percent": 1}}, "expected 1, got 100"),
    ({"url": "http://rating:8080/broken"}, {"delay": {"after": "1s", "percent": 5}}, {"delay": {"after": "2s"}}, "got 1s"),
    (RATE, {"delay": "none", "abort": "none"}, {"delay": {"percent": 1}}, "expect.delay: expected percent 1, got none"),
    ({"url": "http://rating:8080/nothing"}, {"status": 404, "decision": "no route"}, {"status": 200}, "expected 200, got 404"),
    (RATE, {"decision": "forward"}, {"status": 200}, "got whatever upstream answers"),
]


@pytest.mark.parametrize(("request_", "holds", "fails", "says"), HOLD, ids=[str(number) for number in range(len(HOLD))])
def test_each_expectation(run: Run, request_: Any, holds: Any, fails: Any, says: str) -> None:
    code, out, err = run(
        [{"name": "yes", "request": request_, "expect": holds}, {"name": "no", "request": request_, "expect": fails}]
    )
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "ok    yes", out
    assert lines[1] == "FAIL  no" and says in lines[2]
    assert lines[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize(
    ("sender", "request_", "rule"),
    [
        ("book", RATE, "http[5].match[0]"),
        ("default/book", RATE, "http[5].match[0]"),
        ({"pod": "rating-v1-1"}, RATE, "http[5].match[0]"),
        ({"namespace": "elsewhere", "labels": {"app": "x"}}, {"url": "http://rating.default:8080/rate/1"}, "http[5].match[0]"),
        ("gateway", EDGE, "VirtualService default/edge http[0].match[0]"),
        ({"gateway": "gw"}, EDGE, "VirtualService default/edge http[0].match[0]"),
        ({"gateway": "default/gw"}, {"url": "http://b.example.com:8081/api"}, "VirtualService default/edge http[0].match[0]"),
    ],
)
def test_senders(run: Run, sender: Any, request_: Any, rule: str) -> None:
    expected = rule if rule.startswith("V") else f"VirtualService default/rating {rule}"
    assert run([{"from": sender, "request": request_, "expect": {"rule": expected}}])[:2] == (
        0,
        f"ok    GET {request_['url']} (cases[0])\n\n1 passed\n",
    )


def test_a_sender_or_request_that_cannot_be_is_a_failed_case(run: Run) -> None:
    code, out, _ = run(
        [
            {"name": "who", "from": "nobody", "request": RATE, "expect": {"status": 200}},
            {"name": "where", "from": {"gateway": "none"}, "request": EDGE, "expect": {"status": 200}},
            {"name": "what", "request": {"url": "ftp://x/"}, "expect": {"status": 200}},
            {"name": "listener", "listener": "x", "request": RATE, "expect": {"status": 200}},
        ]
    )
    assert code == 1
    assert "there is no such pod in the files" in out and 'no Gateway "none" in the files; they hold default/gw' in out
    assert "must be http or https" in out and "no listener 'x'" in out and out.endswith("0 passed, 4 failed\n")


def test_a_failure_shows_why_the_rules_decided_so(run: Run) -> None:
    _, out, _ = run([{"name": "a", "request": RATE, "expect": {"subset": "v2"}}])
    assert out == (
        "FAIL  a\n"
        "        expect.subset: expected v2, got v1, v2\n"
        '        not taken: VirtualService default/rating http[0].match[0]: header x-user is "jo": it is absent\n'
        '        not taken: VirtualService default/rating http[1].match[0]: path starts with "/old": it is "/rate/1"\n'
        '        not taken: VirtualService default/rating http[2].match[0]: path is "/tea": it is "/rate/1"\n'
        '        not taken: VirtualService default/rating http[3].match[0]: path is "/gone": it is "/rate/1"\n'
        '        not taken: VirtualService default/rating http[4].match[0]: path is "/broken": it is "/rate/1"\n'
        '        taken: VirtualService default/rating http[5].match[0]: path starts with "/rate"\n'
        "\n0 passed, 1 failed\n"
    )


def test_the_junit_report(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = [
        {"name": "good <&>", "request": RATE, "expect": {"host": "rating"}},
        {"name": "bad", "request": RATE, "expect": {"host": "x", "timeout": "1s"}},
        {"name": "broken", "from": "nobody", "request": RATE, "expect": {"host": "x"}},
    ]
    assert run(cases, "--junit", str(report))[0] == 1
    suite = ElementTree.parse(report).getroot()[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {"tests": "3", "failures": "1", "errors": "1"}
    good, bad, broken = suite
    assert good.get("name") == "good <&>" and not len(good)
    assert (
        bad[0].tag == "failure"
        and "expect.host: expected x" in str(bad[0].get("message"))
        and "expect.timeout" in str(bad[0].text)
    )
    assert broken[0].tag == "error" and "no such pod" in str(broken[0].get("message"))
    code, _, err = run(cases, "--junit", str(tmp_path / "no" / "report.xml"))
    assert code == 2 and err.startswith("error: --junit ./no/report.xml: cannot be written")


def test_output_for_programs(run: Run) -> None:
    code, out, _ = run([{"name": "a", "request": RATE, "expect": {"host": "x"}}], "-o", "json")
    told = json.loads(out)[0]
    assert code == 1 and (told["name"], told["passed"]) == ("a", False)
    assert told["differences"] == [{"path": "expect.host", "expected": "x", "actual": "rating.default.svc.cluster.local"}]
    assert told["decision"]["decision"] == "forward"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cases:\n- nam: x\n  request: {url: a}\n  expect: {status: 1}", ['cases[0].nam: unknown field; did you mean "name"?']),
        ("cases:\n- request: {url: a}\n  expect: {subsett: v}", ['cases[0].expect.subsett: unknown field; did you mean "sub']),
        ("cases:\n- request: {method: GET}\n  expect: {status: 1}", ["cases[0].request.url: is required"]),
        ("cases:\n- request: {url: a}", ["cases[0].expect: is required"]),
        ("cases:\n- request: {url: a}\n  expect: {}", ["cases[0].expect: is empty: say what is to become of the request"]),
        ("cases:\n- request: {url: a}\n  expect: {status: yes}", ["cases[0].expect.status: must be an integer, not true"]),
        (
            "cases:\n- request: {url: a}\n  expect: {timeout: 5, retries: {attempt: 1}, redirect: 3}",
            [
                'cases[0].expect.redirect: must be an object, not an integer (3), or "none"',
                'cases[0].expect.retries.attempt: unknown field; did you mean "attempts"?',
                'cases[0].expect.timeout: must be a duration such as "1.5s"',
            ],
        ),
        (
            "cases:\n- from: {pood: x}\n  request: {url: a}\n  expect: {weights: {v1: -1}, mirrors: [x]}",
            [
                'cases[0].from.pood: unknown field; did you mean "pod"?',
                "cases[0].expect.mirrors: must be percentages by host or subset",
                "cases[0].expect.weights[v1]: must be a number that is not negative",
            ],
        ),
        ("cases:\n- from: {pod: a, gateway: b}\n  request: {url: a}\n  expect: {status: 1}", ["cases[0].from: only one of pod"]),
        ("cases: []", ["cases: must hold at least one case"]),
        ("case: []", ['case: unknown field; did you mean "cases"?', "cases: is required"]),
        ("- a", ["must be an object, not a list"]),
        ("a: [", ["error parsing"]),
    ],
)
def test_mistakes_in_the_cases_are_told_with_their_paths(run: Run, text: str, lines: list[str]) -> None:
    code, out, err = run(text)
    assert (code, out) == (2, "")
    said = err.splitlines()
    assert len(said) == len(lines), err
    for line, expected in zip(said, lines, strict=True):
        assert line.startswith("error: ") and expected in line, err


def test_wrong_usage(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [{"request": RATE, "expect": {"host": "rating"}}]
    assert run(good)[0] == 0
    cases = str(tmp_path / "cases.yaml")
    for words, says in (
        (["test", cases], "must specify -f FILE: the resources that decide"),
        (["test", str(tmp_path / "none"), "-f", cases], "cannot be read: No such file or directory"),
        (["test", "-", "-f", "-"], "- can be read once only"),
        (["test", cases, "-f", str(tmp_path / "none")], "does not exist"),
    ):
        code = main(words)
        said = capsys.readouterr()
        assert (code, said.out, len(said.err.splitlines())) == (2, "", 1)
        assert says in said.err
    (tmp_path / "app.yml").write_text(APP.replace("timeout: 2s", "timeout: 2"))
    code, _, err = run(good)
    assert code == 2 and "spec.http[0].timeout" in err


def test_the_documented_example_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The code blocks of the page are run as they stand."""
    text = (Path(__file__).parents[3] / "docs" / "testing-your-config.md").read_text()
    blocks = [block.partition("\n")[2] for block in text.split("```")[1::2] if block.startswith("yaml")]
    assert len(blocks) >= 2
    (tmp_path / "mesh.yaml").write_text(blocks[0])
    (tmp_path / "cases.yaml").write_text(blocks[1])
    assert main(["test", str(tmp_path / "cases.yaml"), "-f", str(tmp_path / "mesh.yaml")]) == 0
    assert "FAIL" not in capsys.readouterr().out
    assert main(["analyze", str(tmp_path / "mesh.yaml"), "--failure-threshold", "Warning"]) == 0
