"""What people are shown of a resource: everything but keys."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.admin.dump import COVERED, config_dump, shown
from meshproxy.model.base import encode
from meshproxy.model.cluster import Cluster
from meshproxy.model.security import JwtProvider, Secret, Security
from meshproxy.model.telemetry import Telemetry, Tracing


class Held:
    version = "v"

    def __init__(self, value: Any) -> None:
        self.value = value


def provider(jwks: str) -> Security:
    return Security(jwt=(JwtProvider(source="RequestAuthentication default/a jwtRules[0]", issuer="me", jwks=jwks),))


def keys(*found: dict[str, Any]) -> str:
    return json.dumps({"keys": found})


def test_a_secret_shows_its_certificates_and_that_it_has_a_key() -> None:
    found = shown(Secret(name="ns/a", certificate="CERT", key="KEY", ca="CA"))
    assert found == {"name": "ns/a", "certificate": "CERT", "key": COVERED, "ca": "CA"}
    assert shown(Secret(name="ns/a", error="it is missing")) == {"name": "ns/a", "error": "it is missing"}


def test_public_keys_are_shown_and_secret_ones_are_not() -> None:
    public = {"kty": "RSA", "n": "abc", "e": "AQAB"}
    assert shown(provider(keys(public)))["jwt"][0]["jwks"] == keys(public)
    covered = json.loads(shown(provider(keys(public, {"kty": "oct", "k": "c2VjcmV0"})))["jwt"][0]["jwks"])
    assert covered == {"keys": [public, {"kty": "oct", "k": COVERED}]}
    for broken in ("c2VjcmV0", '{"keys": 3}', '{"keys": ["c2VjcmV0"]}', '["c2VjcmV0"]'):
        assert "c2VjcmV0" not in json.dumps(shown(provider(broken)))


def test_what_a_collector_is_asked_with_is_covered() -> None:
    tracing = Tracing(exporter="http://otel:4318/v1/traces", exporter_headers=(("authorization", "Bearer s3cret"),))
    (found,) = shown(Telemetry(tracing=(tracing,)))["tracing"]
    assert found["exporter_headers"] == (("authorization", COVERED),) and found["exporter"] == tracing.exporter
    assert "s3cret" not in json.dumps(config_dump("n", "1", {"telemetry": {"workload": Held(Telemetry(tracing=(tracing,)))}}))


def test_other_resources_are_shown_whole() -> None:
    cluster = Cluster(name="c")
    assert shown(cluster) == {"name": "c"}
    assert config_dump("n", "1", {"cluster": {"c": Held(cluster)}})["configs"][2]["resources"][0]["config"] == {"name": "c"}


@given(st.text("abcdef", min_size=12))
def test_no_dump_holds_a_key(key: str) -> None:
    secret, security = Secret(name="ns/a", key=key), provider(keys({"kty": "oct", "k": key}))
    dump = config_dump("n", "1", {"secret": {"ns/a": Held(secret)}, "security": {"workload": Held(security)}})
    assert key.encode() not in encode(dump)
    assert key not in repr(secret)
