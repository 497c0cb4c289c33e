"""Analysis, codes: what every finding's code means. IST numbers and names are Istio's, so that its documentation helps;
MESH numbers are checks that Istio does not have.

In: nothing. Out: ``CODES``. A level may differ from Istio's where the consequence here does; the summary then says why.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["CODES", "LEVELS", "Code", "Level"]

Level = Literal["Error", "Warning", "Info"]
LEVELS: tuple[Level, ...] = ("Error", "Warning", "Info")  # worst first


class Code(NamedTuple):
    code: str
    name: str
    level: Level
    summary: str


_ALL = (
    Code("IST0002", "Deprecated", "Warning", "A deprecated field is used."),
    Code("IST0101", "ReferencedResourceNotFound", "Error", "Something that is referred to does not exist."),
    Code("IST0102", "NamespaceNotInjected", "Info", "A namespace with pods that have no sidecar is not enabled for injection."),
    Code("IST0103", "PodMissingProxy", "Warning", "A pod of a namespace with injection has no sidecar."),
    Code("IST0106", "SchemaValidationError", "Error", "An object is not valid; the mesh ignores it."),
    Code("IST0109", "ConflictingMeshGatewayVirtualServiceHosts", "Error", "Several VirtualServices speak for one host."),
    Code("IST0110", "ConflictingSidecarWorkloadSelectors", "Error", "Several Sidecars select one pod."),
    Code("IST0111", "MultipleSidecarsWithoutWorkloadSelectors", "Error", "Several Sidecars speak for a whole namespace."),
    Code("IST0112", "VirtualServiceDestinationPortSelectorRequired", "Error", "A destination with several ports names none."),
    Code("IST0113", "MTLSPolicyConflict", "Error", "A DestinationRule's tls is not what the workloads' mutual TLS needs."),
    Code("IST0118", "PortNameIsNotUnderNamingConvention", "Info", "A port's name does not tell its protocol."),
    Code("IST0123", "NamespaceMultipleInjectionLabels", "Warning", "A namespace has two labels about injection."),
    Code("IST0127", "NoMatchingWorkloadsFound", "Warning", "A selector selects no workload."),
    Code("IST0130", "VirtualServiceUnreachableRule", "Warning", "A rule is never used: rules before it take all its requests."),
    Code("IST0131", "VirtualServiceIneffectiveMatch", "Info", "A match is never used: one before it takes all its requests."),
    Code("IST0132", "VirtualServiceHostNotFoundInGateway", "Warning", "A gateway does not serve a VirtualService's host."),
    Code("IST0133", "SchemaWarning", "Warning", "An object is valid, but part of it does nothing or something odd."),
    Code("IST0145", "ConflictingGateways", "Error", "Two Gateways open the same port for the same host on the same pods."),
    Code("IST0149", "JwtClaimBasedRoutingWithoutRequestAuthN", "Error", "Routing by claims where nothing verifies tokens."),
    Code("IST0157", "InvalidTelemetryProvider", "Warning", "An access log without a provider, where there is no default one."),
    Code("IST0159", "ConflictingTelemetryWorkloadSelectors", "Error", "Several Telemetries select one pod."),
    Code("IST0160", "MultipleTelemetriesWithoutWorkloadSelectors", "Error", "Several Telemetries speak for a whole namespace."),
    Code("IST0161", "InvalidGatewayCredential", "Error", "The Secret that a Gateway names cannot be used: handshakes fail."),
    Code("IST0162", "GatewayPortNotDefinedOnService", "Warning", "No Service leads to a Gateway's port."),
    Code("IST0173", "DestinationRuleSubsetNotSelectPods", "Warning", "A subset's labels select no pod of the service."),
    Code("IST0174", "UnknownDestinationRuleHost", "Warning", "A DestinationRule's host is no known service."),
    Code("MESH0001", "EjectionNeverHappens", "Warning", "maxEjectionPercent of so few endpoints is less than one of them."),
    Code("MESH0002", "RetryHasNoOtherHost", "Info", "Retries go to the only endpoint that there is."),
    Code("MESH0003", "PerTryTimeoutNotShorter", "Warning", "A try may take as long as the whole request: no retry has time."),
    Code("MESH0004", "FaultNeverFires", "Warning", "A fault without a percentage, or with 0, never happens."),
    Code("MESH0005", "TrafficToEmptySubset", "Error", "A route sends requests to a subset that selects no pod: 503."),
    Code("MESH0006", "NotHonouredYet", "Warning", "A field is accepted, but nothing obeys it yet."),
    Code("MESH0007", "ServiceWithoutEndpoints", "Warning", "A route sends requests to a service that has no pod: 503."),
    Code("MESH0008", "IgnoredDestinationRulePolicy", "Warning", "Of several DestinationRules for a host the oldest counts."),
    Code("MESH0009", "VirtualServiceForUnknownHost", "Warning", "No service has the name that a VirtualService routes."),
    Code("MESH0010", "DuplicateObject", "Warning", "Files give the same object more than once."),
    Code("MESH0011", "IdentityWithoutMutualTls", "Warning", "A rule asks for an identity that callers in plaintext do not have."),
    Code(
        "MESH0012",
        "ClaimsWithoutRequestAuthentication",
        "Warning",
        "A rule asks for a token's claims where nobody verifies tokens.",
    ),
    Code("MESH0013", "AllowsNothing", "Info", "An ALLOW policy without rules: it denies what no other one allows."),
    Code("MESH0014", "TokensNotDemanded", "Info", "Tokens are verified, but a request without one passes."),
    Code("MESH0015", "PlaintextCallersOfStrict", "Warning", "STRICT shuts out callers that have no sidecar."),
    Code("MESH0016", "UnknownAuthoriser", "Error", "The external authoriser of a CUSTOM policy cannot be asked: all is denied."),
    Code("MESH0017", "KeySetNotFetched", "Error", "The keys of an issuer could not be fetched: its tokens are refused."),
    Code("MESH0018", "ForeignTrustDomain", "Warning", "A rule names a principal of a trust domain that is not this mesh's."),
    Code("MESH0019", "IgnoredPeerAuthentication", "Warning", "Of several PeerAuthentications for one scope the oldest counts."),
    Code("MESH0020", "PathNeverMatches", "Warning", "A rule's path is one that no request has, after normalisation."),
    Code("MESH0021", "DenyLeavesPath", "Info", "A DENY of all that is under a path does not deny the path itself."),
    Code("MESH0022", "MethodNeverMatches", "Warning", "A rule's method is not in capitals, as methods are."),
    Code("MESH0023", "CredentialForGatewaysOnly", "Info", "A sidecar gets a credentialName only where it is selected."),
    Code("MESH0024", "HttpRuleForBytes", "Warning", "A policy asks for something of HTTP at a port that has only bytes."),
    Code("MESH0025", "ServerMaySpeakFirst", "Warning", "A port that is likely not HTTP has a name that does not say so."),
    Code("MESH0026", "ConflictingPlaces", "Warning", "Two services of bytes have the same port and cannot be told apart."),
    Code("MESH0027", "RulesOfAnotherProtocol", "Warning", "tcp or tls rules for a service that has no such port."),
)

CODES: dict[str, Code] = {code.code: code for code in _ALL}
