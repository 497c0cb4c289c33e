"""Room: policy. Injected faults: a delay, an abort, each by its own draw (semantics A2).

In: ``model.route.Fault`` and a draw from [0, 1). Out: ``CompiledFault``. Percentages have a precision of 0.0001 and are
truncated beyond it, as Istio hands them to Envoy (parts per million).
"""

from __future__ import annotations

from meshproxy.message.head import ResponseHead
from meshproxy.message.reason import Reason
from meshproxy.message.verdict import Reply
from meshproxy.model.route import Abort, Fault
from meshproxy.policy.invalid import Invalid
from meshproxy.policy.replies import local_reply

__all__ = ["MILLION", "CompiledFault", "parts_per_million"]

MILLION = 1_000_000


def parts_per_million(percent: float, path: str) -> int:
    """100.0 -> 1,000,000; 0.0001 -> 1; truncated. Raises ``Invalid`` outside 0..100."""
    if not 0.0 <= percent <= 100.0:
        raise Invalid(path, f"percent must be between 0 and 100, not {percent}")
    return int(percent * 10_000)


class CompiledFault:
    """``delay`` in seconds and ``delay_share``, ``abort_share`` in parts per million; 0: never."""

    __slots__ = ("_abort", "abort_share", "delay", "delay_share", "model")

    def __init__(self, model: Fault, path: str) -> None:
        self.model = model
        self.delay = 0.0
        self.delay_share = 0
        self.abort_share = 0
        self._abort: Abort | None = model.abort
        if model.delay is not None:
            if model.delay.seconds <= 0:
                raise Invalid(path + ".delay.seconds", "a delay must be longer than 0")
            self.delay = model.delay.seconds
            self.delay_share = parts_per_million(model.delay.percent, path + ".delay.percent")
        abort = model.abort
        if abort is not None:
            if (abort.grpc_status is None) == (abort.status == 0):
                raise Invalid(path + ".abort", "give one of status and grpc_status")
            if abort.status and not 200 <= abort.status <= 599:
                raise Invalid(path + ".abort.status", f"must be between 200 and 599, not {abort.status}")
            if abort.grpc_status is not None and not 0 <= abort.grpc_status <= 16:
                raise Invalid(path + ".abort.grpc_status", f"must be between 0 and 16, not {abort.grpc_status}")
            self.abort_share = parts_per_million(abort.percent, path + ".abort.percent")

    def delays(self, draw: float) -> bool:
        """Whether this draw delays the request by ``delay`` seconds."""
        return draw * MILLION < self.delay_share

    def aborts(self, draw: float) -> bool:
        return draw * MILLION < self.abort_share

    def reply(self) -> Reply:
        """The abort: status and ``fault filter abort``, or a trailers-only gRPC answer."""
        abort = self._abort
        if abort is None:
            raise ValueError("no abort is configured")  # a caller's bug: ask aborts() first
        if abort.grpc_status is not None:
            headers = [
                (b"content-type", b"application/grpc"),
                (b"grpc-status", b"%d" % abort.grpc_status),
                (b"grpc-message", b"fault filter abort"),
                (b"content-length", b"0"),
            ]
            return Reply(ResponseHead(200, headers, 0), b"", Reason.FAULT_ABORT)
        reply = local_reply(Reason.FAULT_ABORT)
        reply.head.status = abort.status
        return reply
