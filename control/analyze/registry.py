"""Analysis, the table of checks: what runs, in which order, and which codes each may give.

In: nothing. Out: ``CHECKS``. A new check is a function ``Scene -> Iterable[Finding]`` in a family's file and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from control.analyze import (
    destinations,
    gateways,
    hosts,
    injection,
    mutual_tls,
    policies,
    ports,
    references,
    resilience,
    rules,
    schema,
    selectors,
    streams,
    telemetry,
)
from control.analyze.finding import Finding
from control.analyze.scene import Scene

__all__ = ["CHECKS", "Check"]


class Check(NamedTuple):
    """``name`` is shown by ``meshctl analyze -L``."""

    name: str
    codes: tuple[str, ...]
    run: Callable[[Scene], Iterable[Finding]]


CHECKS: tuple[Check, ...] = (
    Check("schema.Validation", ("IST0106", "IST0133", "IST0002", "MESH0006"), schema.validation),
    Check("schema.Duplicates", ("MESH0010",), schema.duplicates),
    Check("virtualservice.Gateways", ("IST0101",), references.gateways),
    Check("virtualservice.Destinations", ("IST0101", "IST0112"), references.destinations),
    Check("virtualservice.Delegates", ("IST0101",), references.delegates),
    Check("gateway.Secrets", ("IST0101", "IST0161"), references.secrets),
    Check("virtualservice.Conflicts", ("IST0109",), hosts.conflicts),
    Check("virtualservice.GatewayHosts", ("IST0132",), hosts.not_in_gateway),
    Check("virtualservice.UnknownHosts", ("MESH0009",), hosts.unknown),
    Check("virtualservice.Rules", ("IST0130", "IST0131"), rules.reach),
    Check("virtualservice.JwtClaims", ("IST0149",), gateways.claims),
    Check("virtualservice.Timeouts", ("MESH0003",), resilience.timeouts),
    Check("virtualservice.Faults", ("MESH0004",), resilience.faults),
    Check("virtualservice.Retries", ("MESH0002",), resilience.retries),
    Check("virtualservice.EmptyTargets", ("MESH0005", "MESH0007"), destinations.empty_targets),
    Check("destinationrule.Hosts", ("IST0174",), destinations.unknown_hosts),
    Check("destinationrule.Subsets", ("IST0173",), destinations.empty_subsets),
    Check("destinationrule.Conflicts", ("MESH0008",), destinations.conflicts),
    Check("destinationrule.Ejection", ("MESH0001",), resilience.ejection),
    Check("gateway.Conflicts", ("IST0145",), gateways.conflicts),
    Check("gateway.Workloads", ("IST0101", "IST0162"), gateways.workloads),
    Check("service.PortNames", ("IST0118",), ports.names),
    Check("service.ServerFirst", ("MESH0025",), streams.server_first),
    Check("serviceentry.Places", ("MESH0026",), streams.claims),
    Check("virtualservice.Bytes", ("MESH0027",), streams.unused_rules),
    Check("sidecar.Conflicts", ("IST0110", "IST0111"), selectors.sidecars),
    Check("workload.Selectors", ("IST0127",), selectors.matching),
    Check("telemetry.Conflicts", ("IST0159", "IST0160"), telemetry.conflicts),
    Check("telemetry.Providers", ("IST0101", "IST0157"), telemetry.providers),
    Check("peerauthentication.Duplicates", ("MESH0019",), mutual_tls.duplicates),
    Check("peerauthentication.Callers", ("MESH0015",), mutual_tls.turned_away),
    Check("destinationrule.Tls", ("IST0113",), mutual_tls.destination_rules),
    Check("destinationrule.Credentials", ("IST0101", "MESH0023"), mutual_tls.credentials),
    Check("authorizationpolicy.AllowsNothing", ("MESH0013",), policies.allows_nothing),
    Check("authorizationpolicy.Tokens", ("MESH0012",), policies.tokens),
    Check("authorizationpolicy.Identities", ("MESH0011", "MESH0018"), policies.identities),
    Check("authorizationpolicy.Authorisers", ("MESH0016",), policies.authorisers),
    Check("authorizationpolicy.Paths", ("MESH0020", "MESH0021"), policies.paths),
    Check("authorizationpolicy.Methods", ("MESH0022",), policies.methods),
    Check("authorizationpolicy.Bytes", ("MESH0024",), streams.http_rules),
    Check("requestauthentication.Alone", ("MESH0014",), policies.tokens_alone),
    Check("requestauthentication.Keys", ("MESH0017",), policies.key_sets),
    Check("injection.Pods", ("IST0102", "IST0103", "IST0123"), injection.pods),
)
