"""A certificate authority's files (room ``ca``), named as Istio names them: read, judged, made, kept.

In: a directory with ``ca-cert.pem`` (who signs), ``ca-key.pem`` (its key), ``root-cert.pem`` (whom peers trust; the default is a
``ca-cert.pem`` that signed itself) and ``cert-chain.pem`` (what stands between; optional, in any order, the root may be in it).
Out: an ``Issuer``, or ``FileProblem`` with one line that names the file. ``make_root`` makes an authority of our own and ``keep``
writes one down; a directory is there whole or not at all.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from control.ca.issuer import BACKDATE, CaKey, Issuer, pem, usage
from control.files import FileProblem, read_private, sync_directory, write_private

__all__ = ["CA_CERT", "CA_KEY", "CHAIN", "ROOT_CERT", "Expired", "keep", "load", "load_files", "make_root", "move_in"]

CA_CERT, CA_KEY, ROOT_CERT, CHAIN = "ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"
ROOT_LIFE = dt.timedelta(days=3650)
MIN_RSA = 2048
MAX_LINKS = 8  # certificates between the one that signs and the root
MAX_FILE = 1 << 20


class Expired(FileProblem):
    """Everything is as it should be, only too old."""


def make_root(now: float) -> Issuer:
    """A new ECDSA P-256 root that signs for itself, good for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    start = dt.datetime.fromtimestamp(int(now), dt.UTC)
    # A name of its own: where two roots had one name, a verifier would have to try which of them signed.
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mesh"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"mesh root {serial:040x}"[:18]),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(start - BACKDATE)
        .not_valid_after(start + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issuer(certificate, key, (), certificate, (certificate,))


def load(directory: Path, now: float) -> Issuer:
    """The authority in ``directory``. Raises ``FileProblem`` (one line) unless it can sign at wall time ``now``."""
    return load_files(directory / CA_CERT, directory / CA_KEY, directory / ROOT_CERT, directory / CHAIN, now)


def load_files(certificate_file: Path, key_file: Path, root_file: Path, chain_file: Path, now: float) -> Issuer:
    """As ``load``. A root or chain file that does not exist counts as empty."""
    key = _key(key_file)
    certificate, *rest = _certificates(certificate_file)
    if certificate.public_key() != key.public_key():
        raise FileProblem(f"{key_file}: does not belong to {certificate_file.name}: put the pair together again")
    given = _certificates(root_file) if root_file.exists() else []
    if not given and not _signed_itself(certificate):
        raise FileProblem(f"{root_file}: is missing, and {certificate_file.name} is not a root itself: put the root there")
    roots = tuple(given or [certificate])
    between = rest + (_certificates(chain_file) if chain_file.exists() and chain_file.stat().st_size else [])
    _is_authority(certificate, certificate_file, 0, now)
    above: list[x509.Certificate] = []
    last, at = certificate, certificate_file
    while last not in roots:
        root = next((one for one in roots if _issued(one, last)), None)
        link = next((one for one in between if one not in above and one != last and _issued(one, last)), None)
        if root is not None:
            _is_authority(root, root_file, len(above) + 1, now)
            return Issuer(certificate, key, tuple(above), root, roots)
        if link is None or len(above) == MAX_LINKS:
            missing = f"the issuer of {last.subject.rfc4514_string() or 'a certificate'} is in neither"
            raise FileProblem(
                f"{at}: the chain does not lead to {root_file.name}: {missing} {chain_file.name} nor {root_file.name}"
            )
        above.append(link)
        last, at = link, chain_file
        _is_authority(link, chain_file, len(above), now)
    return Issuer(certificate, key, tuple(above[:-1]), last, roots)


def keep(issuer: Issuer, directory: Path) -> None:
    """Write ``issuer`` into ``directory``, which must not exist. Whole or not at all, also after a crash."""
    files = {
        CA_KEY: issuer.key_pem(),
        CA_CERT: pem(issuer.certificate),
        ROOT_CERT: b"".join(map(pem, issuer.roots)),
        CHAIN: b"".join(map(pem, issuer.above)),
    }
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        for name, data in files.items():
            write_private(scratch / name, data)
        move_in(scratch, directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def move_in(scratch: Path, directory: Path) -> None:
    """Give a finished directory its name. Raises ``FileProblem`` when that is taken by something that is not empty."""
    try:
        os.rename(scratch, directory)  # also replaces an empty directory
    except OSError as error:
        raise FileProblem(f"{directory}: holds other files: move them away ({error.strerror})") from error
    sync_directory(directory.parent)


def _issued(issuer: x509.Certificate, subject: x509.Certificate) -> bool:
    try:
        subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _signed_itself(certificate: x509.Certificate) -> bool:
    return _issued(certificate, certificate)


def _is_authority(certificate: x509.Certificate, path: Path, below: int, now: float) -> None:
    """Refuse what peers would refuse; ``below``: how many authorities there are between it and a workload's certificate."""
    name = certificate.subject.rfc4514_string() or "a certificate"
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not basic.ca:
            raise FileProblem(f"{path}: {name} is not a certificate authority (its basic constraints say CA:FALSE)")
        if basic.path_length is not None and basic.path_length < below:
            raise FileProblem(f"{path}: {name} allows {basic.path_length} authorities below it, and there are {below}")
        uses = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not uses.key_cert_sign:
            raise FileProblem(f"{path}: {name} may not sign certificates (its key usage has no keyCertSign)")
    except x509.ExtensionNotFound as error:
        if error.oid == x509.BasicConstraints.oid:
            raise FileProblem(f"{path}: {name} is not a certificate authority (it has no basic constraints)") from error
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise FileProblem(f"{path}: {name} has extensions that cannot be read") from error
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise Expired(f"{path}: {name} expired on {certificate.not_valid_after_utc.date().isoformat()}")
    if certificate.not_valid_before_utc.timestamp() > now:
        raise FileProblem(f"{path}: {name} is not valid before {certificate.not_valid_before_utc.isoformat()}: look at the clock")


def _key(path: Path) -> CaKey:
    data = read_private(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise FileProblem(f"{path}: is encrypted: store it decrypted, with mode 0600") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FileProblem(f"{path}: is not a PEM private key: restore it from a backup") from error
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA:
            raise FileProblem(f"{path}: is an RSA key of {key.key_size} bits: {MIN_RSA} is the least that peers accept")
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise FileProblem(f"{path}: is on curve {key.curve.name}: use P-256, P-384 or P-521")
        return key
    raise FileProblem(f"{path}: is neither an RSA nor an ECDSA key")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        if path.stat().st_size > MAX_FILE:
            raise FileProblem(f"{path}: is too large to be a certificate file")
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FileProblem(f"{path}: is not a PEM certificate: restore it from a backup") from error
