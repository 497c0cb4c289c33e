"""Room 2, TLS, loud: a transport look-alike over a transport and a session, so that a codec writes plaintext and knows nothing.

In: a codec's calls. Out: records on the transport. Assumes that the session is handshaken and its peer judged. Flow control is
the transport's: its ``pause_writing`` counts records, and pausing stops them before they are decrypted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshproxy.tls.session import Session

__all__ = ["TlsWire"]

_UNREAD = 64 * 1024  # bytes


class TlsWire:
    """``codec.wire.Wire``, and what listener and upstream ask of a transport."""

    __slots__ = (
        "_out",
        "_send",
        "_transport",
        "_unread",
        "abort",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
        "session",
        "set_write_buffer_limits",
    )

    def __init__(self, transport: Any, session: Session) -> None:
        self._transport = transport
        self._unread = 0
        self.session = session
        self._send = session.send
        # The transport's own, bound once: they are called for every request. (micro_tls.py "echo")
        self._out: Callable[[bytes], None] = transport.write
        self.abort: Callable[[], None] = transport.abort
        self.pause_reading: Callable[[], None] = transport.pause_reading
        self.resume_reading: Callable[[], None] = transport.resume_reading
        self.is_closing: Callable[[], bool] = transport.is_closing
        self.get_extra_info: Callable[[str], Any] = transport.get_extra_info
        self.set_write_buffer_limits: Callable[..., None] = transport.set_write_buffer_limits

    def write(self, data: bytes) -> None:
        sealed = self._send(data)
        if sealed:
            self._out(sealed)

    def flush(self) -> None:
        """What the session has to say of its own. A peer that asks for key updates and reads no answer is cut off: they would
        pile up here, as nothing that it sends does.
        """
        said = self.session.take()
        if said:
            self._transport.write(said)
            if self._transport.get_write_buffer_size() < _UNREAD:
                self._unread = 0
                return
            self._unread += len(said)
            if self._unread > _UNREAD:
                self._transport.abort()

    def write_eof(self) -> None:
        """close_notify, then FIN."""
        self._end()
        self._transport.write_eof()

    def get_write_buffer_size(self) -> int:
        return int(self._transport.get_write_buffer_size())

    def close(self) -> None:
        self._end()
        self._transport.close()

    def _end(self) -> None:
        if not self._transport.is_closing():
            said = self.session.finish()
            if said:
                self._transport.write(said)
