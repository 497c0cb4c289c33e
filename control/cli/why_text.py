"""The story of a failed request as text (``meshctl why``).

In: what ``why_find`` found. Out: lines. Nothing is decided here. What callers sent the sidecar has made printable, one line each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from control.cli.out import columns
from control.cli.why_story import took

__all__ = ["lines"]

WIDTH = 10


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield from _head(found["request"], found["hops"][0])
    yield ""
    if len(found["hops"]) > 1:
        yield columns([_hop(one) for one in found["hops"]])
        yield ""
    yield _fact("Where", found["where"])
    yield from _facts("Why", found["why"])
    yield from _facts("Config", found["config"])
    yield from _facts("Now", found["now"])
    yield from _facts("Do", found["do"])
    yield from _facts("See also", list(_evidence(found["evidence"])))


def _head(request: dict[str, Any], first: dict[str, Any]) -> Iterator[str]:
    from datetime import datetime

    at = datetime.fromtimestamp(request["at"]).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    what = (
        f"{request['method']} http://{request['authority']}{request['path']}" if request["method"] else "A request without a head"
    )
    status = f"was answered {request['status']}" if request["status"] else "got no answer"
    yield f"{what} {status} at {at}, after {took(request['ms'])}"
    who = (
        [f"from {request['caller'].get('pod') or request['remote']}"] if request["caller"].get("pod") or request["remote"] else []
    )
    if first["direction"] == "outbound":
        who = [f"from the app of {first['namespace']}/{first['pod']}"]
    who += [f"request {request['request_id']}"] if request["request_id"] else ["without a request id"]
    who += [f"trace {request['trace_id']}"] if request["trace_id"] else []
    yield ", ".join(who)


def _hop(one: dict[str, Any]) -> Sequence[str]:
    where = f"{'  ' * one['depth']}{one['pod']}.{one['namespace']}"
    to = "app" if one["direction"] == "inbound" else (one["service"].partition(".")[0] or one["authority"])
    status = str(one["status"] or "-")
    mark = "   <- here" if one["begunHere"] else ""
    guess = " (another request id, at the same time)" if one["guessed"] else ""
    return (
        where,
        f"{'in' if one['direction'] == 'inbound' else 'out'} → {to}",
        status,
        took(one["ms"]),
        one["fate"] + guess + mark,
    )


def _evidence(told: dict[str, Any]) -> Iterator[str]:
    for trace in told["traces"]:
        yield f"meshctl trace {trace}"
    if told["sampled"] and not told["traces"]:
        yield "The request was sampled, but its trace is not (or not yet) in control's store."
    if told["log"]:
        pods = ", ".join(dict.fromkeys(f"{one['pod']}.{one['namespace']}" for one in told["log"]))
        logged = "1 line of access logs has" if len(told["log"]) == 1 else f"{len(told['log'])} lines of access logs have"
        yield f"{logged} its id (kubectl logs POD -c istio-proxy): {pods}"
    for one in told["unanswered"]:
        yield f"{one['namespace']}/{one['pod']} did not answer: {one['problem']}"


def _facts(name: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield _fact("" if number else name, text)


def _fact(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}".rstrip()
