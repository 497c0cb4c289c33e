"""``meshctl tap``: requests as they pass the sidecars, while they pass.

In: pods, and what a request must be like. Out: a line per request, or a JSON document; at the end how many there were
and how many were left out. Control asks the sidecars and passes on what they tell (``control.serve.taps``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import AllNamespaces, Context, Kubeconfig, Namespace, Selector, connect, examples, seconds

if TYPE_CHECKING:
    from control.client.api import Api
    from meshproxy.model.tap import TapFilter

__all__ = ["register"]

SILENCE = 20.0  # seconds without a word from control, which speaks every five
_FINE = ("as many as were asked for", "its time is over")
_OPTIONS = {  # by the field of the filter
    "methods": "--method",
    "path": "--path",
    "statuses": "--status",
    "authority": "--authority",
    "source": "--from",
    "destination": "--to",
    "min_ms": "--min-duration",
    "flags": "--flag",
    "headers": "--header",
}
More = list[str] | None


def register(app: typer.Typer) -> None:
    lines = (
        "meshctl tap book-service                                (all of its requests)",
        "meshctl tap book-service --to rating --status 5xx       (those to rating that fail)",
        "meshctl tap deploy/web svc/api --path '/api/*/orders' --min-duration 100ms",
        "meshctl tap -l app=rating --direction inbound --max 10 -o json",
        "meshctl tap -A --flag UF,UH --for 60s                   (every sidecar of the mesh)",
    )
    app.command("tap", epilog=examples(*lines))(tap)


def tap(
    pod: Annotated[More, typer.Argument(metavar="[POD]...", help="POD, POD.NAMESPACE, deploy/NAME, svc/NAME; else all.")] = None,
    namespace: Namespace = None,
    everywhere: AllNamespaces = False,
    selector: Selector = None,
    method: Annotated[More, typer.Option("--method", help="GET, or GET,POST.")] = None,
    path: Annotated[str, typer.Option("--path", help="How the path begins, or all of it with * for anything.")] = "",
    status: Annotated[More, typer.Option("--status", help="503, 5xx, 400-499; several with commas. 0: no answer.")] = None,
    authority: Annotated[str, typer.Option("--authority", help="The requested host, with * for anything.")] = "",
    source: Annotated[str, typer.Option("--from", help="Who calls: a workload or service, NAME[.NAMESPACE], or an IP.")] = "",
    destination: Annotated[str, typer.Option("--to", help="Who is called: the same.")] = "",
    direction: Annotated[More, typer.Option("--direction", help="inbound, outbound or gateway.")] = None,
    min_duration: Annotated[str, typer.Option("--min-duration", help="Took at least so long: 100ms, 1.5s.")] = "",
    flag: Annotated[More, typer.Option("--flag", "--flags", help="A response flag: UF, or UF,UH.")] = None,
    header: Annotated[More, typer.Option("--header", help="A request header that is there, NAME or NAME=VALUE.")] = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many requests.")] = None,
    duration: Annotated[str, typer.Option("--for", help="End after so long; an hour at most.")] = "10m",
    rate: Annotated[int, typer.Option("--rate", min=1, max=1000, help="Requests a second and sidecar; more are counted.")] = 200,
    headers: Annotated[bool, typer.Option("--headers", help="Values of headers too, credentials excepted (role admin).")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="line, wide, or json: one document per line.")] = "line",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Watch requests as they pass sidecars. Bodies are never shown, credentials never."""
    from meshproxy.model.tap import MOST_SECONDS

    if output not in ("line", "wide", "json", "table", ""):
        raise CliError(f"--output {output}: must be line, wide or json", code=2)
    wanted = _filter(
        methods=tuple(word for one in method or () for word in one.split(",")),
        path=path,
        statuses=",".join(status or ()),
        authority=authority,
        source=source,
        destination=destination,
        directions=tuple(word for one in direction or () for word in one.split(",")),
        min_ms=1000 * seconds(min_duration, "--min-duration") if min_duration else 0.0,
        flags=",".join(flag or ()),
        headers=tuple(_header(one) for one in header or ()),
    )
    lasting = seconds(duration, "--for")
    if not 0 < lasting <= MOST_SECONDS:
        raise CliError(f"--for {duration}: must be more than 0 and at most {MOST_SECONDS / 60:g}m", code=2)
    api = connect(kubeconfig, context)
    pods = _sidecars(api, pod or [], namespace, selector, everywhere)
    asked = {"pods": pods, "filter": wanted, "seconds": lasting, "most": most or 0, "rate": rate, "headers": headers}
    return _Watching(output, headers).run(api, asked)


def _header(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name.strip(), value if equals else None


def _filter(**given: Any) -> TapFilter:
    """The filter, judged by the code that the sidecars run. Raises ``CliError`` that names the option."""
    from meshproxy.model.cluster import Workload
    from meshproxy.model.tap import TapFilter, flags, statuses
    from meshproxy.policy.invalid import Invalid
    from meshproxy.policy.tap import compile_tap

    for field, read in (("statuses", statuses), ("flags", flags)):
        try:
            given[field] = read(given[field]) if given[field] else ()
        except ValueError as bad:
            raise CliError(f"{_OPTIONS[field]} {bad}", code=2) from None
    if unknown := [word for word in given["directions"] if word not in ("inbound", "outbound", "gateway")]:
        raise CliError(f"--direction {unknown[0]}: must be inbound, outbound or gateway", code=2)
    try:
        found = TapFilter(**given)
        compile_tap(found, Workload)
    except Invalid as invalid:
        raise CliError(f"{_OPTIONS[invalid.path]}: {invalid.message}", code=2) from None
    return found


def _sidecars(api: Api, words: list[str], namespace: str | None, selector: str | None, everywhere: bool) -> list[str]:
    """The connected sidecars that are meant, NAMESPACE/NAME. Raises ``CliError`` for one that was named and is not there."""
    from control.cli.pods import chosen, full_name

    connected = {f"{one['namespace']}/{one['name']}" for one in api.request("GET", "/mesh/v1/proxies")["proxies"]}
    meant = ["/".join(full_name(pod)) for pod in chosen(api, words, namespace, selector, everywhere)]
    found = [pod for pod in meant if pod in connected]
    if not found:
        which = meant[0] if len(meant) == 1 else f"any of {len(meant)} pods"
        raise CliError(f"no sidecar of {which} is connected; `meshctl proxy-status` lists those that are")
    if words and (missing := [pod for pod in meant if pod not in connected]):
        print(f"not watched, because their sidecars are not connected: {', '.join(missing)}", file=sys.stderr)
    return found


class _Watching:
    """One tap, from the first line to the last."""

    def __init__(self, output: str, headers: bool) -> None:
        self._output = output
        self._headers = headers
        self._width = 0
        self._left: dict[str, int] = {}
        self._pods: list[str] = []
        self._ended: list[str] = []  # not said yet
        self._done: str | None = None
        self.count = 0

    def run(self, api: Api, asked: dict[str, Any]) -> int:
        from control.client.api import Unreachable

        try:
            with api.stream("/mesh/v1/taps", body=asked, silence=SILENCE) as found:
                self._read(found)
        except KeyboardInterrupt:
            print(f"\n{self._summary()}", file=sys.stderr)
            return 0
        except Unreachable as lost:
            if not self._pods:
                raise
            raise CliError(f"control went away, and with it the tap ({lost}); {self._summary()}") from None
        if self._done is None:  # the door ends what a token began, without a word
            raise CliError(f"control ended the tap: your token is no longer good; {self._summary()}")
        if self._done not in _FINE:
            raise CliError(f"the tap of {_listed(self._pods)} ended: {self._done}; {self._summary()}")
        print(f"{self._summary()}: {self._done}", file=sys.stderr)
        return 0

    def _read(self, found: Iterator[str]) -> None:
        import msgspec

        for line in found:
            if line:
                self._take(msgspec.json.decode(line))
            if self._done is not None:
                return

    def _take(self, message: Mapping[str, Any]) -> None:
        if "done" in message:
            self._done, self._left = message["done"], message["left"]
            if len(self._pods) == 1:  # the same is said at the end
                self._ended.clear()
        self._say_ended()
        if "event" in message:
            self._show(message["pod"], message["event"])
        elif "left" in message:
            self._left = message["left"]
        elif "opened" in message:
            self._pods = message["opened"]
            self._width = max(map(len, self._pods)) if len(self._pods) > 1 else 0
            print(f"tapping {_listed(self._pods)}; Ctrl-C ends it", file=sys.stderr)
        elif "ended" in message:
            self._ended.append(f"{message['ended']}: not watched any more: {message['why']}")

    def _say_ended(self) -> None:
        for line in self._ended:
            print(line, file=sys.stderr)
        self._ended.clear()

    def _show(self, pod: str, event: dict[str, Any]) -> None:
        self.count += 1
        if self._output == "json":
            import msgspec

            space, _, name = pod.partition("/")
            print(msgspec.json.encode({"pod": name, "namespace": space, **event}).decode(), flush=True)
            return
        from control.cli.tap_line import lines

        for line in lines(pod, event, width=self._width, wide=self._output == "wide", headers=self._headers):
            print(line, flush=True)

    def _summary(self) -> str:
        left = sum(self._left.values())
        why = {"rate": "more than --rate in a second", "sidecar": "too many waited in a sidecar", "reader": "not read in time"}
        parts = [f"{count} {why.get(key, key)}" for key, count in self._left.items() if count]
        return f"{self.count} request{'' if self.count == 1 else 's'}, {left} left out" + (
            f" ({', '.join(parts)})" if parts else ""
        )


def _listed(pods: list[str]) -> str:
    return ", ".join(pods) if len(pods) <= 5 else f"{', '.join(pods[:4])} and {len(pods) - 4} more"
