"""Secrets: what is usable, why the rest is not, and that nobody but who uses one ever gets its key."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from world_objects import Obj, destination_rule, event, mesh_object, pod, service, slices

from control.resources.check import decode
from control.translate import Snapshot, proxy_of
from control.translate.credentials import Credential, credential
from control.translate.translator import Translator
from control.world import World
from meshproxy.model.security import Secret
from tests.certs import SERIAL_ZERO, Authority

ROOT = Authority()
OTHER = Authority("other")
LEAF, SECOND, SPENT = ROOT.issue(dns=("a.example",)), ROOT.issue(dns=("a.example",)), ROOT.issue(ends=-60.0)
GATEWAY = {"istio": "ingressgateway"}


def secret(name: str, namespace: str = "istio-system", type_: str = "Opaque", **data: bytes) -> Obj:
    encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": type_,
        "data": encoded,
    }


def read(**data: bytes) -> Credential:
    return credential(decode(secret("s", **data)))


def test_a_serial_number_of_zero_is_no_reason_to_warn() -> None:
    """The warning would stand on the terminal of ``meshctl analyze``."""
    assert read(ca_crt=SERIAL_ZERO).error == ""


def encrypted() -> bytes:
    return load_pem_private_key(LEAF.key, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def test_kubernetes_names_and_istios_older_ones() -> None:
    revoked = ROOT.crl("1")
    whole = read(tls_crt=LEAF.certificate, tls_key=LEAF.key, ca_crt=ROOT.pem, ca_crl=revoked)
    assert (whole.certificate, whole.key, whole.ca) == (LEAF.certificate.decode(), LEAF.key.decode(), ROOT.pem.decode())
    assert (whole.crl, whole.expires, whole.error) == (revoked.decode(), LEAF.expires, "")
    older = read(cert=LEAF.certificate, key=LEAF.key, cacert=ROOT.pem)
    assert (older.certificate, older.key, older.ca) == (whole.certificate, whole.key, whole.ca)
    assert read(ca_crt=ROOT.pem) == Credential(ca=ROOT.pem.decode())
    assert "PRIVATE KEY" not in repr(whole)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, "holds neither a certificate (tls.crt and tls.key) nor a CA (ca.crt)"),
        ({"tls_crt": LEAF.certificate}, "tls.key is missing"),
        ({"tls_key": LEAF.key}, "tls.crt is missing"),
        ({"tls_crt": b"", "tls_key": LEAF.key}, "tls.crt is missing"),
        ({"tls_crt": b"nonsense", "tls_key": LEAF.key}, "tls.crt is not a certificate in PEM"),
        ({"tls_crt": LEAF.certificate, "tls_key": b"nonsense"}, "tls.key is not a private key in PEM"),
        ({"tls_crt": LEAF.certificate, "tls_key": encrypted()}, "tls.key is encrypted; give the key without a passphrase"),
        ({"tls_crt": LEAF.certificate, "tls_key": SECOND.key}, "tls.key does not belong to tls.crt"),
        ({"tls_crt": LEAF.certificate, "tls_key": LEAF.key, "ca_crt": b"x"}, "ca.crt is not a certificate in PEM"),
        ({"cacert": b"x"}, "cacert is not a certificate in PEM"),
        ({"ca_crt": ROOT.pem, "ca_crl": b"x"}, "ca.crl is not a revocation list in PEM"),
        ({"cert": LEAF.certificate, "tls_crt": LEAF.certificate, "tls_key": LEAF.key}, ""),
    ],
)
def test_what_is_unusable_says_which_key_of_the_secret(data: dict[str, bytes], error: str) -> None:
    assert read(**data).error == error


def https(name: str = "gw", credential_name: str = "web", mode: str = "SIMPLE", **tls: object) -> Obj:
    server = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["a.example"],
        "tls": {"mode": mode, "credentialName": credential_name, **tls},
    }
    return mesh_object("Gateway", name, {"selector": GATEWAY, "servers": [server]})


def gateway_pod() -> Obj:
    return pod("gw", "10.0.0.9", GATEWAY, namespace="istio-system")


def of(translator: Translator, world: World, namespace: str, name: str) -> Snapshot:
    proxy = proxy_of(world, namespace, name)
    assert proxy is not None
    return translator.translate(world, proxy)


def snapshot(*objs: Obj, who: tuple[str, str] = ("istio-system", "gw"), wall: float = 0.0) -> Snapshot:
    world = World.of([service("a"), gateway_pod(), *objs])
    assert world.problems == ()
    return of(Translator(lambda: wall), world, *who)


def sent(found: Snapshot, name: str = "istio-system/web") -> Secret:
    got = found.get("secret", name)
    assert isinstance(got, Secret)
    return got


WEB = secret("web", tls_crt=LEAF.certificate, tls_key=LEAF.key)


def test_a_gateway_gets_the_secret_of_its_own_namespace() -> None:
    found = snapshot(https(), WEB, secret("web", "default", tls_crt=SECOND.certificate, tls_key=SECOND.key))
    assert found.problems == ()
    assert sent(found) == Secret(name="istio-system/web", certificate=LEAF.certificate.decode(), key=LEAF.key.decode())
    assert [name for kind, name in found.resources if kind == "secret"] == ["istio-system/web"]


@pytest.mark.parametrize(
    ("objs", "wall", "error"),
    [
        ((), 0.0, "there is no such Secret"),
        ((secret("web", tls_crt=LEAF.certificate, tls_key=SECOND.key),), 0.0, "tls.key does not belong to tls.crt"),
        ((secret("web", tls_crt=SPENT.certificate, tls_key=SPENT.key),), SPENT.expires, "its certificate expired at "),
    ],
    ids=["missing", "mismatched", "expired"],  # what is in a certificate differs from run to run
)
def test_a_missing_or_unusable_secret_is_sent_as_such_and_the_listener_still_opens(
    objs: tuple[Obj, ...], wall: float, error: str
) -> None:
    found = snapshot(https(), *objs, wall=wall)
    assert sent(found).error.startswith(error)
    assert (sent(found).certificate, sent(found).key) == ("", "")
    assert ("listener", "gateway|443") in found.resources
    (problem,) = found.problems
    assert problem.source == "Gateway default/gw servers[0] tls.credentialName"
    assert problem.message.startswith(f"Secret istio-system/web: {error}")


def test_the_ca_may_be_apart_by_istios_convention_and_then_counts_first() -> None:
    both = secret("web", tls_crt=LEAF.certificate, tls_key=LEAF.key, ca_crt=OTHER.pem)
    found = snapshot(https(mode="MUTUAL"), both, secret("web-cacert", ca_crt=ROOT.pem))
    assert (sent(found).ca, found.problems) == (ROOT.pem.decode(), ())
    broken = snapshot(https(mode="MUTUAL"), both, secret("web-cacert", ca_crt=b"x"))
    assert sent(broken).error == "-cacert: ca.crt is not a certificate in PEM"


def test_mutual_without_a_ca_is_told() -> None:
    (problem,) = snapshot(https(mode="MUTUAL"), WEB).problems
    assert problem.message == "Secret istio-system/web: holds no CA certificate (ca.crt)"
    assert snapshot(https(mode="MUTUAL", caCertCredentialName="ca"), WEB, secret("ca", ca_crt=ROOT.pem)).problems == ()


def test_a_change_of_the_secret_changes_that_resource_alone() -> None:
    world, translator = World.of([service("a"), gateway_pod(), https(), WEB]), Translator()
    before = of(translator, world, "istio-system", "gw")
    again = of(translator, world.apply([event("MODIFIED", WEB)]), "istio-system", "gw")
    assert again is before
    later = world.apply([event("MODIFIED", secret("web", tls_crt=SECOND.certificate, tls_key=SECOND.key))])
    assert later.config is world.config
    after = of(translator, later, "istio-system", "gw")
    assert [layer is old for layer, old in zip(after.layers, before.layers, strict=True)] == [True, True, False]
    assert sent(after).key == SECOND.key.decode()
    gone = of(translator, later.apply([event("DELETED", WEB)]), "istio-system", "gw")
    assert sent(gone).error == "there is no such Secret"


def test_time_passing_makes_a_secret_unusable() -> None:
    wall = [0.0]
    world, translator = World.of([service("a"), gateway_pod(), https(), WEB]), Translator(lambda: wall[0])
    assert sent(of(translator, world, "istio-system", "gw")).error == ""
    wall[0] = LEAF.expires
    assert sent(of(translator, world, "istio-system", "gw")).error.startswith("its certificate expired at 20")


ORIGIN = {"number": 443, "name": "http", "protocol": "HTTP"}
OUTSIDE = mesh_object(
    "ServiceEntry",
    "x",
    {"hosts": ["x.example"], "ports": [ORIGIN], "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]},
)
CLIENT = ("default", "client")


def origination(**spec: object) -> Obj:
    return destination_rule("d", "x.example", trafficPolicy={"tls": {"mode": "MUTUAL", "credentialName": "own"}}, **spec)


def test_a_sidecar_gets_a_secret_only_by_a_rule_that_selects_it() -> None:
    own = secret("own", "default", tls_crt=LEAF.certificate, tls_key=LEAF.key)
    client, other = pod("client", "10.0.0.1", {"app": "c"}), pod("other", "10.0.0.2", {"app": "o"})
    unselected = snapshot(OUTSIDE, origination(), own, client, who=CLIENT)
    assert sent(unselected, "default/own").error == "a sidecar gets it only by a DestinationRule with workloadSelector"
    assert sent(unselected, "default/own").key == ""
    assert [problem.source for problem in unselected.problems] == ["DestinationRule default/d tls.credentialName"]
    chosen = origination(workloadSelector={"matchLabels": {"app": "c"}})
    found = snapshot(OUTSIDE, chosen, own, client, other, who=CLIENT)
    assert (sent(found, "default/own").key, found.problems) == (LEAF.key.decode(), ())
    assert ("secret", "default/own") not in snapshot(OUTSIDE, chosen, own, client, other, who=("default", "other")).resources


names = st.sampled_from(["web", "own", "ca", "web-cacert"])
spaces = st.sampled_from(["default", "istio-system", "else"])
pairs = [ROOT.issue(dns=("a.example",)) for _ in range(4)]


@given(
    st.dictionaries(st.tuples(spaces, names), st.integers(0, 3), max_size=6),
    st.lists(st.builds(https, st.sampled_from(["g1", "g2"]), names), max_size=2, unique_by=lambda o: o["metadata"]["name"]),
    st.sampled_from([None, "c", "o"]),
    st.booleans(),
)
def test_nobody_else_ever_gets_a_key(
    secrets: dict[tuple[str, str], int], gateways: list[Obj], app: str | None, rule: bool
) -> None:
    objs = [service("a"), OUTSIDE, slices("a", [("c1", "10.0.0.1")]), gateway_pod(), *gateways]
    objs += [
        pod(f"{a}1", f"10.0.0.{n}", {"app": a}, namespace=space)
        for n, (a, space) in enumerate((("c", "default"), ("o", "default"), ("e", "else")))
    ]
    objs += [
        secret(n, s, tls_crt=pairs[i].certificate, tls_key=pairs[i].key, extra=f"{s}/{n}!".encode())
        for (s, n), i in secrets.items()
    ]
    if rule:
        objs.append(origination(workloadSelector={"matchLabels": {"app": app}}) if app else origination())
    world, translator = World.of(objs), Translator()
    wanted = {o["spec"]["servers"][0]["tls"]["credentialName"] for o in gateways}
    for namespace, name in world.pods:
        allowed = {("istio-system", n) for n in wanted} if name == "gw" else set()
        if name == "gw" and rule:
            allowed.add(("istio-system", "own"))
        if rule and app is not None and name == f"{app}1" and namespace == "default":
            allowed.add(("default", "own"))
        found = of(translator, world, namespace, name)
        keys = {pairs[i].key for which, i in secrets.items() if which in allowed}
        for layer in found.layers:
            whole = b"".join(entry.body for entry in layer.entries.values())
            held = {pair.key for pair in pairs if json.dumps(pair.key.decode()).encode()[1:-1] in whole}
            assert held <= (keys if layer.slot == "secrets" else set())
        assert not any("PRIVATE" in str(problem) for problem in found.problems)
