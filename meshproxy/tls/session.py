"""Room 2, TLS, quiet: one TLS connection as a machine between two buffers; the only file where ``ssl``'s exceptions are caught.

In: bytes from the wire, plaintext to send. Out: plaintext, bytes for the wire (``take``), and how it stands: ``handshaken``,
``ended`` (the peer's close_notify), ``fault``. Assumes one thread, and that who sees ``handshaken`` become true judges the peer
before it calls ``read``: until then nothing that was decrypted leaves.

A fault is an end: there is an alert in ``take`` where OpenSSL had one to say, and nothing is read or sent any more. An end of
the transport before ``ended`` is a truncation (RFC 8446 section 6.1); what that means, only the message knows.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from meshproxy.message.secured import Peer, Secured, TlsFault
from meshproxy.tls.peer import read_peer

__all__ = ["Session", "alert"]

_RECORD = 16384  # plaintext bytes of a record, RFC 8446 section 5.1
_SLICE = 32 * 1024  # bytes of the wire that OpenSSL gets in one piece
# Bytes of the wire in a row that hold no plaintext: more than a record that is not whole yet, and room for key updates, tickets
# and warnings. Each of those costs as much as many kilobytes of data, and OpenSSL counts none of them. (BoringSSL: 32 in a row)
_BARREN = 48 * 1024
# X509_V_ERR_*, openssl/x509_vfy.h
_VERIFY = {
    9: TlsFault.NOT_YET_VALID,
    10: TlsFault.EXPIRED,
    23: TlsFault.REVOKED,
    62: TlsFault.WRONG_IDENTITY,
    64: TlsFault.WRONG_IDENTITY,
}
# RFC 8446 section 6
_ALERTS = {
    TlsFault.REVOKED: 44,
    TlsFault.EXPIRED: 45,
    TlsFault.UNTRUSTED: 48,
    TlsFault.WRONG_IDENTITY: 49,
    TlsFault.FOREIGN_DOMAIN: 49,
    TlsFault.NO_IDENTITY: 80,
    TlsFault.NO_CREDENTIAL: 80,
}


def alert(fault: TlsFault) -> bytes:
    """A fatal alert in the clear, for as long as no keys are in use on the sender's side."""
    return bytes((0x15, 3, 3, 0, 2, 2, _ALERTS.get(fault, 40)))


class Session:
    """``outgoing``: what ``take`` empties. ``partial``: a part of a record is here. ``detail``: OpenSSL's words for ``fault``."""

    __slots__ = (
        "_barren",
        "_incoming",
        "_raw",
        "_server",
        "_shut",
        "_tls",
        "detail",
        "ended",
        "fault",
        "handshaken",
        "outgoing",
        "partial",
    )

    def __init__(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname)
        # What ``SSLObject`` itself calls: one Python call less for each record. (micro_tls.py "record")
        self._raw: Any = getattr(self._tls, "_sslobj", self._tls)
        self._server = server_side
        self._shut = False
        self._barren = 0
        self.handshaken = False
        self.partial = False
        self.ended = False
        self.fault: TlsFault | None = None
        self.detail = ""

    # -- from the wire

    def start(self) -> None:
        """A client's first flight; it is in ``take``."""
        self._shake()

    def receive(self, data: bytes) -> bytes:
        """Plaintext, joined. What comes along with the end of the handshake waits for ``read``."""
        if self.handshaken:
            if len(data) > _SLICE:
                return self._sliced(data)
            self._incoming.write(data)
            return self._read(len(data) or _RECORD, len(data))
        self._incoming.write(data)
        self._shake()
        return b""

    def _sliced(self, data: bytes) -> bytes:
        """A large read, piece by piece: OpenSSL's buffers never shrink again, and there is one for every connection."""
        view = memoryview(data)
        parts: list[bytes] = []
        for at in range(0, len(data), _SLICE):
            piece = view[at : at + _SLICE]
            self._incoming.write(piece)
            parts.append(self._read(_RECORD, len(piece)))
        return b"".join(parts)

    def read(self) -> bytes:
        """What came along with the end of the handshake."""
        return self._read(_RECORD, 0) if self.pending else b""

    @property
    def pending(self) -> bool:
        """Bytes from the wire wait for ``read``."""
        return self._incoming.pending > 0

    def _read(self, most: int, came: int) -> bytes:
        """All plaintext that is here. ``most``: no more is to be expected (it costs little if there is more). ``came``: bytes of
        the wire.
        """
        if self.fault is not None or self.ended:
            return b""
        self.partial = False
        tls = self._raw
        incoming = self._incoming
        size = most if most < _RECORD else _RECORD
        parts: list[bytes] | None = None
        data = b""
        # The usual read is one whole record: no exception is provoked to learn that there is no second. (micro_tls.py "echo")
        try:
            while True:
                part = tls.read(size)
                if not part:
                    self.ended = True
                    break
                if parts is not None:
                    parts.append(part)
                elif data:
                    parts = [data, part]
                else:
                    data = part
                if not incoming.pending and not tls.pending():
                    break
        except ssl.SSLWantReadError:
            self.partial = True
        except ssl.SSLZeroReturnError:  # the same as an empty read, but after our own close_notify
            self.ended = True
        except ssl.SSLError as error:
            self._failed(error)
        if data:
            self._barren = 0
        elif not self.ended:
            self._barren += came
            if self._barren > _BARREN and self.fault is None:
                self.fault, self.detail = TlsFault.PROTOCOL, "records without data"
        return data if parts is None else b"".join(parts)

    def take(self) -> bytes:
        """What has to go to the wire: the handshake, alerts, answers to key updates."""
        return self.outgoing.read() if self.outgoing.pending else b""

    # -- to the wire

    def send(self, data: bytes) -> bytes:
        """``data`` as records; empty once the session is over."""
        if self._shut or self.fault is not None or not self.handshaken:
            return b""
        write = self._raw.write
        parts: list[bytes] | None = None  # made for what is longer than a record only
        try:
            if len(data) <= _RECORD:
                if data:
                    write(data)
            else:
                parts = []
                view = memoryview(data)
                while view:  # OpenSSL takes a record at a time; it is taken out at once, for what ``_sliced`` says
                    view = view[write(view) :]
                    parts.append(self.outgoing.read())
        except ssl.SSLError as error:
            self._failed(error)
        return b"".join(parts) if parts else self.outgoing.read()

    def finish(self) -> bytes:
        """Our close_notify, once; the peer may go on sending. Also what else had to go."""
        if not self._shut and self.handshaken and self.fault is None:
            self._shut = True
            with suppress(ssl.SSLError):  # it would wait for the peer's
                self._tls.unwrap()
        return self.take()

    def refuse(self, fault: TlsFault) -> bytes:
        """We do not want this peer, although its handshake succeeded; nothing is read or sent any more.

        A TLS 1.2 server has not switched to its keys before its last flight, which has not been taken yet: it can still say
        why. In TLS 1.3 only OpenSSL could, and it does not let us; the caller resets the connection then.
        """
        self.fault = fault
        self.outgoing.read()
        return alert(fault) if self._server and self._tls.version() == "TLSv1.2" else b""

    # -- who is there

    def peer(self) -> Peer | None:
        """The verified peer; None: it showed no certificate, or nobody asked for one."""
        facts: Any = self._tls.getpeercert()
        der = self.certificate
        return read_peer(facts, der) if facts and der else None

    @property
    def certificate(self) -> bytes | None:
        """The peer's, DER."""
        return self._tls.getpeercert(True)

    def secured(self, peer: Peer | None, sni: str, mesh: bool, local: str = "") -> Secured:
        """The connection's facts for its requests. ``local``: the SPIFFE URI that we have shown."""
        tls = self._tls
        cipher = tls.cipher()
        return Secured(
            peer, sni, tls.selected_alpn_protocol() or "", tls.version() or "", cipher[0] if cipher else "", mesh, local
        )

    # -- within

    def _shake(self) -> None:
        if self.fault is not None:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._failed(error)
            return
        self.handshaken = True

    def _failed(self, error: ssl.SSLError) -> None:
        self.detail = _words(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            self.fault = _VERIFY.get(error.verify_code, TlsFault.UNTRUSTED)
        elif error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            self.fault = TlsFault.NO_CERTIFICATE
        else:
            self.fault = TlsFault.PROTOCOL


def _words(error: ssl.SSLError) -> str:
    """``tlsv13 alert certificate required``, or what the verification found."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "").lower().replace("_", " ")
