"""People's side of the certificate authority (room ``serve``): what there is, rotation, revocation.

In: requests of an admin. Out: routes under ``/mesh/v1/ca``. Nothing secret is in any answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography import x509
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.ca.issuer import fingerprint
from control.ca.ledger import Row
from control.ca.request import BadRequest, spiffe
from control.ca.rotation import Busy, Rotation
from control.ca.service import WARN, CertificateAuthority, TooMany
from control.files import FileProblem
from control.serve.hub import Hub
from control.serve.kube.status import ApiError, bad_request
from control.serve.stream import read_body

__all__ = ["routes"]

MAX_BODY = 1 << 16
_SERIAL = re.compile(r"(0[xX])?[0-9a-fA-F:]{1,60}")
_IDENTITY = re.compile(r"spiffe://([a-z0-9.-]{1,255})/ns/([^/]+)/sa/([^/]+)")
T = TypeVar("T")


class _Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"given": "from"}):
    """``given``: a directory of control's machine with the files of the new authority; "": a new root of our own."""

    given: str = ""
    force: bool = False


class _Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``subject``: a serial, a SPIFFE URI or namespace/service-account. ``yes``: also when much depends on it."""

    subject: str
    yes: bool = False


def routes(
    ca: CertificateAuthority, rotation: Rotation, hub: Hub, root_namespace: str, wall: Callable[[], float] = time.time
) -> list[Route]:
    async def status(request: Request) -> Response:
        now = wall()
        rows = await ca.off_loop(lambda: ca.ledger.rows(now))
        return JSONResponse(_status(ca, rotation, rows, now))

    async def certificates(request: Request) -> Response:
        now = wall()
        rows = await ca.off_loop(lambda: ca.ledger.rows(now))
        trusted = {fingerprint(root) for root in ca.authority.roots}
        return JSONResponse({"certificates": [_row(ca, hub, trusted, row) for row in rows]})

    async def rotate(request: Request) -> Response:
        if request.method == "POST":
            asked = await _body(request, _Rotate)
            if asked.given and not Path(asked.given).is_absolute():
                raise bad_request(f"from: must be an absolute path on control's machine, not {asked.given!r}")
            try:
                await rotation.begin(Path(asked.given) if asked.given else None, asked.force)
            except Busy as error:
                raise ApiError(409, "Conflict", str(error)) from error
            except FileProblem as error:
                raise bad_request(str(error)) from error
        return JSONResponse(rotation.report(), 202 if request.method == "POST" else 200)

    async def revocations(request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(_revocations(ca, hub))
        if request.method == "DELETE":
            identity = _identity(request.query_params.get("identity", ""), ca.domain())
            if not await ca.restore(identity):
                raise ApiError(404, "NotFound", f"{identity} is not revoked")
            return JSONResponse({"identity": identity})
        asked = await _body(request, _Revoke)
        try:
            return JSONResponse(await revoke(asked), 201)
        except TooMany as error:
            raise ApiError(409, "Conflict", str(error)) from error

    async def revoke(asked: _Revoke) -> dict[str, Any]:
        subject, now = asked.subject.strip(), wall()
        if _SERIAL.fullmatch(subject) and "/" not in subject:
            serial = subject.lower().removeprefix("0x").replace(":", "").lstrip("0")
            row = await ca.off_loop(lambda: ca.ledger.find(serial))
            if row is None:
                raise ApiError(
                    404, "NotFound", f"no certificate of this mesh that still lasts has serial {serial}: see `meshctl ca list`"
                )
            await ca.revoke_serial(row)
            return {"serial": serial, "identity": row.identity, "pod": f"{row.namespace}/{row.pod}", "certificates": 1}
        identity = _identity(subject, ca.domain())
        rows = [row for row in await ca.off_loop(lambda: ca.ledger.rows(now)) if row.identity == identity]
        if not asked.yes and (why := _much_depends(identity)):
            raise ApiError(409, "NeedsConfirmation", f"{identity} {why}: confirm with --yes")
        await ca.revoke_identity(identity)
        return {"identity": identity, "certificates": len(rows)}

    def _much_depends(identity: str) -> str:
        gateways = {spiffe(ca.domain(), namespace, account) for namespace, account in hub.gateways()}
        if identity in gateways:
            return "is the identity of a gateway, and all traffic through it would be refused"
        if f"/ns/{root_namespace}/" in identity:
            return f"is of the mesh's own namespace {root_namespace}"
        return ""

    return [
        Route("/mesh/v1/ca", status, methods=["GET"]),
        Route("/mesh/v1/ca/certificates", certificates, methods=["GET"]),
        Route("/mesh/v1/ca/rotation", rotate, methods=["GET", "POST"]),
        Route("/mesh/v1/ca/revocations", revocations, methods=["GET", "POST", "DELETE"]),
    ]


async def _body(request: Request, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(await read_body(request, MAX_BODY) or b"{}", type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not understood: {error}") from error


def _identity(subject: str, domain: str) -> str:
    """In full: ``spiffe://…`` as it is, ``namespace/account`` of our own domain."""
    full = _IDENTITY.fullmatch(subject)
    short = subject.split("/")
    try:
        if full:
            return spiffe(full[1], full[2], full[3])
        if len(short) == 2:
            return spiffe(domain, short[0], short[1])
    except BadRequest as error:
        raise bad_request(str(error)) from error
    raise bad_request(
        f"{subject[:200]!r} is neither a serial, nor spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, nor NAMESPACE/ACCOUNT"
    )


def _status(ca: CertificateAuthority, rotation: Rotation, rows: list[Row], now: float) -> dict[str, Any]:
    authority = ca.authority
    issuer = authority.issuer
    trusted = {fingerprint(root) for root in authority.roots}
    rows = [row for row in rows if row.root in trusted]
    revoked = [row for row in rows if row.serial in ca.revoked_serials or row.identity in ca.revoked_identities]
    warnings = [
        f"{what} {name} ends in {(end - now) / 86400:.0f} days: run `meshctl ca rotate`"
        for what, name, end in (
            *(("the root", fingerprint(root)[:16], _end(root)) for root in authority.roots),
            *((("the issuer", issuer.id, issuer.expires),) if issuer.certificate != issuer.root else ()),
        )
        if end - now < WARN
    ]
    return {
        "trustDomain": ca.domain(),
        "certificateTtl": ca.ttl,
        "roots": [_certificate(root) | {"issues": fingerprint(root) == authority.root_id} for root in authority.roots],
        "issuer": _certificate(issuer.certificate) | {"intermediate": issuer.certificate != issuer.root},
        "certificates": {
            "active": len(rows) - len(revoked),
            "revoked": len(revoked),
            "underOldRoot": sum(row.root != authority.root_id for row in rows),
            "soonestExpiry": min((row.expires for row in rows), default=None),
        },
        "revoked": {"serials": len(ca.revoked_serials), "identities": sorted(ca.revoked_identities)},
        "rotation": rotation.report(),
        "warnings": warnings,
    }


def _certificate(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint(certificate),
        "subject": certificate.subject.rfc4514_string(),
        "notBefore": certificate.not_valid_before_utc.timestamp(),
        "notAfter": _end(certificate),
    }


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _row(ca: CertificateAuthority, hub: Hub, trusted: set[str], row: Row) -> dict[str, Any]:
    revoked = "serial" if row.serial in ca.revoked_serials else "identity" if row.identity in ca.revoked_identities else ""
    return {
        "serial": row.serial,
        "identity": row.identity,
        "namespace": row.namespace,
        "pod": row.pod,
        "root": row.root,
        "issued": row.issued,
        "expires": row.expires,
        "revoked": revoked,
        "trusted": row.root in trusted,
        "connected": hub.connected(row.namespace, row.pod),
    }


def _revocations(ca: CertificateAuthority, hub: Hub) -> dict[str, Any]:
    return {
        "identities": [{"identity": identity, "revoked": at} for identity, at in sorted(ca.revoked_identities.items())],
        "serials": [
            {"serial": serial, "identity": identity, "revoked": at}
            for serial, (identity, at) in sorted(ca.revoked_serials.items())
        ],
        "pending": hub.distrusting(),
        "connected": hub.count,
    }
