"""``meshctl trace``: one trace as a tree with durations, or a search for traces.

In: a trace's id, or what one of its spans must be. Out: a tree or a table; JSON and YAML are the API's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, Output, connect, examples, seconds

__all__ = ["register", "tree"]


def register(app: typer.Typer) -> None:
    lines = (
        "meshctl trace                                     (the newest traces)",
        "meshctl trace 0af7651916cd43dd8448eb211c80319c    (one trace; the beginning of its id will do)",
        "meshctl trace --service book-service --min-duration 100ms",
        "meshctl trace --status 5xx --since 5m",
        "meshctl trace --tag guid:x-request-id=8f1c…",
    )
    app.command("trace", epilog=examples(*lines))(trace)


def trace(
    trace_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The trace to show; without it traces are searched.")
    ] = None,
    service: Annotated[str | None, typer.Option("--service", help="A service of the trace: NAME or NAME.NAMESPACE.")] = None,
    operation: Annotated[str | None, typer.Option("--operation", help="Any part of a span's name.")] = None,
    min_duration: Annotated[str | None, typer.Option("--min-duration", help="A span took at least so long: 100ms, 1.5s.")] = None,
    max_duration: Annotated[str | None, typer.Option("--max-duration", help="A span took at most so long.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="ok, error, a status (503) or a class of them (5xx).")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="KEY=VALUE that a span has; repeatable.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only traces of the last 5m, 1h, ….")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    output: Output = "table",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show a trace, or find traces."""
    from control.cli.out import choose, print_columns

    asked = {"service": service, "operation": operation, "status": status}
    if trace_id is not None:
        if given := [name for name, value in {**asked, "tag": tag, "since": since}.items() if value]:
            raise CliError(f"--{given[0]}: is for a search; leave the ID out", code=2)
        from urllib.parse import quote

        path = f"/mesh/v1/traces/{quote(trace_id, safe='')}"
        found = connect(kubeconfig, context).request("GET", path)

        def shown() -> None:
            for line in tree(found["spans"]):
                print(line)

        choose(output, found, shown)
        return 0
    query: list[tuple[str, str]] = [(name, value) for name, value in asked.items() if value]
    for name, option, text in (("minDuration", "--min-duration", min_duration), ("maxDuration", "--max-duration", max_duration)):
        if text:
            query.append((name, str(seconds(text, option))))
    if since:
        import time

        query.append(("from", str(time.time() - seconds(since, "--since"))))
    query += [("tag", one) for one in tag or ()]
    query.append(("limit", str(limit)))
    from urllib.parse import urlencode

    found = connect(kubeconfig, context).request("GET", f"/mesh/v1/traces?{urlencode(query)}")

    def table() -> None:
        if not found["traces"]:
            print("No traces found. Only sampled requests of the last hour are kept; see `tracing` of Telemetry and MeshConfig.")
            return
        header = ("TRACE", "BEGAN", "DURATION", "SPANS", "ERRORS", "ROOT", "SERVICES")
        print_columns(header, [_row(one) for one in found["traces"]])

    choose(output, found, table)
    return 0


def _row(one: dict[str, Any]) -> Sequence[str]:
    from datetime import datetime

    began = datetime.fromtimestamp(one["start"]).strftime("%H:%M:%S.%f")[:-3]
    root = f"{one['root']['service']} {one['root']['operation']}"
    others = ", ".join(_plain(name) for name in one["services"])
    return (one["traceId"], began, _took(one["duration"]), str(one["spans"]), str(one["errors"]), _plain(root), others)


def tree(spans: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines for one trace: who called whom, when it began and how long it took."""
    from datetime import datetime

    from control.cli.out import columns

    known = {span["spanId"] for span in spans}
    children: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        parent = span["parentId"] if span["parentId"] in known and span["parentId"] != span["spanId"] else ""
        children.setdefault(parent, []).append(span)
    began = min(span["start"] for span in spans)
    ended = max(span["start"] + span["duration"] for span in spans)
    services = len({span["service"] for span in spans})
    moment = datetime.fromtimestamp(began).astimezone().isoformat(timespec="milliseconds")
    yield f"Trace {spans[0]['traceId']}: {len(spans)} spans of {services} services in {_took(ended - began)}, began {moment}"
    yield ""
    rows = [("SERVICE", "OPERATION", "KIND", "STATUS", "AFTER", "TOOK")]
    shown: set[str] = set()

    def walk(span: dict[str, Any], before: str, branch: str, below: str) -> None:
        if span["spanId"] in shown:  # ids that a sender made up may lead in a circle
            return
        shown.add(span["spanId"])
        tags = span["tags"]
        status = " ".join((tags.get("http.status_code", span["status"]), *_flags(tags)))
        about = (_plain(span["operation"]), span["kind"], _plain(status), _took(span["start"] - began), _took(span["duration"]))
        rows.append((before + branch + _plain(span["service"]), *about))
        inner = children.get(span["spanId"], [])
        for event in span["events"]:
            said = " ".join(f"{key}={value}" for key, value in sorted(event["tags"].items()))
            at = _took(event["time"] - began)
            rows.append(
                (before + below + ("│  " if inner else "   ") + "· " + _plain(event["name"]), _plain(said), "", "", at, "")
            )
        for index, child in enumerate(inner):
            last = index == len(inner) - 1
            walk(child, before + below, "└─ " if last else "├─ ", "   " if last else "│  ")

    for root in [*children.get("", ()), *spans]:
        walk(root, "", "", "")
    yield columns(rows)


def _flags(tags: dict[str, str]) -> tuple[str, ...]:
    flags = tags.get("response_flags", "-")
    return (flags,) if flags != "-" else ()


def _took(duration: float) -> str:
    if duration >= 1:
        return f"{duration:.2f} s"
    return f"{duration * 1000:.1f} ms"


def _plain(text: str) -> str:
    """What others named must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
