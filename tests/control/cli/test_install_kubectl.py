"""The real kubectl reads what install prints; control's own API, which has some of its kinds, takes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from control.install.manifest import objects, text
from control.install.overlay import read
from control.install.plan import settle
from control.resources.kinds import KINDS

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl on PATH")
OWN = {f"{kind.group}/{kind.versions[0]}".lstrip("/"): {one.kind for one in KINDS if one.group == kind.group} for kind in KINDS}


def kubectl(*words: str, given: str, config: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "KUBECONFIG": str(config), "HOME": str(config.parent)}
    return subprocess.run(["kubectl", *words], input=given, env=environ, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("profile", ["minimal", "default", "demo"])
def test_kubectl_reads_it(profile: str, tmp_path: Path) -> None:
    found = objects(settle(read([], [f"profile={profile}"])[0]))
    done = kubectl("label", "--local", "-f", "-", "a=b", "-o", "json", given=text(found), config=tmp_path / "none")
    assert done.returncode == 0, done.stderr
    decoder, at, seen = json.JSONDecoder(), 0, []
    while at < len(done.stdout):
        obj, at = decoder.raw_decode(done.stdout, at)
        seen.append((obj["kind"], obj["metadata"]["name"]))
        at += len(done.stdout[at:]) - len(done.stdout[at:].lstrip())
    assert seen == [(obj["kind"], obj["metadata"]["name"]) for obj in found]


def test_a_server_takes_what_it_knows(control: Path, tmp_path: Path) -> None:
    """Twice: nothing changes with the second."""
    plan = settle(read([], ["profile=demo", "namespace=other-system"])[0])
    known = [obj for obj in objects(plan) if obj["kind"] in OWN.get(obj["apiVersion"], ())]
    assert {obj["kind"] for obj in known} == {"Namespace", "ServiceAccount", "ConfigMap", "Service", "Deployment"}
    config = control / "kubeconfig"
    first = [obj for obj in known if obj["kind"] == "Namespace"]
    assert kubectl("apply", "-f", "-", given=text(first), config=config).returncode == 0
    tried = kubectl("apply", "--dry-run=server", "-f", "-", given=text(known), config=config)
    assert tried.returncode == 0 and len(tried.stdout.splitlines()) == len(known), tried.stderr
    made = kubectl("apply", "-f", "-", given=text(known), config=config)
    assert made.returncode == 0, made.stderr
    again = kubectl("apply", "-f", "-", given=text(known), config=config)
    assert again.returncode == 0 and all(line.endswith(" unchanged") for line in again.stdout.splitlines()), again.stdout
    client = kubectl("apply", "--dry-run=client", "-f", "-", given=text(known), config=config)
    assert client.returncode == 0 and yaml.safe_load(client.stdout), client.stderr
