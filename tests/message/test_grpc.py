"""gRPC told by its bytes as they pass: messages however they are cut, and the status wherever it stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message.grpc import GrpcTally, is_grpc


def message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big") + b"x" * size


@given(st.lists(st.integers(0, 40), max_size=8), st.data())
def test_messages_are_counted_however_they_are_cut(sizes: list[int], data: st.DataObject) -> None:
    whole = b"".join(map(message, sizes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    tally = GrpcTally()
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        tally.request(whole[start:end])
        tally.response(whole[start:end])
    assert tally.asked == tally.told == len(sizes)


@given(st.lists(st.binary(max_size=20)))
def test_nothing_that_comes_breaks_it(pieces: list[bytes]) -> None:
    tally = GrpcTally()
    for piece in pieces:
        tally.request(piece)
    tally.ended([])
    assert 0 <= tally.asked <= len(b"".join(pieces))


def test_the_status_is_in_trailers_or_in_the_head_or_follows_from_http() -> None:
    tally = GrpcTally()
    assert tally.status(200, [(b"grpc-status", b"5")]) == 5
    assert tally.status(503, []) == 14 and tally.status(418, []) == 2 and tally.status(0, []) is None
    tally.ended([(b"grpc-message", b"no"), (b"grpc-status", b"7")])
    assert tally.status(200, [(b"grpc-status", b"5")]) == 7
    for strange in (b"", b"seven", b"-1", b"12345"):
        tally.ended([(b"grpc-status", strange)])
        assert tally.status(200, []) == 2


def test_what_is_grpc() -> None:
    for kind, expected in (
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc-web", False),
        (b"text/plain", False),
    ):
        assert is_grpc([(b"content-type", kind)]) is expected
    assert not is_grpc([])
