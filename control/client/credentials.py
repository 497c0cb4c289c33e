"""Credentials of a kubeconfig's user that are not plain text in it: programs that print them, certificates in base64.

In: the user's entry. Out: ``Credentials``. A program gets a cluster's own words on standard error, as kubectl lets it, and has a
minute. Nothing of what it prints is in a message. Loud.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Credentials", "NoCredentials", "decoded", "from_program"]

PATIENCE = 60.0  # seconds: some open a browser


class NoCredentials(Exception):
    """One line that says what to do."""


@dataclass(frozen=True)
class Credentials:
    """PEM texts, "" for none."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


def decoded(user: Mapping[str, Any], name: str) -> str:
    """A PEM text out of ``NAME-data``, "" when there is none."""
    given = user.get(f"{name}-data")
    if not given:
        return ""
    try:
        return base64.b64decode(given, validate=True).decode("ascii")
    except (binascii.Error, ValueError, TypeError):
        raise NoCredentials(f"{name}-data is not base64 of PEM") from None


def from_program(spec: Mapping[str, Any]) -> Credentials:
    """Run the program of an ``exec`` entry (client.authentication.k8s.io, ExecCredential)."""
    command, version = str(spec.get("command") or ""), str(spec.get("apiVersion") or "")
    if not command or not version.startswith("client.authentication.k8s.io/"):
        raise NoCredentials("exec: command and apiVersion (client.authentication.k8s.io/v1) must be given")
    more = {str(one["name"]): str(one["value"]) for one in spec.get("env") or () if isinstance(one, dict) and "name" in one}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": os.isatty(0)}}
    environ = {**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    arguments = [command, *(str(one) for one in spec.get("args") or ())]
    try:
        done = subprocess.run(arguments, env=environ, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
        status = json.loads(done.stdout)["status"] if done.returncode == 0 else {}
    except FileNotFoundError:
        hint = " ".join(str(spec.get("installHint") or "").split())
        raise NoCredentials(f"exec: {command}: no such program{f' ({hint})' if hint else ''}") from None
    except subprocess.TimeoutExpired:
        raise NoCredentials(f"exec: {command} did not end within {PATIENCE:.0f} s") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise NoCredentials(f"exec: {command} gave no ExecCredential") from None
    if done.returncode != 0:
        raise NoCredentials(f"exec: {command} ended with {done.returncode}")
    found = Credentials(
        str(status.get("token") or ""), str(status.get("clientCertificateData") or ""), str(status.get("clientKeyData") or "")
    )
    if not found.token and not found.certificate:
        raise NoCredentials(f"exec: {command} gave neither a token nor a certificate")
    return found
