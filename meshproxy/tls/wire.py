"""Room 2, TLS, loud: a transport look-alike over a transport and a session, so that a codec writes plaintext and knows nothing.

In: a codec's calls. Out: records on the transport. Assumes that the session is handshaken and its peer judged. Flow control is
the transport's: its ``pause_writing`` counts records, and pausing stops them before they are decrypted.
"""

from __future__ import annotations

from typing import Any

from meshproxy.tls.session import Session

__all__ = ["TlsWire"]

_UNREAD = 64 * 1024  # bytes


class TlsWire:
    """``codec.wire.Wire``, and what listener and upstream ask of a transport."""

    __slots__ = ("_transport", "_unread", "session")

    def __init__(self, transport: Any, session: Session) -> None:
        self._transport = transport
        self._unread = 0
        self.session = session

    def write(self, data: bytes) -> None:
        sealed = self.session.send(data)
        if sealed:
            self._transport.write(sealed)

    def flush(self) -> None:
        """What the session has to say of its own. A peer that asks for key updates and reads no answer is cut off: they would pile
        up here, as nothing that it sends does.
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

    def close(self) -> None:
        self._end()
        self._transport.close()

    def _end(self) -> None:
        if not self._transport.is_closing():
            said = self.session.finish()
            if said:
                self._transport.write(said)

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        closing: bool = self._transport.is_closing()
        return closing

    def get_extra_info(self, name: str) -> Any:
        return self._transport.get_extra_info(name)

    def set_write_buffer_limits(self, high: int) -> None:
        self._transport.set_write_buffer_limits(high=high)
