"""What is shown of certificates: /certs and the question ``secrets``; never a key."""

from __future__ import annotations

import json
import time
from typing import Any

from meshproxy.credentials import Credentials
from meshproxy.model.security import Secret, Trust
from tests.certs import DAY, Authority, spiffe

ROOT = Authority("root")
BOOK = ROOT.identity(spiffe("book"))
SITE = ROOT.issue((), dns=("site.example",), ip=("::1",), ends=10 * DAY + 60)
NOW = time.time()


def secret(name: str, **fields: Any) -> Secret:
    return Secret(name=name, **fields)


def rows(credentials: Credentials, now: float = NOW) -> list[tuple[str, str, str, bool, str]]:
    return [(row["name"], row["type"], row["status"], row["valid"], row.get("error", "")) for row in credentials.rows(now)]


def test_nothing_yet() -> None:
    empty = Credentials.of(None, {}, "connection refused")
    assert empty.page(NOW) == {"certificates": [{"name": "default", "ca_cert": [], "cert_chain": []}]}
    assert rows(empty) == [("default", "Cert Chain", "WARMING", False, "connection refused")]
    assert empty.line() == {"uri": "", "expires": "", "last_error": "connection refused"}


def test_own_and_roots() -> None:
    held = Credentials.of(BOOK, {})
    assert rows(held) == [("default", "Cert Chain", "ACTIVE", True, ""), ("ROOTCA", "CA", "ACTIVE", True, "")]
    assert rows(held, NOW + 2 * DAY)[0] == ("default", "Cert Chain", "ACTIVE", False, "")
    (entry,) = held.page(NOW)["certificates"]
    (leaf,) = entry["cert_chain"]
    assert leaf["subject_alt_names"] == [{"uri": spiffe("book")}]
    assert leaf["days_until_expiration"] == "0"
    assert leaf["valid_from"] < leaf["expiration_time"]
    assert len(entry["ca_cert"]) == 1


def test_the_roots_of_the_configuration_count_once_there_are_some() -> None:
    other = Authority("other")
    trust = Trust(roots=(ROOT.pem.decode(), other.pem.decode()))
    held = Credentials.of(BOOK, {"trust": {"mesh": trust}})
    assert [row[0] for row in rows(held)] == ["default", "ROOTCA", "ROOTCA"]
    assert len(held.page(NOW)["certificates"][0]["ca_cert"]) == 2


def test_secrets_in_every_condition() -> None:
    secrets = {
        "default/ca": secret("default/ca", ca=ROOT.pem.decode()),
        "default/missing": secret("default/missing", error="there is no such secret"),
        "default/site": secret(
            "default/site", certificate=SITE.certificate.decode(), key=SITE.key.decode(), ca=ROOT.pem.decode()
        ),
        "default/spoilt": secret("default/spoilt", certificate="rubbish", key=SITE.key.decode()),
    }
    held = Credentials.of(None, {"secret": secrets})
    assert rows(held)[1:] == [
        ("default/ca", "CA", "ACTIVE", True, ""),
        ("default/missing", "Cert Chain", "WARMING", False, "there is no such secret"),
        ("default/site", "Cert Chain", "ACTIVE", True, ""),
        ("default/site", "CA", "ACTIVE", True, ""),
        ("default/spoilt", "Cert Chain", "WARMING", False, "holds no PEM certificate, or one that cannot be read"),
    ]
    page = {entry["name"]: entry for entry in held.page(NOW)["certificates"]}
    assert page["default/missing"]["error"] == "there is no such secret"
    (site,) = page["default/site"]["cert_chain"]
    assert site["subject_alt_names"] == [{"dns": "site.example"}, {"ip_address": "::1"}]
    assert (site["serial_number"], site["days_until_expiration"]) == (SITE.serial, "10")
    assert page["default/spoilt"]["cert_chain"] == []
    assert "PRIVATE" not in json.dumps([held.page(NOW), held.rows(NOW), held.line()])
