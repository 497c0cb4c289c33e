"""Where ``meshctl why`` looks: sidecars' memories, ids that an app did not hand on, logs, traces, and nobody at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pytest

from control.cli.errors import CliError
from control.cli.why_find import Finder
from control.client.api import ApiError
from meshproxy.message.reason import Reason
from tests.control.cli.test_why import BOOK, CLUSTER, GATE, ID, RATING, chain, cluster, failure, who


class Mesh:
    """The API, as far as ``why`` asks it."""

    def __init__(self, *failures: dict[str, Any], logs: dict[str, list[str]] | None = None, traces: tuple[str, ...] = ()) -> None:
        self.failures, self.logs, self.traces = failures, logs or {}, traces
        self.explained: list[dict[str, Any]] = []
        self.away = False

    def request(self, method: str, path: str, *, params: Any = None, body: Any = None) -> Any:
        if path == "/mesh/v1/failures":
            return {"failures": list(self._chosen(params))[: params.get("limit")], "asked": 3, "unanswered": []}
        if path == "/mesh/v1/proxies":
            return {"proxies": [{"namespace": pod[0], "name": pod[1], "status": "SYNCED"} for pod in (GATE, BOOK, RATING)]}
        if path.endswith("/query"):
            if self.away:
                raise ApiError(504, "Timeout", "sidecar default/book did not answer within 5 s")
            if body["verb"] == "clusters":
                return [cluster()]
            self.explained.append(body["args"])
            return {"decision": "forward", "policy": {}, "destinations": []}
        if path.startswith("/mesh/v1/traces?"):
            wanted = unquote(path).partition("x-request-id=")[2].partition("&")[0]
            return {"traces": [{"traceId": "ab"}] if wanted in self.traces else []}
        if path.removeprefix("/mesh/v1/traces/") in self.traces:
            return {}
        raise ApiError(404, "NotFound", path)

    def _chosen(self, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        found = sorted(self.failures, key=lambda one: -one["at"] - one["ms"] / 1000)
        for one in found:
            pod = params.get("namespace", one["namespace"]), params.get("pod", one["pod"])
            if params.get("id", one["request_id"]) == one["request_id"] and pod == (one["namespace"], one["pod"]):
                yield one

    @contextmanager
    def stream(self, path: str, *, params: Any = None) -> Iterator[Iterator[str]]:
        pod = path.split("/")[-2]
        if pod not in self.logs:
            raise ApiError(404, "NotFound", "no log")
        yield iter(self.logs[pod])


def find(mesh: Mesh, which: str = "last-503", **query: Any) -> dict[str, Any]:
    asked = query or ({"status": "503", "limit": 1} if which.startswith("last") else {"id": which})
    return Finder(mesh).find(asked, which)  # type: ignore[arg-type]


def test_the_whole_way_is_found_from_any_of_its_hops() -> None:
    mesh = Mesh(*chain(), logs={"gate": ["other", f'"GET /" 503 "{ID}"'], "book": []})
    for told in (find(mesh), find(mesh, ID), find(mesh, status="503", limit=1, namespace="default", pod="book")):
        assert [hop["pod"] for hop in told["hops"]] == ["gate", "book", "book", "rating-v2"]
        assert told["where"].startswith("the app of default/rating-v2")
        assert told["evidence"]["log"] == [{"namespace": "istio-system", "pod": "gate", "line": f'"GET /" 503 "{ID}"'}]
    asked = {one["listener"]: one for one in mesh.explained}
    assert asked["inbound"]["source"] == "10.0.0.9" and "source" not in asked["outbound"]
    assert asked["inbound"]["headers"] == {}


def test_an_app_that_does_not_hand_the_id_on() -> None:
    inbound = failure(BOOK, "inbound", at=1000.0, ms=20.0, caller=who(GATE), target=who(BOOK))
    own = failure(BOOK, "outbound", at=1000.004, ms=10.0, request_id="another", cluster=CLUSTER)
    theirs = failure(RATING, "inbound", at=1000.005, ms=5.0, caller=who(BOOK), request_id="another")
    told = find(Mesh(inbound, own, theirs))
    assert [(hop["pod"], hop["direction"], hop["guessed"], hop["begunHere"]) for hop in told["hops"]] == [
        ("book", "inbound", False, False),
        ("book", "outbound", True, False),
        ("rating-v2", "inbound", True, True),
    ]
    assert told["request"]["request_id"] == ID


def test_a_request_without_an_id_stands_alone() -> None:
    told = find(Mesh(failure(GATE, "gateway", Reason.BAD_REQUEST, request_id="", method="", authority="", path="", cluster="")))
    assert len(told["hops"]) == 1 and told["request"]["method"] == ""


def test_a_sidecar_that_does_not_answer_leaves_the_story_without_the_present() -> None:
    mesh = Mesh(*chain())
    mesh.away = True
    assert find(mesh)["now"] == ["What holds now is not known: sidecar default/book did not answer within 5 s."]


def test_traces_are_named_where_they_are_kept() -> None:
    kept, lost = "ab" * 16, "cd" * 16
    told = find(Mesh(failure(BOOK, trace_id=kept), traces=(kept,)))
    assert told["evidence"]["traces"] == [kept]
    told = find(Mesh(failure(BOOK, trace_id=lost)))
    assert told["evidence"]["traces"] == [] and told["evidence"]["sampled"]


@pytest.mark.parametrize(
    ("mesh", "which", "said"),
    [
        (
            Mesh(),
            "last-503",
            "no request that was answered 503 is remembered by 3 sidecars; each keeps its last 256 since it started",
        ),
        (Mesh(logs={"book": [f"200 {ID}"]}), ID, f"{ID}: 3 sidecars remember no failure of it; book logged: 200 {ID}"),
        (Mesh(traces=(ID,)), ID, f"{ID}: 3 sidecars remember no failure of it; `meshctl trace ab` shows it"),
        (
            Mesh(logs={"book": ["200 x"]}),
            ID,
            f"{ID}: nobody knows this request: looked into what 3 sidecars remember of failures, ",
        ),
        (Mesh(logs={"book": ["x"]}), "x", "x: nobody knows this request: "),  # too short to be looked for in a log
    ],
)
def test_nobody_remembers_it(mesh: Mesh, which: str, said: str) -> None:
    with pytest.raises(CliError) as refused:
        find(mesh, which)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
