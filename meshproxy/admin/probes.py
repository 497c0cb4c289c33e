"""Admin room: the kubelet's probes of the app, relayed. The kubelet has no certificate; we ask from inside the pod. Loud.

In: what ISTIO_KUBE_APP_PROBERS says, our own address. Out: routes ``/app-health/<container>/{readyz,livez,startupz}`` and
``/app-lifecycle/<container>/{prestopz,poststartz}``. The app is dialed at the pod's own address, as the kubelet would, and from
the address by which iptables lets us past ourselves. Status, body and redirects come back as the app said them; no answer is 500.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import h11

from meshproxy.admin.http import Request, Response, Route
from meshproxy.podenv import HttpGet, Prober
from meshproxy.upstream.inside import open_app

__all__ = ["AppProbes"]

log = logging.getLogger("meshproxy.admin")

MAX_BODY = 10 * 1024  # bytes of an answer that are handed on, as the kubelet's
MAX_REDIRECTS = 10
HOOK_TIME = 24 * 3600.0  # seconds: a lifecycle hook may take as long as the kubelet lets it
# Of the caller's own connection, or written anew.
_HOP = frozenset(
    ("host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


class Failed(Exception):
    """The app gave no answer; one line."""


class AppProbes:
    """``ip``: the pod's."""

    def __init__(self, probers: Iterable[tuple[str, Prober]], ip: str) -> None:
        self._probers = dict(probers)
        self._ip = ip

    def routes(self) -> dict[str, Route]:
        return {
            path: Route(
                self._page(prober, hook := path.startswith("/app-lifecycle/")),
                any_host=True,
                patience=HOOK_TIME if hook else 2.0 * max(1, prober.timeout_seconds) + 30.0,
            )
            for path, prober in self._probers.items()
        }

    def _page(self, prober: Prober, hook: bool) -> Callable[[Request], Any]:
        patience = None if hook else max(1, prober.timeout_seconds)

        async def page(request: Request) -> Response:
            try:
                async with asyncio.timeout(patience):
                    return await self._ask(prober, request)
            except TimeoutError:
                problem = f"the app did not answer within {patience} s"
            except Failed as no:
                problem = f"the app could not be asked: {no}"
            except (ssl.SSLError, OSError) as error:
                problem = f"the app could not be asked: {_reason(error)}"
            log.info("%s: %s", request.path, problem)
            return Response.text(problem, 500)

        return page

    async def _ask(self, prober: Prober, request: Request) -> Response:
        if prober.http_get is not None:
            return await self._http(prober.http_get, request)
        if prober.tcp_socket is not None:
            _, writer = await open_app(self._ip, prober.tcp_socket.port)
            writer.close()
            return Response()
        assert prober.grpc is not None
        from meshproxy.admin.probes_grpc import check  # h2: most pods have no such probe

        reader, writer = await open_app(self._ip, prober.grpc.port)
        try:
            authority = f"{_bracketed(self._ip)}:{prober.grpc.port}"
            problem = await check(reader, writer, authority, prober.grpc.service or "", request.headers.get("user-agent", ""))
        finally:
            writer.close()
        return Response.text(problem, 500) if problem else Response()

    async def _http(self, wanted: HttpGet, request: Request) -> Response:
        """As the kubelet: redirects are followed while they stay at the same host."""
        path = wanted.path or "/"
        scheme = "https" if wanted.scheme == "HTTPS" else "http"
        url = f"{scheme}://{_bracketed(self._ip)}:{wanted.port}{path if path.startswith('/') else '/' + path}"
        headers, host = _headers(wanted, request.headers)
        if not host and wanted.host:
            host = f"{_bracketed(wanted.host)}:{wanted.port}"
        for _ in range(MAX_REDIRECTS):
            status, body, location, kind = await self._get(url, headers, host)
            if status not in (301, 302, 303, 307, 308) or not location:
                return Response(status, body, kind)
            try:
                following = urljoin(url, location)
                same = urlsplit(following).hostname == urlsplit(url).hostname and following.startswith(("http://", "https://"))
            except ValueError:
                raise Failed("its redirect names no address") from None
            if not same:
                return Response(status, body, kind, (("location", location),))
            url = following
        raise Failed(f"more than {MAX_REDIRECTS} redirects")

    async def _get(self, url: str, headers: list[tuple[str, str]], host: str) -> tuple[int, bytes, str, str]:
        parts = urlsplit(url)
        tls = _unverified() if parts.scheme == "https" else None
        try:
            port = parts.port or (443 if tls is not None else 80)
        except ValueError:
            raise Failed("its redirect names no port") from None
        reader, writer = await open_app(self._ip, port, tls)
        try:
            machine = h11.Connection(h11.CLIENT)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            sent = [("host", host or parts.netloc), *headers, ("connection", "close")]
            writer.write(machine.send(h11.Request(method="GET", target=target, headers=sent)) or b"")
            writer.write(machine.send(h11.EndOfMessage()) or b"")
            return await _answer(machine, reader)
        except (h11.RemoteProtocolError, h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise Failed(str(error)) from None
        finally:
            writer.close()


async def _answer(machine: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes, str, str]:
    """Status, the first bytes of the body, where it redirects to, what the body is."""
    status, location, kind, body = 0, "", "text/plain; charset=utf-8", b""
    while len(body) < MAX_BODY:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(MAX_BODY)
            machine.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            for name, value in event.headers:
                if name == b"location":
                    location = value.decode("latin-1")
                elif name == b"content-type":
                    kind = value.decode("latin-1")
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            break
    return status, body[:MAX_BODY], location, kind


def _headers(wanted: HttpGet, came: Mapping[str, str]) -> tuple[list[tuple[str, str]], str]:
    """What the kubelet sent, with the probe's own over it; and the Host, if it names one."""
    own = {header.name.lower() for header in wanted.http_headers or ()}
    found = [(name, value) for name, value in came.items() if name not in _HOP and name not in own]
    host = ""
    for header in wanted.http_headers or ():
        name = header.name.lower()
        if name in ("host", ":authority"):
            host = header.value
        elif name not in _HOP:
            found.append((name, header.value))
    return found, host


def _unverified() -> ssl.SSLContext:
    """As the kubelet's: it looks at no certificate, and has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
