"""What annotations may say: every one with good and bad values, each refusal naming its path and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from injector.annotations import TABLE, BadPod, check_settings, read
from injector.settings import BadSettings, Proxy, Settings

S, T, R = "sidecar.istio.io", "traffic.sidecar.istio.io", "readiness.status.sidecar.istio.io"
CONFIG = "proxy.istio.io/config"
FLAGS = ("capNetBindService", "nativeSidecar", "rewriteAppHTTPProbers", "statsCompression")
PORTS = ("includeInboundPorts", "excludeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts")

GOOD: list[tuple[str, str, Any]] = [
    (f"{S}/proxyCPU", "100m", "100m"),
    (f"{S}/proxyCPULimit", "1.5", "1.5"),
    (f"{S}/proxyMemory", "128Mi", "128Mi"),
    (f"{S}/proxyMemoryLimit", "1e9", "1e9"),
    (f"{S}/proxyImage", "reg.io:5000/a/b@sha256:0123", "reg.io:5000/a/b@sha256:0123"),
    (f"{S}/proxyImageType", "debug", "debug"),
    (f"{S}/interceptionMode", "NONE", "NONE"),
    (f"{S}/interceptionMode", "REDIRECT", "REDIRECT"),
    (f"{S}/bootstrapOverride", "boot.strap-1", "boot.strap-1"),
    (f"{S}/capNetBindService", "1", True),
    (f"{S}/userVolume", '{"a": {"emptyDir": {}}}', ({"name": "a", "emptyDir": {}},)),
    (f"{S}/userVolume", '[{"name": "a"}]', ({"name": "a"},)),
    (f"{S}/userVolumeMount", '{"a": {"mountPath": "/a"}}', ({"name": "a", "mountPath": "/a"},)),
    (f"{S}/logLevel", "trace", "trace"),
    (f"{S}/componentLogLevel", "rbac:debug, misc:error", "rbac:debug,misc:error"),
    (f"{S}/agentLogLevel", "default:info,dns:debug", "default:info,dns:debug"),
    (f"{S}/nativeSidecar", "t", True),
    (f"{S}/rewriteAppHTTPProbers", "False", False),
    (f"{S}/statsInclusionPrefixes", "cluster.outbound", "cluster.outbound"),
    (f"{S}/statsInclusionSuffixes", "x", "x"),
    (f"{S}/statsInclusionRegexps", "(", "("),
    (f"{S}/statsHistogramBuckets", "{}", "{}"),
    (f"{S}/statsCompression", "true", True),
    (f"{S}/extraStatTags", "a,b", "a,b"),
    (f"{S}/inject", "whatever", "whatever"),
    ("status.sidecar.istio.io/port", "0", 0),
    ("status.sidecar.istio.io/port", "65535", 65535),
    (f"{R}/initialDelaySeconds", "0", 0),
    (f"{R}/periodSeconds", "1", 1),
    (f"{R}/failureThreshold", "30", 30),
    (f"{R}/applicationPorts", "80,81", "80,81"),
    (f"{T}/includeOutboundIPRanges", "*", "*"),
    (f"{T}/includeOutboundIPRanges", "10.0.0.1/8, 2001:db8::/32", "10.0.0.1/8,2001:db8::/32"),
    (f"{T}/includeOutboundIPRanges", "", ""),
    (f"{T}/excludeOutboundIPRanges", "1.2.3.4/32", "1.2.3.4/32"),
    (f"{T}/includeInboundPorts", "*", "*"),
    (f"{T}/includeInboundPorts", "", ""),
    (f"{T}/excludeInboundPorts", "1, 65535", "1,65535"),
    (f"{T}/includeOutboundPorts", "80", "80"),
    (f"{T}/excludeOutboundPorts", "80", "80"),
    (f"{T}/excludeInterfaces", "eth0,net-1", "eth0,net-1"),
    (f"{T}/kubevirtInterfaces", "net1", "net1"),
    ("istio.io/reroute-virtual-interfaces", "net1", "net1"),
    ("prometheus.istio.io/merge-metrics", "false", False),
    ("istio.io/rev", "canary", "canary"),
    ("inject.istio.io/templates", " gateway ", ("gateway",)),
    ("inject.istio.io/templates", "sidecar,sidecar", ("sidecar", "sidecar")),
    (CONFIG, "", {}),
    (CONFIG, "concurrency: null", {}),
    (CONFIG, "concurrency: 0\ndrainDuration: 1m30s", {"concurrency": 0, "drainDuration": "1m30s"}),
    (CONFIG, "tracing: {sampling: 12.5, zipkin: {address: a:1}}", {"tracing": {"sampling": 12.5, "zipkin": {"address": "a:1"}}}),
    (CONFIG, 'proxyMetadata: {A_B: "1"}', {"proxyMetadata": {"A_B": "1"}}),
    (CONFIG, "image: {imageType: distroless}", {"image": {"imageType": "distroless"}}),
    (CONFIG, "gatewayTopology: {numTrustedProxies: 2}", {"gatewayTopology": {"numTrustedProxies": 2}}),
    (CONFIG, "discoveryAddress: istiod.x.svc:15012", {"discoveryAddress": "istiod.x.svc:15012"}),
]

BAD: list[tuple[str, str, str]] = [
    *((f"{S}/{name}", "lots", 'must be a quantity such as 100m or 128Mi, not "lots"') for name in ("proxyCPU", "proxyCPULimit")),
    *((f"{S}/{name}", "-1", "must be a quantity") for name in ("proxyMemory", "proxyMemoryLimit")),
    (f"{S}/proxyCPU", "1e999999999", "must be a quantity"),
    (f"{S}/proxyImage", "two words", "must be the name of an image"),
    (f"{S}/proxyImage", "", "must be the name of an image"),
    (f"{S}/proxyImageType", "slim", 'must be default, debug or distroless, not "slim"'),
    (f"{S}/interceptionMode", "TPROXY", "TPROXY is not supported: this sidecar intercepts by REDIRECT"),
    (f"{S}/interceptionMode", "redirect", 'must be REDIRECT or NONE, not "redirect"'),
    (f"{S}/bootstrapOverride", "Not A Name", "must be the name of a ConfigMap"),
    (f"{S}/userVolume", "[", "must be JSON such as"),
    (f"{S}/userVolume", '{"a": 1}', "must be JSON such as"),
    (f"{S}/userVolume", '{"A": {}}', "is no name of a volume"),
    (f"{S}/userVolumeMount", '{"a": {}}', "a: needs mountPath"),
    (f"{S}/logLevel", "loud", "must be trace, debug, info"),
    (f"{S}/componentLogLevel", "debug", "must be like misc:error,rbac:debug"),
    (f"{S}/componentLogLevel", "a:loud", "must be trace"),
    (f"{S}/agentLogLevel", "", "must be like default:info"),
    (f"{S}/agentLogLevel", "default:loud", "must be none, error, warn, info or debug"),
    *((f"{S}/{name}", "yes", 'must be "true" or "false", not "yes"') for name in FLAGS),
    (f"{S}/status", "{", "is not what an injector wrote: remove it"),
    (f"{S}/status", '{"containers": 1}', "is not what an injector wrote"),
    ("status.sidecar.istio.io/port", "65536", "must be a port from 0 to 65535"),
    ("status.sidecar.istio.io/port", "²", "must be a port"),
    (f"{R}/initialDelaySeconds", "-1", "must be a whole number from 0 to 4294967295"),
    (f"{R}/initialDelaySeconds", "4294967295", "must be at most 2147483647"),
    (f"{R}/periodSeconds", "1s", "must be a whole number"),
    (f"{R}/periodSeconds", "0", "must be at least 1"),
    (f"{R}/failureThreshold", "0", "must be at least 1"),
    (f"{R}/applicationPorts", "http", "must be ports from 1 to 65535"),
    *((f"{T}/{name}", "80;443", "must be ports from 1 to 65535, with commas between") for name in PORTS),
    (f"{T}/excludeInboundPorts", "*", '"*" is none'),
    (f"{T}/includeInboundPorts", "80,,90", '"" is none'),
    (f"{T}/includeInboundPorts", "0", '"0" is none'),
    (f"{T}/includeOutboundIPRanges", "10.0.0.1", '"10.0.0.1" is none: write /32 or /128 for one address'),
    (f"{T}/includeOutboundIPRanges", "10.0.0.0/33", "must be ranges such as 10.0.0.0/8"),
    (f"{T}/excludeOutboundIPRanges", "*", "must be ranges"),
    (f"{T}/excludeInterfaces", "eth0; reboot", "must be names of network interfaces"),
    (f"{T}/kubevirtInterfaces", "averyverylonginterface", "must be names of network interfaces"),
    ("istio.io/reroute-virtual-interfaces", "a b", "must be names of network interfaces"),
    ("prometheus.istio.io/merge-metrics", "", 'must be "true" or "false"'),
    ("inject.istio.io/templates", "grpc-agent", "the template grpc-agent is not supported: proxyless gRPC"),
    ("inject.istio.io/templates", "grpc-simple", "the template grpc-simple is not supported"),
    ("inject.istio.io/templates", "mine", 'there is no template "mine": sidecar and gateway'),
    ("inject.istio.io/templates", "sidecar,gateway", "must name one template"),
    ("inject.istio.io/templates", "", "must name one template"),
    ("proxy.istio.io/overrides", "{", "must be JSON such as"),
    ("proxy.istio.io/overrides", '{"containers": [{}]}', "every container needs a name"),
    (CONFIG, "[", "cannot be read as YAML: line 2"),
    (CONFIG, "a", "must be an object such as concurrency: 2"),
    (CONFIG, "concurency: 2", "concurency: is no field of a ProxyConfig, did you mean concurrency?"),
    (CONFIG, "concurrency: -1", "concurrency: must be a number of workers"),
    (CONFIG, "concurrency: true", "concurrency: must be a number of workers"),
    (CONFIG, "drainDuration: 45", "drainDuration: must be a duration"),
    (CONFIG, "interceptionMode: TPROXY", "interceptionMode: TPROXY is not supported"),
    (CONFIG, "proxyMetadata: {A: 1}", 'proxyMetadata.A: must be a text: put it in quotes, "1"'),
    (CONFIG, "proxyMetadata: {A: yes}", 'proxyMetadata.A: must be a text: put it in quotes, "true"'),
    (CONFIG, "proxyMetadata: {'A=B': x}", "proxyMetadata: A=B: is no name of a variable"),
    (CONFIG, "tracing: {sampling: 101}", "tracing.sampling: must be a percentage"),
    (CONFIG, "image: {imageType: slim}", "image.imageType: must be default, debug or distroless"),
    (CONFIG, "holdApplicationUntilProxyStarts: 1", "holdApplicationUntilProxyStarts: must be true or false"),
    (CONFIG, "statusPort: 70000", "statusPort: must be a port"),
    (CONFIG, "discoveryAddress: https://x", "discoveryAddress: must be like istiod"),
    (CONFIG, "a: &a [1]\nb: *a", "aliases (*name) are not accepted"),
    (CONFIG, "[" * 1000, "nested deeper than"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_good(name: str, text: str, expected: Any) -> None:
    assert read({name: text, "acme.io/other": "(", "x": "y"}) == {name: expected}


@pytest.mark.parametrize(("name", "text", "expected"), BAD)
def test_bad(name: str, text: str, expected: str) -> None:
    with pytest.raises(BadPod) as caught:
        read({name: text})
    (line,) = caught.value.errors
    assert line.startswith(f"metadata.annotations[{name}]: ")
    assert expected in line
    assert "\n" not in line
    assert len(line) < 500


def test_every_annotation_is_tried() -> None:
    free = {f"{S}/statsInclusionPrefixes", f"{S}/statsInclusionSuffixes", f"{S}/statsInclusionRegexps", f"{S}/extraStatTags"}
    free |= {f"{S}/statsHistogramBuckets", f"{S}/inject", "istio.io/rev"}
    assert {name for name, *_ in BAD} | free == set(TABLE)
    written = {f"{S}/status", "proxy.istio.io/overrides"}  # by an injection, see test_pod
    assert {name for name, *_ in GOOD} | written == set(TABLE)


def test_all_faults_at_once_and_what_contradicts() -> None:
    with pytest.raises(BadPod) as caught:
        read({f"{S}/proxyCPU": "x", f"{S}/nativeSidecar": "x"}, "spec.template.metadata.annotations")
    assert len(caught.value.errors) == 2
    assert all(line.startswith("spec.template.metadata.annotations[") for line in caught.value.errors)
    with pytest.raises(BadPod, match=r"must be at least sidecar\.istio\.io/proxyMemory, which is 1Gi, not 100M"):
        read({f"{S}/proxyMemory": "1Gi", f"{S}/proxyMemoryLimit": "100M"})
    assert read({f"{S}/proxyCPU": "1000m", f"{S}/proxyCPULimit": "1"})


def test_no_text() -> None:
    assert read({f"{S}/proxyCPU": None}) == {}
    with pytest.raises(BadPod, match="must be a text: put it in quotes"):
        read({f"{S}/proxyCPU": 1})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings(proxy=Proxy(log_level="loud")), "values.proxy.logLevel: must be trace"),
        (Settings(proxy=Proxy(include_outbound_ip_ranges="x")), "values.proxy.includeOutboundIPRanges: must be ranges"),
        (Settings(proxy=Proxy(exclude_inbound_ports="x")), "values.proxy.excludeInboundPorts: must be ports"),
        (Settings(proxy_config={"concurrency": "2"}), "values.proxyConfig.concurrency: must be a number"),
    ],
)
def test_settings_keep_the_same_forms(settings: Settings, line: str) -> None:
    with pytest.raises(BadSettings) as caught:
        check_settings(settings)
    assert str(caught.value).startswith(line)
