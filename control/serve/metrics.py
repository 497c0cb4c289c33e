"""What control measures about itself (room ``serve``), under Istio's names where Istio has one.

In: events of serving. Out: a registry for :15014. One instance per process part, no global registry.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

from control.resources.kinds import Kind as Resource
from meshproxy.model.delivery import ORDER, Kind

__all__ = ["Metrics"]

_SHORT = {"cluster": "cds", "endpoints": "eds", "route": "rds", "listener": "lds", "secret": "sds"}  # others: by their own name


class Metrics:
    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self.connected = Gauge("pilot_xds", "Sidecars with an open configuration stream.", registry=registry)
        # The library would append _total to a counter's name; Istio's dashboards ask for these names as they are.
        self.pushes = Gauge("pilot_xds_pushes", "Pushes sent, by kind of resource in them.", ["type"], registry=registry)
        self.push_bytes = Counter("mesh_push_bytes", "Bytes of pushes sent.", registry=registry)
        self.rejects = Gauge("pilot_total_xds_rejects", "Pushes that a sidecar refused.", registry=registry)
        self.convergence = Histogram(
            "pilot_proxy_convergence_time",
            "Seconds from the first change of a batch until a sidecar has confirmed it.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=registry,
        )
        self.translation = Histogram(
            "mesh_translation_seconds",
            "Seconds to bring the world and all connected sidecars' snapshots up to date, per batch.",
            buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=registry,
        )
        self.failures = Counter("mesh_translation_failures", "Snapshots that could not be computed.", registry=registry)
        self.store_version = Gauge("mesh_store_version", "Newest version of the store that was read.", registry=registry)
        self.world_version = Gauge("mesh_world_version", "Version of the store that snapshots are made from.", registry=registry)
        self.superseded = Counter("mesh_streams_superseded", "Streams ended by a newer one of the same pod.", registry=registry)
        ca = "citadel_server_"
        self.csr_count = Gauge(f"{ca}csr_count", "Certificate requests received.", registry=registry)
        self.issued = Gauge(f"{ca}success_cert_issuance_count", "Certificates issued to sidecars.", registry=registry)
        self.csr_errors = Gauge(f"{ca}csr_parsing_err_count", "Certificate requests that could not be read.", registry=registry)
        self.csr_refused = Gauge(f"{ca}id_extraction_err_count", "Requests for what is not the caller's.", registry=registry)
        self.unauthenticated = Gauge(f"{ca}authentication_failure_count", "Requests without a valid token.", registry=registry)
        self.root_expiry = Gauge(f"{ca}root_cert_expiry_timestamp", "When the root ends, in Unix seconds.", registry=registry)
        self.issuer_expiry = Gauge(f"{ca}cert_chain_expiry_timestamp", "When the issuer ends, Unix seconds.", registry=registry)
        jwks = "pilot_jwks_resolver_network_fetch_"
        self.jwks_fetched = Counter(f"{jwks}success", "Key sets of token issuers that were fetched.", registry=registry)
        self.jwks_failed = Counter(f"{jwks}fail", "Key sets of token issuers that could not be fetched.", registry=registry)
        self.services = Gauge("pilot_services", "Services known to the mesh.", registry=registry)
        self.virtual_services = Gauge("pilot_virt_services", "VirtualServices known to the mesh.", registry=registry)
        conflict = "pilot_conflict_"
        self.conflict_rules = Gauge(
            f"{conflict}destination_rules", "Hosts with several DestinationRules in one namespace.", registry=registry
        )
        self.conflict_hosts = Gauge(
            f"{conflict}virtual_service_hosts", "Hosts of several VirtualServices for sidecars.", registry=registry
        )
        self.translation_problems = Gauge("mesh_config_problems", "What could not be done as written.", registry=registry)
        galley = "galley_validation_"
        self.validated = Gauge(f"{galley}passed", "Objects that were judged and taken.", ["group", "resource"], registry=registry)
        self.invalid = Gauge(f"{galley}failed", "Objects that were judged and refused.", ["group", "resource"], registry=registry)
        self.reports = Counter("mesh_reports", "Reports of sidecars that were taken.", registry=registry)
        self.reports_refused = Counter("mesh_reports_refused", "Reports of sidecars that could not be.", registry=registry)
        self.reports_dropped = Counter("mesh_reports_dropped_calls", "Kinds of calls left out of reports.", registry=registry)
        self.history_records = Gauge("mesh_history_records", "Records of the short history.", registry=registry)
        self.history_calls = Gauge("mesh_history_calls", "Kinds of calls in the short history.", registry=registry)
        self._kinds = {kind: self.pushes.labels(_SHORT.get(kind, kind)) for kind in ORDER}

    def judged(self, kind: Resource, good: bool) -> None:
        if kind.is_mesh:  # of the others Istio's webhook hears nothing, and pods' states would drown them
            (self.validated if good else self.invalid).labels(kind.group, kind.plural).inc()

    def pushed(self, kinds: Iterable[Kind], size: int) -> None:
        for kind in kinds:
            self._kinds[kind].inc()
        self.push_bytes.inc(size)

    def text(self) -> bytes:
        return generate_latest(self.registry)
