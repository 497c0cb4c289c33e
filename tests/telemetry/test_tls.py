"""TLS as metrics: by side and reason; plaintext callers added up by workload; no certificate, no expiry."""

from __future__ import annotations

import logging

import pytest

from meshproxy.message.secured import TlsFault
from meshproxy.telemetry.tls import tls_families
from meshproxy.tls.tally import Tally
from meshproxy.tls.vault import Vault
from tests.certs import spiffe
from tests.tls.pair import ROOT


def test_families() -> None:
    vault = Vault()
    vault.tally.handshake("client")
    vault.tally.failure("server", TlsFault.EXPIRED, "10.0.0.1", "", 0.0)
    vault.tally.failure("server", TlsFault.EXPIRED, "10.0.0.1", "", 0.0)
    row = {
        "listener": "inbound|80",
        "source": "10.0.0.7",
        "workload": "web-v1",
        "namespace": "default",
        "requests": 3,
        "seen": 1.0,
    }
    rows = [row, {**row, "source": "10.0.0.8"}, {**row, "workload": "", "namespace": ""}]
    handshakes, failures, expiry, plaintext = tls_families(vault, rows)
    assert {one.labels: one.value for one in handshakes.rows} == {("server",): 0, ("client",): 1}
    assert {one.labels: one.value for one in failures.rows} == {("server", "expired"): 2}
    assert expiry.rows == []
    assert {one.labels: one.value for one in plaintext.rows} == {
        ("inbound|80", "web-v1", "default"): 6,
        ("inbound|80", "unknown", "unknown"): 3,
    }
    identity = ROOT.identity(spiffe("book"))
    vault.identify(identity)
    assert [one.value for one in tls_families(vault, ())[2].rows] == [identity.expires]


def test_a_reason_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "meshproxy")
    tally = Tally()
    for now in (0.0, 1.0, 9.0, 11.0):
        tally.failure("server", TlsFault.UNKNOWN_NAME, "10.0.0.1", "a\nb", now)
    tally.failure("client", TlsFault.UNKNOWN_NAME, "10.0.0.1", "", 11.0)
    first, second, other = [record.getMessage() for record in caplog.records]
    assert first == "TLS server: 10.0.0.1 refused: no server here has the name that was asked for (a\\nb)"
    assert second.endswith("; 2 more since the last line") and other.startswith("TLS client: ")
    assert tally.failures == {("server", TlsFault.UNKNOWN_NAME): 4, ("client", TlsFault.UNKNOWN_NAME): 1}
