"""Requests to the API: one synchronous client for commands, one asynchronous for programs that stay.

In: a ``Target``. Out: decoded JSON, or ``ApiError`` that holds the Kubernetes Status of the refusal, or ``Unreachable``. Loud.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from control.client.carried import Carried, NoRole
from control.client.kubeconfig import BadKubeconfig, Target

__all__ = ["Api", "ApiError", "AsyncApi", "Unreachable"]

MESH = "/mesh/v1"
OURS = "+pymesh"  # how control's own API ends its version
Params = Mapping[str, str | int | bool]


class Unreachable(Exception):
    """Nobody answers at the server's address; the message is one line."""


class ApiError(Exception):
    """The API refused. ``code`` is the HTTP status, ``reason`` the Status reason, the message the Status message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    @classmethod
    def of(cls, answer: httpx.Response) -> ApiError:
        """From any answer that is not a success, a Status or not."""
        reason, message = "", ""
        try:
            body = answer.json()
            reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
        except (ValueError, AttributeError):
            message = answer.text.strip()[:500]
        return cls(answer.status_code, reason or _REASONS.get(answer.status_code, ""), message or answer.reason_phrase)


_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}


def _settings(target: Target) -> dict[str, Any]:
    headers = {"user-agent": "meshctl", "accept": "application/json"}
    if target.token:
        headers["authorization"] = f"Bearer {target.token}"
    # trust_env off: a proxy in the user's environment (this very mesh sets one) must not see the API's traffic.
    return {"base_url": target.server, "headers": headers, "verify": target.ssl_context(), "trust_env": False}


def _distrust(failure: httpx.HTTPError) -> ssl.SSLCertVerificationError | None:
    """Set when the server's certificate was not believed."""
    cause: BaseException | None = failure
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _unreachable(target: Target, failure: httpx.HTTPError) -> Unreachable:
    cause = _distrust(failure)
    if cause is not None and target.ca:
        return Unreachable(
            f"another mesh answers at {target.server}: {target.source} is of a mesh that is not running ({cause.verify_message})"
        )
    why = str(failure) or type(failure).__name__
    return Unreachable(f"no answer from {target.server} ({why}); is the mesh running? kubeconfig: {target.source}")


class Api:
    """The client of one command."""

    def __init__(self, target: Target, timeout: float = 30.0, root_namespace: str = "istio-system") -> None:
        self.target = target
        self._root = root_namespace
        self._carried: Carried | None = None
        self._client = httpx.Client(timeout=timeout, **_settings(target))

    def close(self) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> Any:
        """Decoded JSON of a success. Raises ``ApiError`` or ``Unreachable``."""
        return self.exchange(method, path, params=params, body=body, content_type=content_type, accept=accept)[0]

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str | None = None,
    ) -> tuple[Any, tuple[str, ...]]:
        """As ``request``, with the API's warnings (``Warning: 299`` headers) beside it."""
        headers = {"content-type": content_type} if body is not None else {}
        if accept:
            headers["accept"] = accept
        content = None if body is None else msgspec.json.encode(body)
        answer = self._answer(method, path, params, content, headers)
        if answer.status_code in (403, 404) and path.startswith(MESH) and self._carried is None and self._is_cluster():
            self._carried = Carried(self._ask, self._root)
            answer = self._answer(method, path, params, content, headers)
        if not answer.is_success:
            raise ApiError.of(answer)
        return (answer.json() if answer.content else None), _warnings(answer)

    def _answer(
        self, method: str, path: str, params: Params | None, content: bytes | None, headers: dict[str, str]
    ) -> httpx.Response:
        """In a cluster the mesh's own paths lead through the API server to control."""
        if self._carried is not None and path.startswith(MESH):
            try:
                headers = headers | self._carried.headers(method, path)
            except NoRole as problem:
                raise ApiError(403, "Forbidden", str(problem)) from None
            path = self._carried.path(path)
        try:
            return self._client.request(method, path, params=dict(params) if params else None, content=content, headers=headers)
        except httpx.HTTPError as failure:
            raise _unreachable(self.target, failure) from None

    def _ask(self, method: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        headers = {"content-type": "application/json"}
        answer = self._answer(method, path, None, msgspec.json.encode(body), headers)
        try:
            return answer.status_code, answer.json()
        except ValueError:
            return answer.status_code, {}

    def _is_cluster(self) -> bool:
        """Whether the server is a cluster's and not control itself."""
        answer = self._answer("GET", "/version", None, None, {})
        try:
            return answer.is_success and not str(answer.json()["gitVersion"]).endswith(OURS)
        except (ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        accept: str | None = None,
        body: object = None,
        silence: float | None = None,
    ) -> Iterator[Iterator[str]]:
        """The lines of a long answer (watch, logs). ``body``: posted as JSON. ``silence``: seconds after which it is given up."""
        headers = {"accept": accept} if accept else {}
        if body is not None:
            headers["content-type"] = "application/json"
        timeout = httpx.Timeout(30.0, read=silence)
        try:
            with self._client.stream(
                "GET" if body is None else "POST",
                path,
                params=dict(params) if params else None,
                content=None if body is None else msgspec.json.encode(body),
                headers=headers,
                timeout=timeout,
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise ApiError.of(answer)
                yield answer.iter_lines()
        except httpx.HTTPError as failure:
            raise _unreachable(self.target, failure) from None


class AsyncApi:
    """The client of a program that stays; every call is one attempt, the caller retries.

    ``again`` reads the kubeconfig anew: it is asked when the server is not believed, for the mesh's root may have been replaced.
    """

    def __init__(self, target: Target, timeout: float = 5.0, again: Callable[[], Target] | None = None) -> None:
        self.target = target
        self._again = again
        self._timeout = timeout
        self._old: list[httpx.AsyncClient] = []  # calls under way may still use them
        self._client = httpx.AsyncClient(timeout=timeout, **_settings(target))

    async def close(self) -> None:
        for client in (*self._old, self._client):
            await client.aclose()

    async def request(
        self, method: str, path: str, *, params: Params | None = None, body: object = None, content_type: str = "application/json"
    ) -> Any:
        """Decoded JSON of a success. Raises ``ApiError`` or ``Unreachable``."""
        headers = {"content-type": content_type} if body is not None else {}
        content = None if body is None else msgspec.json.encode(body)
        client = self._client
        try:
            answer = await client.request(method, path, params=dict(params) if params else None, content=content, headers=headers)
        except httpx.HTTPError as failure:
            if _distrust(failure) is not None and client is self._client:
                self._believe_anew()
            raise _unreachable(self.target, failure) from None
        if not answer.is_success:
            raise ApiError.of(answer)
        return answer.json() if answer.content else None

    def _believe_anew(self) -> None:
        """Use what the kubeconfig says now, from the next call on; calls under way end first."""
        try:
            target = self.target if self._again is None else self._again()
        except (BadKubeconfig, OSError):
            return
        if target != self.target:
            self.target, old = target, self._client
            self._client = httpx.AsyncClient(timeout=self._timeout, **_settings(target))
            self._old.append(old)


def _warnings(answer: httpx.Response) -> tuple[str, ...]:
    found = []
    for value in answer.headers.get_list("warning"):
        _, _, quoted = value.partition(' "')
        found.append(quoted.rsplit('"', 1)[0].replace('\\"', '"').replace("\\\\", "\\") if quoted else value)
    return tuple(found)
