"""The webhooks' certificate, and whom the API server is to believe there (room ``cluster``); the leader's work.

In: the authority. Out: the Secret that the injector serves with (tls.crt, tls.key, ca.crt), renewed at half of its life and when
another authority signs; and ``caBundle`` of the mesh's two webhook configurations, put right whenever it differs. The bundle goes
first: a certificate under a new root is of no use before that is believed. The validating webhook is installed so that it stops
nobody; from here on, where it can be believed, what it cannot judge is refused.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from control.ca.authority import Authority
from control.cluster.names import CERTIFICATE, INJECTOR, named, validator
from control.cluster.secrets import Changed, Owned
from control.resources.kinds import Kind
from control.store.kubernetes.client import ApiServer, Refused, Unreachable
from control.store.kubernetes.reflector import Place, Reflector, Timing

__all__ = ["CERTIFICATE", "MUTATING", "VALIDATING", "Webhooks", "service_names"]

log = logging.getLogger("mesh.control.cluster")
GROUP = "admissionregistration.k8s.io"
LIFE = 30 * 86400.0
LOOK = 60.0  # seconds between looks when nothing seems to happen
RETRY = 5.0
Obj = dict[str, Any]


def _kind(name: str) -> Kind:
    return Kind(GROUP, ("v1",), name, name.lower() + "s", name.lower(), (), False, dict, ())


MUTATING, VALIDATING = _kind("MutatingWebhookConfiguration"), _kind("ValidatingWebhookConfiguration")


def service_names(service: str, namespace: str) -> tuple[str, ...]:
    """All the names by which pods and the API server call a Service."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local", f"{service}.{namespace}", service)


class Webhooks:
    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        authority: Callable[[], Authority],
        *,
        revision: str = "",
        timing: Timing | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._authority = authority
        self._wall = wall
        self._timing = timing
        self._names = (
            *service_names(named(INJECTOR, revision), namespace),
            *service_names(named("istiod", revision), namespace),
        )
        self._secret = Owned(api, "Secret", namespace, named(CERTIFICATE, revision), "kubernetes.io/tls")
        self._configurations = (
            (MUTATING, named(INJECTOR, revision)),
            (VALIDATING, named(validator(namespace), revision)),
        )
        self._wake = asyncio.Event()

    def look(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def watches(self) -> list[Reflector]:
        """For the leader to run: whoever installs the mesh again empties the bundles."""
        sink = _Bell(self.look)
        places = [Place(kind=kind, fields=f"metadata.name={name}", optional=True) for kind, name in self._configurations]
        return [Reflector(self._api, place, sink, self._timing) for place in places]

    async def run(self) -> None:
        """For as long as we lead."""
        while True:
            self._wake.clear()
            pause = LOOK
            try:
                await self.settle()
            except (Refused, Unreachable, Changed) as problem:
                log.warning("the webhooks' certificate: %s; trying again", problem)
                pause = RETRY
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def settle(self) -> None:
        """Put right what is not."""
        authority = self._authority()
        failed: Exception | None = None
        for kind, name in self._configurations:
            try:
                await self._believe(kind, name, authority.root_pem)
            except (Refused, Unreachable) as problem:  # the injector needs its certificate all the same
                failed = problem
        data = await self._secret.read()
        if data is None or not self._good(data, authority):
            now = self._wall()
            made = authority.issue_server(self._names, now, LIFE)
            await self._secret.write({"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": authority.root_pem})
            log.info("the webhooks have a new certificate")
        if failed is not None:
            raise failed

    def _good(self, data: dict[str, bytes], authority: Authority) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(data["tls.crt"])
            key = load_pem_private_key(data["tls.key"], None)
            certificate.verify_directly_issued_by(authority.issuer.certificate)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            has = set(names.get_values_for_type(x509.DNSName))
        except (KeyError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
            return False
        start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        fits = key.public_key() == certificate.public_key() and data.get("ca.crt") == authority.root_pem
        return fits and set(self._names) <= has and self._wall() < start + (end - start) / 2

    async def _believe(self, kind: Kind, name: str, roots: bytes) -> None:
        path = f"/apis/{GROUP}/v1/{kind.plural}/{name}"
        try:
            found = await self._api.get(path)
        except Refused as refused:
            if refused.code == 404:  # not installed, or switched off
                return
            raise
        bundle = base64.b64encode(roots).decode()
        steps: list[Obj] = []
        for at, webhook in enumerate(found.get("webhooks") or ()):
            client = webhook.get("clientConfig") or {}
            changes = []
            if "service" in client and client.get("caBundle") != bundle:
                changes.append({"op": "add", "path": f"/webhooks/{at}/clientConfig/caBundle", "value": bundle})
            if kind is VALIDATING and webhook.get("failurePolicy") == "Ignore":  # as installed: nobody answered yet
                changes.append({"op": "replace", "path": f"/webhooks/{at}/failurePolicy", "value": "Fail"})
            if changes:
                # The place is only sure while the webhook of this name stands there.
                steps += [{"op": "test", "path": f"/webhooks/{at}/name", "value": webhook.get("name")}, *changes]
        if steps:
            await self._api.send("PATCH", path, steps, content_type="application/json-patch+json")
            log.info("%s %s believes the mesh's roots now", kind.kind, name)


class _Bell:
    """A sink that only says that there is news."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def put(self, obj: Obj) -> None:
        self._ring()

    def drop(self, obj: Obj) -> None:
        self._ring()

    def replace(self, objs: Iterable[Obj]) -> int:
        self._ring()
        return 0
