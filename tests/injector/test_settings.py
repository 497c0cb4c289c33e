"""The settings' file: what may stand there, and what is said of what may not."""

from __future__ import annotations

import pytest

from injector import quantity
from injector.settings import BadSettings, Settings, with_mesh


def test_an_empty_file_is_the_defaults() -> None:
    assert Settings.read("") == Settings.read("{}") == Settings()
    assert Settings().proxy_image.startswith("pymesh/mesh:")


def test_everything() -> None:
    found = Settings.read(
        """
        policy: disabled
        neverInjectSelector: [{matchLabels: {a: b}}, {matchExpressions: [{key: k, operator: In, values: [v]}]}]
        hub: reg.io
        tag: "1"
        nativeSidecars: true
        kubernetesVersion: "1.30"
        meshID: m
        rewriteAppHTTPProbe: false
        proxy:
          includeOutboundIPRanges: 10.0.0.0/8
          resources: {requests: {cpu: 0.5}, limits: {memory: 1Gi}}
        init: {resources: {}, forceApply: true}
        cni: {enabled: true}
        proxyConfig: {concurrency: 2}
        """
    )
    assert (found.policy, found.proxy_image, found.native, found.mesh_id) == ("disabled", "reg.io/mesh:1", True, "m")
    assert found.proxy.include_outbound_ip_ranges == "10.0.0.0/8"
    assert found.never_inject_selector[1].matches({"k": "v"})
    assert (found.cni.enabled, found.init.force_apply, found.proxy_config) == (True, True, {"concurrency": 2})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[", "values: cannot be read as YAML: line"),
        ("a", "values: expected `object`, got `str`"),
        ("polcy: enabled", "values.polcy: is no setting, did you mean policy?"),
        ("proxy: {logLvl: debug}", "values.proxy.logLvl: is no setting, did you mean logLevel?"),
        ("policy: maybe", "values.policy: invalid enum value 'maybe'"),
        ("proxy: {statusPort: 70000}", "values.proxy.statusPort: must be a port"),
        ("proxy: {statusPort: '1'}", "values.proxy.statusPort: expected `int`"),
        ("proxy: {interceptionMode: TPROXY}", "values.proxy.interceptionMode: invalid enum value"),
        ("proxy: {resources: {limits: {cpu: lots}}}", "values.proxy.resources.limits.cpu: must be a quantity"),
        ("init: {resources: {requests: {cpu: -1}}}", "values.init.resources.requests.cpu: must be a quantity"),
        ("kubernetesVersion: new", 'values.kubernetesVersion: must be like "1.33"'),
        ("neverInjectSelector: [{matchExpressions: [{key: a, operator: In}]}]", "values.neverInjectSelector[0].matchExpressions[0]: In needs values"),  # noqa: E501
        ("alwaysInjectSelector: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]", "values.alwaysInjectSelector[0].matchExpressions[0]: Exists takes"),  # noqa: E501
        ("imagePullSecrets: [A]", "values.imagePullSecrets[0]: must be the name of a Secret"),
        ("hub: a b", "values.hub: must be a part of an image's name"),
    ],
)  # fmt: skip
def test_mistakes(text: str, line: str) -> None:
    with pytest.raises(BadSettings) as caught:
        Settings.read(text)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_the_mesh_s_own_words() -> None:
    base = Settings(proxy_config={"concurrency": 2})
    found = with_mesh(
        base, "trustDomain: a.b\nenablePrometheusMerge: false\nother: 1\ndefaultConfig: {concurrency: 1, drainDuration: 5s}"
    )
    assert found.trust_domain == "a.b"
    assert found.enable_prometheus_merge is False
    assert found.proxy_config == {"concurrency": 2, "drainDuration": "5s"}
    assert with_mesh(base, "") == base
    assert with_mesh(Settings(trust_domain="own"), "trustDomain: a.b").trust_domain == "own"
    for text in ("[", "a", "defaultConfig: []", "enablePrometheusMerge: 1", "trustDomain: 1"):
        with pytest.raises(BadSettings, match=r"^mesh"):
            with_mesh(base, text)


def test_quantities() -> None:
    assert quantity.read("1Ki") == 1024
    assert quantity.read("100m") * 10 == quantity.read("1") == quantity.read("1000000u") == quantity.read("1e0")
    assert quantity.read(".5") == quantity.read("0.5") == quantity.read("500m")
    for text in ("", "m", "1KiB", "1 Gi", "--1", "1e", "٣"):
        with pytest.raises(ValueError, match="must be a quantity such as 100m or 128Mi"):
            quantity.read(text)
