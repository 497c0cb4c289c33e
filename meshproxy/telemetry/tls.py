"""Telemetry room: handshakes, their failures, our certificate's end, and who calls in plaintext, as metrics.

In: the vault, and the rows of ``DataPath.plaintext``. Out: families; nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.labels import UNKNOWN
from meshproxy.tls.vault import Vault

__all__ = ["tls_families"]


def tls_families(vault: Vault, plaintext: Iterable[dict[str, Any]]) -> list[Family]:
    tally = vault.tally
    calls: dict[tuple[str, str, str], float] = {}
    for row in plaintext:
        key = (row["listener"], row["workload"] or UNKNOWN, row["namespace"] or UNKNOWN)
        calls[key] = calls.get(key, 0.0) + row["requests"]
    identity = vault.identity
    return [
        Family(
            "mesh_tls_handshakes_total",
            "counter",
            "TLS handshakes that succeeded, the peer's judgement included.",
            ("side",),
            [Row((side,), float(number)) for side, number in tally.handshakes.items()],
            stat="tls.{}.handshakes",
        ),
        Family(
            "mesh_tls_failures_total",
            "counter",
            "TLS connections that were refused or failed.",
            ("side", "reason"),
            [Row((side, fault.name.lower()), float(number)) for (side, fault), number in sorted(tally.failures.items(), key=str)],
            stat="tls.{}.failures.{}",
        ),
        Family(
            "mesh_certificate_expiry_timestamp_seconds",
            "gauge",
            "When this proxy's own certificate ends, Unix time.",
            (),
            [Row((), identity.expires)] if identity is not None else [],
            stat="tls.certificate_expiry",
            merge="min",
        ),
        Family(
            "mesh_plaintext_requests_total",
            "counter",
            "Requests in plaintext where mutual TLS is welcome (PERMISSIVE), by who sent them.",
            ("listener", "source_workload", "source_workload_namespace"),
            [Row(key, number) for key, number in sorted(calls.items())],
            stat="tls.plaintext.{}.{}.{}",
        ),
    ]
