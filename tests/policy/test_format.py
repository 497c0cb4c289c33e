"""Command operators, one by one, and Istio's default line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from meshproxy.message.grpc import GrpcTally
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.texts import OPERATORS
from meshproxy.policy import format as formats
from meshproxy.policy.invalid import Invalid


def full() -> ExchangeRecord:
    record = ExchangeRecord(None, 100.0, 1_700_000_000.25)
    record.ended = 100.0425
    record.first_upstream_byte = 100.04
    record.method, record.path, record.authority = b"GET", b"/rate/1?x=1", b"rating:8080"
    record.status = 503
    record.detail = "via upstream"
    record.flags = (Reason.CONNECT_FAILURE, Reason.RETRY_EXHAUSTED)
    record.attempts = 3
    record.cluster_name, record.route_name = "outbound|8080||rating.default.svc.cluster.local", "default"
    record.endpoint = SimpleNamespace(address="127.1.0.2", port=8080)
    record.body_received, record.body_sent = 7, 19
    record.request_headers = [(b"user-agent", b"curl/8"), (b"x-request-id", b"0123-4567"), (b"x-forwarded-for", b"1.2.3.4")]
    record.response_headers = [(b"x-envoy-upstream-service-time", b"40")]
    record.downstream_remote, record.downstream_local = ("127.1.0.1", 40000), ("127.1.0.1", 15001)
    record.upstream_local = ("fe80::1", 40001)
    record.transport_failure = "delayed connect error: Connection refused"
    return record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain 100%%", "plain 100%"),
        ("", ""),
        ("%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(:SCHEME)%", "GET /rate/1?x=1 rating:8080 http"),
        ("%REQ(User-Agent)%|%REQ(NOPE)%", "curl/8|-"),
        ("%REQ(NOPE?USER-AGENT)%|%REQ(USER-AGENT?NOPE)%|%REQ(A?B)%", "curl/8|curl/8|-"),
        ("%REQ(X-REQUEST-ID):4%", "0123"),
        ("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% %RESP(:STATUS)%", "40 503"),
        ("%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%", "HTTP/1.1 503 UF,URX via_upstream"),
        ("%DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "42 40 2"),
        ("%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "7 19 3"),
        ("%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "127.1.0.2:8080 127.1.0.2 8080"),
        ("%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "[fe80::1]:40001 fe80::1"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "127.1.0.1:40000 127.1.0.1"),
        ("%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT%", "127.1.0.1:15001 15001"),
        ("%UPSTREAM_TRANSPORT_FAILURE_REASON%", "delayed connect error: Connection refused"),
        ("%CONNECTION_TERMINATION_DETAILS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%", "- - default"),
        ("%START_TIME%", "2023-11-14T22:13:20.250Z"),
        ("%START_TIME(%Y/%m/%d %s.%3f)%", "2023/11/14 1700000000.250"),
        ("%HOSTNAME%", "pod-1"),
    ],
)
def test_operators(text: str, expected: str) -> None:
    assert formats.compile(text, hostname="pod-1")(full()).decode() == expected


def test_the_default_line() -> None:
    assert formats.compile(formats.ISTIO_DEFAULT)(full()).decode() == (
        '[2023-11-14T22:13:20.250Z] "GET /rate/1?x=1 HTTP/1.1" 503 UF,URX via_upstream - '
        '"delayed connect error: Connection refused" 7 19 42 40 "1.2.3.4" "curl/8" "0123-4567" "rating:8080" "127.1.0.2:8080" '
        "outbound|8080||rating.default.svc.cluster.local [fe80::1]:40001 127.1.0.1:15001 127.1.0.1:40000 - default\n"
    )


def test_the_default_line_of_a_request_that_got_nowhere() -> None:
    record = ExchangeRecord(None, 1.0, 0.0)
    record.ended = 1.0
    assert formats.compile(formats.ISTIO_DEFAULT)(record).decode() == (
        '[1970-01-01T00:00:00.000Z] "- - HTTP/1.1" 0 - via_upstream - "-" 0 0 0 - "-" "-" "-" "-" "-" - - - - - -\n'
    )


def test_an_original_path_is_preferred() -> None:
    record = full()
    record.request_headers = [(b"x-envoy-original-path", b"/before")]
    assert formats.compile("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%")(record) == b"/before"


def test_an_original_path_shows_no_token() -> None:
    record = full()
    record.request_headers = [(b"x-envoy-original-path", b"/before?access_token=SECRET&a=1")]
    record.hidden_params = frozenset([b"access_token"])
    for text in ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "%REQ(X-ENVOY-ORIGINAL-PATH)%", "%PATH(ORIG)%"):
        assert formats.compile(text)(record) == b"/before?a=1"


def test_free_text_cannot_break_the_line() -> None:
    record = full()
    record.route_name = "a\r\nb"
    assert formats.compile("%ROUTE_NAME%")(record) == b"a  b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("%", "%%"),
        ("50% off", "%%"),
        ("%DURATOIN%", "did you mean %DURATION%?"),
        ("%NOPE_NOPE%", "unknown or unsupported operator"),
        ("%REQ()%", "needs one header name"),
        ("%REQ%", "needs one header name"),
        ("%REQ(a?b?c)%", "needs one header name"),
        ("%REQ(:nope)%", "no such pseudo header"),
        ("%RESP(:path)%", "no such pseudo header"),
        ("%PROTOCOL(x)%", "no argument"),
        ("%QUERY_PARAM%", "needs the name"),
        ("%GRPC_STATUS(camel)%", "CAMEL_STRING"),
        ("%PATH(x)%", "must be one of WQ"),
    ],
)
def test_bad_formats(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        formats.compile(text, "here")
    assert caught.value.path == "here"
    assert says in caught.value.message


def test_the_shared_list_of_operators_is_what_compiles() -> None:
    special = ("START_TIME", "HOSTNAME", "REQ", "RESP", "GRPC_STATUS", "PATH", "QUERY_PARAM")
    assert set(OPERATORS) == {*formats._PLAIN, *special}
    for name in OPERATORS:
        formats.compile(f"%{name}(x)%" if name in ("REQ", "RESP", "QUERY_PARAM") else f"%{name}%")


def test_tls_operators_tell_of_each_side() -> None:
    peer = Peer(identity="spiffe://d/ns/n/sa/a", serial="ab", digest="cd", subject="CN=me", uris=("spiffe://d/ns/n/sa/a",))
    made = full()
    made.secured = Secured(peer, "outbound_.80_._.b", "istio", "TLSv1.3", "TLS_AES_256_GCM_SHA384", True, "spiffe://d/ns/n/sa/b")
    text = "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_SERIAL%"
    assert formats.compile(text)(made) == b"spiffe://d/ns/n/sa/a spiffe://d/ns/n/sa/b CN=me ab"
    text = "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %DOWNSTREAM_PEER_FINGERPRINT_256% %REQUESTED_SERVER_NAME%"
    assert formats.compile(text)(made) == b"TLSv1.3 TLS_AES_256_GCM_SHA384 cd outbound_.80_._.b"
    assert formats.compile("%UPSTREAM_PEER_URI_SAN% %UPSTREAM_TLS_VERSION%")(made) == b"- -"
    made.secured = Secured(None, "shop", version="TLSv1.2")
    assert formats.compile("%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_TLS_VERSION%")(made) == b"- TLSv1.2"


def test_grpc_operators() -> None:
    made = full()
    text = "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER% %GRPC_STATUS(NUMBER)%"
    assert formats.compile(text)(made) == b"- - - -"
    made.grpc = GrpcTally()
    made.grpc.ended([(b"grpc-status", b"1")])
    assert formats.compile(text)(made) == b"Canceled CANCELLED 1 1"
    made.grpc.ended([(b"grpc-status", b"99")])
    assert formats.compile(text)(made) == b"99 99 99 99"


def test_paths_and_their_parameters() -> None:
    made = full()
    made.path = b"/a/b?x=1&y=2"
    text = "%PATH% %PATH(NQ)% %PATH(WQ:ORIG)% %QUERY_PARAM(y)% %QUERY_PARAM(z)%"
    assert formats.compile(text)(made) == b"/a/b?x=1&y=2 /a/b /a/b?x=1&y=2 2 -"
    made.request_headers = [(b"x-envoy-original-path", b"/old?o=1")]
    assert formats.compile("%PATH(NQ)% %PATH(NQ:PATH)% %PATH(WQ:ORIG)%")(made) == b"/old /a/b /old?o=1"


def test_the_trace_of_a_request_that_is_not_sampled() -> None:
    made = full()
    assert formats.compile("%TRACE_ID%")(made) == b"-"
    made.request_headers = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
    assert formats.compile("%TRACE_ID%")(made) == b"0af7651916cd43dd8448eb211c80319c"


def test_flags_in_full() -> None:
    made = full()
    made.flags = ()
    made.flag(Reason.UPSTREAM_TERMINATION)
    made.flag(Reason.RETRY_EXHAUSTED)
    assert formats.compile("%RESPONSE_FLAGS_LONG%")(made) == b"UpstreamConnectionTermination,UpstreamRetryLimitExceeded"
    for reason in Reason:
        if reason.flag:
            made.flags = (reason,)
            assert formats.compile("%RESPONSE_FLAGS_LONG%")(made)


def test_sizes_on_the_wire() -> None:
    made = full()
    made.request_size, made.body_received, made.response_size, made.body_sent = 340, 40, 1400, 1000
    text = "%REQUEST_HEADERS_BYTES% %DOWNSTREAM_WIRE_BYTES_RECEIVED% %RESPONSE_HEADERS_BYTES% %DOWNSTREAM_WIRE_BYTES_SENT%"
    assert formats.compile(text)(made) == b"300 340 400 1400"
