"""What a filter may answer: None (go on), ``Reply`` (answer now), ``Wait`` or ``Ask`` (park; the exchange resumes later)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshproxy.message.head import Headers, RequestHead, ResponseHead
    from meshproxy.message.ports import InFlight
    from meshproxy.message.reason import Reason

__all__ = ["Answer", "Ask", "Reply", "Verdict", "Wait"]


class Reply:
    """A local answer. ``reason`` None: an ordinary local response (redirect, direct response, preflight)."""

    __slots__ = ("body", "detail", "head", "reason")

    def __init__(self, head: ResponseHead, body: bytes = b"", reason: Reason | None = None, detail: str = "") -> None:
        self.head = head
        self.body = body
        self.reason = reason
        self.detail = detail or (reason.detail if reason is not None else "direct_response")


class Wait:
    """Park the request for ``seconds`` (fault delay). ``flag`` goes on the record."""

    __slots__ = ("flag", "seconds")

    def __init__(self, seconds: float, flag: Reason | None = None) -> None:
        self.seconds = seconds
        self.flag = flag


class Answer:
    """What the service that was asked said, whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Ask:
    """Park the request until another service has been asked about it. Made at config time; requests share it.

    cluster: the live cluster that is asked; None: there is none, so no answer. request: makes the question, of the request, the
    beginning of its body, and whether that is not all. body: most bytes of the body that the question takes along; where there
    are more, ``partial`` sends the beginning, otherwise the request is refused (413). judge: the verdict on the answer; no answer
    (refused, late, broken) is None.
    """

    __slots__ = ("body", "cluster", "judge", "partial", "request", "timeout")

    def __init__(
        self,
        cluster: Any,
        request: Callable[[InFlight, bytes, bool], RequestHead],
        judge: Callable[[InFlight, Answer | None], Verdict],
        *,
        timeout: float,
        body: int = 0,
        partial: bool = False,
    ) -> None:
        self.cluster = cluster
        self.request = request
        self.judge = judge
        self.timeout = timeout
        self.body = body
        self.partial = partial


Verdict = None | Reply | Wait | Ask
