"""Requests to a cluster's API server (room ``store/kubernetes``), loud.

In: the pod's own service account, or a kubeconfig. Out: ``ApiServer``: JSON of a path, lines of a watch, ``Refused`` with the
server's Status, ``Unreachable`` when nobody answered in time. Every wait has an end: connecting, an answer, a silent watch.
kubernetes-asyncio says who we are and whom we believe (kubeconfig, exec plugins, the pod's token as it is replaced) and carries
the bytes; its models and its own watch are left alone (docs/decisions/0006). Tokens are in no message.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes_asyncio import config
from kubernetes_asyncio.client.api_client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config.config_exception import ConfigException

from control.files import FileProblem

__all__ = ["MERGE", "ApiServer", "Refused", "Unreachable"]

Params = Mapping[str, str]
MERGE = "application/merge-patch+json"
JSON = "application/json"
CONNECT = 10.0  # seconds
AGAIN = 20.0  # seconds between readings of files that may have changed
ANSWER = 30.0  # seconds for a small answer
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))
_FAULTS = (aiohttp.ClientError, OSError, TimeoutError, ValueError, ConfigException)


class Unreachable(Exception):
    """The API server did not answer; one line."""


class Refused(Exception):
    """The API server's own answer. ``retry_after`` in seconds, 0.0: it said nothing of it."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @classmethod
    def of(cls, code: int, body: bytes, retry_after: str = "") -> Refused:
        """From an answer that is no success, a Status or not."""
        reason, message = "", ""
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            status = msgspec.json.decode(body)
            if isinstance(status, dict):
                reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
        seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return cls(code, reason, _line(message) or f"the API server answered {code}", seconds)


class ApiServer:
    """``kubeconfig`` None: the pod's own service account. ``connect`` before use."""

    def __init__(self, kubeconfig: Path | None = None, *, answer: float = ANSWER) -> None:
        self._kubeconfig = kubeconfig
        self._answer = answer
        self._client: ApiClient | None = None
        self._old: list[ApiClient] = []  # watches under way may still use them
        self._anew = -AGAIN  # when the files were last read again
        self.host = ""

    async def connect(self) -> None:
        """Raises ``FileProblem``: there is nothing that says where the cluster is, or it cannot be read."""
        where = f"--kubeconfig {self._kubeconfig}" if self._kubeconfig else "no cluster around here (give --kubeconfig FILE)"
        if self._kubeconfig is not None and not self._kubeconfig.is_file():
            raise FileProblem(f"--store kubernetes: {where}: no such file")
        try:
            self._client = await self._load()
        except Exception as error:  # the library raises whatever a file that is no kubeconfig makes of it
            raise FileProblem(f"--store kubernetes: {where}: {_line(str(error))}") from error
        self.host = str(self._client.configuration.host)

    async def _load(self) -> ApiClient:
        settings = Configuration()
        # Python's strict mode wants extensions that the roots of many clusters do not have; no other client asks for them.
        settings.disable_strict_ssl_verification = True
        settings.connection_pool_maxsize = 0  # unlimited: each watch holds a connection, and none may wait for another
        if self._kubeconfig is None:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(str(self._kubeconfig), client_configuration=settings, persist_config=False)
        return ApiClient(settings)

    async def close(self) -> None:
        for client in (*self._old, *([self._client] if self._client else [])):
            await client.close()
        self._old, self._client = [], None

    # -- requests --------------------------------------------------------------------------------------------------------

    async def get(self, path: str, params: Params | None = None, *, accept: str = JSON, patience: float = 0.0) -> Any:
        """Decoded JSON. ``patience``: seconds for the whole answer, when it may be large."""
        return msgspec.json.decode(await self.read(path, params, accept=accept, patience=patience))

    async def read(self, path: str, params: Params | None = None, *, accept: str = JSON, patience: float = 0.0) -> bytes:
        return await self._whole("GET", path, params, None, accept=accept, patience=patience)

    async def send(
        self, method: str, path: str, body: object = None, params: Params | None = None, *, content_type: str = JSON
    ) -> Any:
        """A write, or a question asked by POST."""
        found = await self._whole(method, path, params, body, content_type=content_type)
        return msgspec.json.decode(found) if found else None

    async def _whole(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: object,
        *,
        accept: str = JSON,
        content_type: str = JSON,
        patience: float = 0.0,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=patience or self._answer, sock_connect=CONNECT)
        try:
            answer = await self._begin(method, path, params, body, accept, content_type, timeout)
            async with answer:
                data = await answer.read()
        except _FAULTS as error:
            raise self._unreachable(error) from None
        if not 200 <= answer.status < 300:
            raise Refused.of(answer.status, data, answer.headers.get("Retry-After", ""))
        return bytes(data)

    @asynccontextmanager
    async def lines(self, path: str, params: Params, *, accept: str = JSON, ends: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch, which has to end by itself before ``ends`` seconds: a connection that is half open does not.

        Leaving the block, also between two lines, closes the connection.
        """
        timeout = aiohttp.ClientTimeout(total=ends, sock_connect=CONNECT)
        try:
            answer = await self._begin("GET", path, params, None, accept, JSON, timeout)
        except _FAULTS as error:
            raise self._unreachable(error) from None
        try:
            if not 200 <= answer.status < 300:
                try:
                    data = await answer.read()
                except _FAULTS:
                    data = b""
                raise Refused.of(answer.status, data, answer.headers.get("Retry-After", ""))
            _keep_alive(answer)
            yield self._split(answer)
        finally:
            answer.close()

    async def _split(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Lines of any length: an event is one object, which may be larger than a reader's buffer."""
        rest = bytearray()
        try:
            async for piece in answer.content.iter_any():
                rest += piece
                if b"\n" in piece:
                    *whole, last = rest.split(b"\n")
                    rest = bytearray(last)
                    for line in whole:
                        if line:
                            yield bytes(line)
        except _FAULTS as error:
            raise self._unreachable(error) from None

    async def _begin(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: object,
        accept: str,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        client = self._client
        if client is None:
            raise ConnectionError("the client is closed")
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "mesh-control"}
        query: Any = list((params or {}).items())
        await client.update_params_for_auth(headers, query, ["BearerToken"])
        url = str(client.configuration.host).rstrip("/") + path
        try:
            answer: aiohttp.ClientResponse = await client.rest_client.request(
                method, url, query, headers, body, _preload_content=False, _request_timeout=timeout
            )
        except aiohttp.ClientConnectorCertificateError:
            await self._believe_anew(client)
            raise
        if answer.status == 401:  # a program's token has run out, or ours was replaced early
            await self._believe_anew(client)
        return answer

    async def _believe_anew(self, failed: ApiClient) -> None:
        """The cluster's root or our token may have been replaced: use what the files say now, from the next request on."""
        now = time.monotonic()
        if failed is not self._client or now < self._anew + AGAIN:
            return
        self._anew = now
        with suppress(*_FAULTS):
            fresh = await self._load()
            for old in self._old:
                await old.close()
            self._old, self._client = [failed], fresh

    def _unreachable(self, error: BaseException) -> Unreachable:
        why = "no answer in time" if isinstance(error, (TimeoutError, asyncio.TimeoutError)) else _line(str(error))
        return Unreachable(f"the API server at {self.host} cannot be reached: {why or type(error).__name__}")


def _keep_alive(answer: aiohttp.ClientResponse) -> None:
    """The kernel asks a silent peer whether it is still there: a machine that went away says no goodbye."""
    transport = answer.connection.transport if answer.connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
