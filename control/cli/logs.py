"""``meshctl logs``: containers' output as the API serves it, and the sidecars' access logs, searched and merged.

In: a pod, or a selector, or all. Out: lines; with ``-f`` as they come. Filters understand Istio's default access log format and
JSON lines; what is in another form is left out and counted where one is given.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Kubeconfig, Namespace, Selector, connect, examples, seconds

if TYPE_CHECKING:
    from control.cli.log_lines import Entry, Wanted
    from control.client.api import Api

__all__ = ["register"]

SIDECAR = "istio-proxy"


def register(app: typer.Typer) -> None:
    lines = (
        "meshctl logs rating-service-v2 -c rating-service",
        "meshctl logs book-service -f --tail=10",
        "meshctl logs book-service --failed                 (its sidecar's requests that failed)",
        "meshctl logs -A --request-id 8f1c… --prefix        (one request, through all sidecars)",
        "meshctl logs -l app=rating --status 5xx --min-duration 100ms -o json -f",
    )
    app.command("logs", epilog=examples(*lines))(logs)


def logs(
    pod: Annotated[str | None, typer.Argument(metavar="[POD]", help="POD, pod/POD, deploy/NAME, svc/NAME; else all.")] = None,
    container_word: Annotated[str | None, typer.Argument(metavar="[CONTAINER]")] = None,
    container: Annotated[str | None, typer.Option("-c", "--container", help="Which container; the first if not given.")] = None,
    namespace: Namespace = None,
    everywhere: AllNamespaces = False,
    selector: Selector = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last N lines of each container, of those wanted.")] = -1,
    since: Annotated[str | None, typer.Option("--since", help="Only lines newer than this, such as 5m.")] = None,
    previous: Annotated[bool, typer.Option("-p", "--previous", help="The run before the last restart.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="The time of every line.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Say before each line whose it is.")] = False,
    status: Annotated[str, typer.Option("--status", help="Requests with this status: 503, 5xx, 400-499.")] = "",
    flags: Annotated[str, typer.Option("--flags", "--flag", help="Requests with a response flag: UF, or UF,UH.")] = "",
    path: Annotated[str, typer.Option("--path", help="Requests whose path begins so, or is so with * for anything.")] = "",
    request_id: Annotated[str, typer.Option("--request-id", help="The request with this x-request-id.")] = "",
    min_duration: Annotated[str, typer.Option("--min-duration", help="Requests that took at least so long: 100ms.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Requests that failed: 5xx, no answer, or a response flag.")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="json: every request as an object, one per line.")] = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Print containers' logs; with filters, requests in the sidecars' access logs."""
    from control.cli.log_lines import Wanted
    from control.cli.pods import chosen

    if output not in ("", "text", "json"):
        raise CliError(f"--output {output}: must be json or text", code=2)
    min_ms = 1000 * seconds(min_duration, "--min-duration") if min_duration else 0.0
    newer = seconds(since, "--since") if since else None
    try:
        wanted = Wanted(status=status, flag=flags, path=path, request_id=request_id, min_ms=min_ms, failed=failed)
    except ValueError as bad:
        raise CliError(f"{bad.args[0]} {bad.args[1]}", code=2) from None
    api = connect(kubeconfig, context)
    pods = chosen(api, [pod] if pod else [], namespace, selector, everywhere)
    asked = container or container_word
    searching = bool(wanted) or output == "json"
    if searching and timestamps:
        raise CliError("--timestamps: requests carry their own time; leave it out", code=2)
    if asked is None and (searching or pod is None):
        asked = SIDECAR
    sources = [found for one in pods if (found := _source(one, asked, named=pod is not None or bool(container))) is not None]
    if not sources:
        raise CliError(f"none of {len(pods)} pods has a container {asked}")
    params: dict[str, str | int | bool] = {"container": ""}
    for option, on in (("follow", follow), ("previous", previous), ("timestamps", timestamps)):
        if on:
            params[option] = "true"
    reading = _Reading(api, params, wanted, searching, output == "json", prefix or (len(sources) > 1 and output != "json"))
    if searching:  # the API does not know requests
        reading.tail = tail
    elif tail >= 0:
        params["tailLines"] = tail
    if searching or asked == SIDECAR:  # whose lines say when
        reading.newer = newer
    elif newer is not None:
        params["sinceSeconds"] = int(newer)
    try:
        reading.follow(sources) if follow else reading.whole(sources)
    finally:
        reading.told()
    return 0


Source = tuple[str, str, str]  # namespace, pod, container


def _source(pod: dict[str, Any], asked: str | None, named: bool) -> Source | None:
    """Which container to read; None: the pod has none of this name and nobody said it must."""
    meta = pod["metadata"]
    spec = pod.get("spec", {})
    names = [one["name"] for one in spec.get("containers") or ()]
    if asked is None:
        if len(names) > 1:
            print(f'Defaulted container "{names[0]}" out of: {", ".join(names)}', file=sys.stderr)
        return meta["namespace"], meta["name"], names[0] if names else ""
    every = [*names, *(one["name"] for one in spec.get("initContainers") or ())]
    return (meta["namespace"], meta["name"], asked) if asked in every or named else None


class _Reading:
    """Some containers' logs. ``newer`` (seconds), ``tail``: what is left to do here, because the API does not know requests."""

    def __init__(
        self, api: Api, params: dict[str, str | int | bool], wanted: Wanted, searching: bool, as_json: bool, prefix: bool
    ) -> None:
        self._api = api
        self._params = params
        self._wanted = wanted
        self._searching = searching
        self._json = as_json
        self._prefix = prefix
        self.newer: float | None = None
        self.tail = -1
        self._other = 0  # lines of another form that were left out
        self._read: dict[Source, int] = {}  # lines
        self._skip: dict[Source, int] = {}

    def told(self) -> None:
        if self._other:
            lines = "1 line was" if self._other == 1 else f"{self._other} lines were"
            print(f"{lines} no request in Istio's default format or JSON, and left out", file=sys.stderr)

    def _lines(self, source: Source) -> Iterator[str]:
        space, pod, container = source
        params = {**self._params, "container": container}
        if not container:
            del params["container"]
        with self._api.stream(f"/api/v1/namespaces/{space}/pods/{pod}/log", params=params) as lines:
            yield from lines

    def _entries(self, source: Source) -> Iterator[Entry]:
        """What is wanted of one container, in its order."""
        import time

        from control.cli.log_lines import entry

        oldest = time.time() - self.newer if self.newer is not None else 0.0
        last = 0.0
        skip, self._read[source] = self._skip.get(source, 0), 0
        for line in self._lines(source):
            self._read[source] += 1
            if self._read[source] <= skip:
                continue
            found = entry(line)
            if found.fields is None:
                if self._searching:
                    self._other += bool(line.strip())
                    continue
                found = found._replace(time=last)  # it belongs to what stands before it
            elif self._wanted and not self._wanted.wants(found.fields):
                continue
            last = max(last, found.written)
            if not oldest or (found.written if found.fields is not None else found.time) >= oldest:
                yield found

    def whole(self, sources: list[Source]) -> None:
        """What is there, by time when it is of several."""
        if len(sources) == 1:
            for found in self._last(self._entries(sources[0])):
                self._show(sources[0], found, False)
            return
        rows = [(found, source) for source in sources for found in self._last(self._entries(source))]
        for found, source in sorted(rows, key=lambda row: row[0].time):
            self._show(source, found, False)

    def _last(self, found: Iterable[Entry]) -> Iterable[Entry]:
        return found if self.tail < 0 else deque(found, maxlen=self.tail)

    def follow(self, sources: list[Source]) -> None:
        """As they come; of several, each read in a thread. What is there already comes first, ``tail`` of it."""
        if self.tail >= 0:
            before = _Reading(self._api, {**self._params}, self._wanted, self._searching, self._json, self._prefix)
            before._params.pop("follow", None)
            before.newer, before.tail = self.newer, self.tail
            before.whole(sources)
            self._skip, self._other = before._read, before._other
        if len(sources) == 1:
            for found in self._entries(sources[0]):
                self._show(sources[0], found, True)
            return
        import queue
        import threading

        rows: queue.Queue[tuple[Source, Entry | BaseException | None]] = queue.Queue(1000)

        def read(source: Source) -> None:
            try:
                for found in self._entries(source):
                    rows.put((source, found))
                rows.put((source, None))
            except BaseException as failure:
                rows.put((source, failure))

        for source in sources:
            threading.Thread(target=read, args=(source,), daemon=True, name="/".join(source)).start()
        left = len(sources)
        while left:
            source, got = rows.get()
            if isinstance(got, BaseException):
                raise got
            if got is None:
                left -= 1
            else:
                self._show(source, got, True)

    def _show(self, source: Source, found: Entry, flush: bool) -> None:
        space, pod, container = source
        if self._json and found.fields is not None:
            import msgspec

            print(msgspec.json.encode({"pod": pod, "namespace": space, **found.fields}).decode(), flush=flush)
            return
        print(f"[pod/{pod}/{container}] {found.line}" if self._prefix else found.line, flush=flush)
