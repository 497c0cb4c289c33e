"""What a filter may answer: None (go on), ``Reply`` (answer now) or ``Wait`` (park; the exchange resumes later)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshproxy.message.head import ResponseHead
    from meshproxy.message.reason import Reason

__all__ = ["Reply", "Verdict", "Wait"]


class Reply:
    """A local answer. ``reason`` None: an ordinary local response (redirect, direct response, preflight)."""

    __slots__ = ("body", "detail", "head", "reason")

    def __init__(self, head: ResponseHead, body: bytes = b"", reason: Reason | None = None, detail: str = "") -> None:
        self.head = head
        self.body = body
        self.reason = reason
        self.detail = detail or (reason.detail if reason is not None else "direct_response")


class Wait:
    """Park the request for ``seconds`` (fault delay); later: until something resumes it. ``flag`` goes on the record."""

    __slots__ = ("flag", "seconds")

    def __init__(self, seconds: float, flag: Reason | None = None) -> None:
        self.seconds = seconds
        self.flag = flag


Verdict = None | Reply | Wait
