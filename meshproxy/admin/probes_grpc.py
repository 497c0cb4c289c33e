"""Admin room: one question of gRPC's health protocol (grpc.health.v1.Health/Check), over plain HTTP/2. Loud only by its streams.

In: an open connection, whom to ask about. Out: "" when it serves, else one line. The messages are small enough to be read and
written here: a request is one string (field 1), an answer one enum (field 1, 1 is SERVING).
"""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.exceptions

__all__ = ["check"]

_STATES = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_UNIMPLEMENTED = "12"
_MAX_ANSWER = 1024


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str, user_agent: str) -> str:
    """Raises ``OSError`` when the connection breaks."""
    machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    machine.initiate_connection()
    stream = machine.get_next_available_stream_id()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", user_agent or "meshproxy"),
    ]
    machine.send_headers(stream, headers)
    machine.send_data(stream, _framed(service.encode()), end_stream=True)
    said: dict[str, str] = {}
    body = b""
    try:
        while True:
            if out := machine.data_to_send():
                writer.write(out)
                await writer.drain()
            data = await reader.read(16 * 1024)
            if not data:
                return "the app closed the connection without an answer"
            for event in machine.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    said.update((str(name), str(value)) for name, value in event.headers or ())
                elif isinstance(event, h2.events.DataReceived):
                    body += (event.data or b"")[:_MAX_ANSWER]
                    machine.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                elif isinstance(event, h2.events.StreamEnded):
                    return _judged(said, body)
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return "the app refused the call"
    except h2.exceptions.ProtocolError as error:
        return f"the app does not speak gRPC: {type(error).__name__}"


def _framed(name: bytes) -> bytes:
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _judged(said: dict[str, str], body: bytes) -> str:
    if said.get(":status") != "200":
        return f"the app answered {said.get(':status')}, not as gRPC does"
    code = said.get("grpc-status", "")
    if code == _UNIMPLEMENTED:
        return "the app does not implement grpc.health.v1.Health"
    if code != "0":
        return f"the app's health check failed with grpc-status {code[:20] or 'missing'}"
    state = _state(body)
    return "" if state == 1 else f"the app's service is {_STATES.get(state, 'UNKNOWN')}"


def _state(body: bytes) -> int:
    """Field 1 of the message; others, which later versions may add, are numbers or they end the reading."""
    at, state = 5, 0
    while at < len(body):
        key, at = _number(body, at)
        if key & 7:
            break
        value, at = _number(body, at)
        if key == 0x08:
            state = value
    return state


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at
