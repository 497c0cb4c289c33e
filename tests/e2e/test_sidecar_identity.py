"""A sidecar's own identity, with real processes: got from control, renewed, kept without it, never on a disk or a page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certs import Authority, spiffe
from tests.e2e.mesh_control_process import KILL, ControlProcess, create, pod
from tests.e2e.support.config import Config
from tests.e2e.support.sidecar import Sidecar
from tests.e2e.support.sockets import own_address, until

ME = "spiffe://cluster.local/ns/default/sa/default"
PRIVATE = b"PRIVATE KEY"


def control(home: Path, ttl: float = 86_400) -> ControlProcess:
    made = ControlProcess(home / "state", own_address(), "--workload-cert-ttl", str(ttl))
    made.start()
    return made


@contextmanager
def sidecar(control: ControlProcess, home: Path, name: str = "book", *options: str, **token: Any) -> Iterator[Sidecar]:
    ip = own_address()
    own = home / name
    own.mkdir()
    (own / "token").write_text(prepared(control, name, ip, **token))
    asks = ["--control", control.url, "--token-file", str(own / "token"), *options]
    if "--control-ca" not in options:
        asks += ["--control-ca", str(control.state / "ca" / "root.pem")]
    with Sidecar(None, *asks, ip=ip, pod=name, home=own) as made:
        yield made


def prepared(control: ControlProcess, name: str, ip: str, **token: Any) -> str:
    """A pod, and its sidecar's token."""

    async def story() -> str:
        async with control.client() as client:
            await create(client, pod(name, ip, name))
        return await control.join_token(name, **token)

    return asyncio.run(story())


def serial(sidecar: Sidecar) -> str:
    """Of its own certificate."""
    (own, *_) = sidecar.json("/certs")["certificates"]
    return str(own["cert_chain"][0]["serial_number"])


def renewals(sidecar: Sidecar) -> float:
    return sidecar.metrics("mesh_certificate_renewals_total")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlProcess, Path]]:
    home = tmp_path_factory.mktemp("identity")
    made = control(home)
    try:
        yield made, home
    finally:
        made.stop()


def test_it_has_a_certificate_when_it_is_ready_and_shows_it(mesh: tuple[ControlProcess, Path]) -> None:
    with sidecar(*mesh, "shows", serviceAccount="book") as one:
        me = "spiffe://cluster.local/ns/default/sa/book"
        told = one.json("/server_info")["identity"]
        assert (told["uri"], told["last_error"]) == (me, "")
        (own, *_) = one.json("/certs")["certificates"]
        assert own["cert_chain"][0]["subject_alt_names"] == [{"uri": me}]
        assert len(own["ca_cert"]) == 1
        assert (one.metrics("mesh_certificate_renewals_total"), one.metrics("mesh_certificate_renewal_failures_total")) == (0, 0)
        log = one.log()
        assert log.index(f"certificate of {me}") < log.index("first configuration in force"), "in this order"


def test_control_can_ask_for_it(mesh: tuple[ControlProcess, Path]) -> None:
    async def ask() -> Any:
        async with mesh[0].client() as client:
            answer = await client.get("/mesh/v1/proxies/default/asked/query", params={"verb": "secrets"})
            assert answer.status_code == 200, answer.text
            return answer.json()

    with sidecar(*mesh, "asked") as one:
        own, root = asyncio.run(ask())
        assert (own["name"], own["type"], own["status"], own["valid"]) == ("default", "Cert Chain", "ACTIVE", True)
        assert own["serial"] == serial(one)
        assert (root["name"], root["type"], root["status"], root["valid"]) == ("ROOTCA", "CA", "ACTIVE", True)
        assert own["notBefore"] < own["notAfter"] < root["notAfter"]


def test_its_key_is_nowhere_but_in_its_memory(mesh: tuple[ControlProcess, Path]) -> None:
    with sidecar(*mesh, "secret", "--concurrency", "2", "--log-level", "debug") as one:
        pages = [one.get(page)[1] for page in ("/certs", "/config_dump", "/server_info", "/clusters", "/listeners", "/stats")]
        assert all("PRIVATE KEY" not in text for text in [*pages, one.log()])
        token = (mesh[1] / "secret" / "token").read_text().strip()
        assert all(token not in text for text in [*pages, one.log()])
        for file in (path for path in (mesh[1] / "secret").rglob("*") if path.is_file()):
            assert PRIVATE not in file.read_bytes(), file
        theirs = {path for path in (mesh[1] / "state").rglob("*") if path.is_file() and PRIVATE in path.read_bytes()}
        assert all(path.parent.name == "ca" or path.parent.parent.name == "ca" for path in theirs), "control has its own only"
        for pid in (one.pid, *one.children()):
            for about in ("cmdline", "environ"):
                assert PRIVATE not in Path(f"/proc/{pid}/{about}").read_bytes()
            for target in open_files(pid):
                assert PRIVATE not in target.read_bytes(), target


def open_files(pid: int) -> Iterator[Path]:
    """Regular files that the process holds, unlinked and unnamed ones as well."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if descriptor.is_file():
                yield descriptor
        except OSError:
            continue  # closed meanwhile


def test_it_renews_and_control_may_die_meanwhile(tmp_path: Path) -> None:
    made = control(tmp_path, ttl=4)
    try:
        with sidecar(made, tmp_path) as one:
            first = serial(one)
            until(lambda: serial(one) != first, "the second certificate", 20)
            until(lambda: renewals(one) >= 1)
            port = made.port
            made.signal(KILL)
            until(lambda: one.json("/server_info")["identity"]["last_error"], "it asked in vain", 20)
            held = serial(one)
            assert one.metrics("mesh_certificate_renewal_failures_total") >= 1
            assert one.get("/ready")[0] == 200
            assert "certificate not renewed, the old one lasts until" in one.log()
            made.start(port)
            until(lambda: serial(one) != held, "a certificate again", 20)
            until(lambda: one.json("/server_info")["identity"]["last_error"] == "")
    finally:
        made.stop()


def test_without_control_it_waits_for_a_certificate_and_says_so(tmp_path: Path) -> None:
    made = control(tmp_path)
    try:
        ip = own_address()
        (tmp_path / "token").write_text(prepared(made, "book", ip))
        port, url = made.port, made.url
        made.signal(KILL)
        asks = ["--control", url, "--control-ca", str(made.state / "ca" / "root.pem"), "--token-file", str(tmp_path / "token")]
        with waiting(*asks, ip=ip, pod="book", home=tmp_path) as one:
            until(lambda: one.metrics("mesh_certificate_renewal_failures_total") >= 1)
            assert one.get("/ready") == (503, "PRE_INITIALIZING: no certificate yet\n")
            assert one.json("/server_info")["identity"]["uri"] == ""
            made.start(port)
            until(lambda: one.get("/ready")[0] == 200, "ready", 20)
            assert one.json("/server_info")["identity"]["uri"] == ME
    finally:
        made.stop()


class Waiting(Sidecar):
    """It need not be ready; its pages answer."""

    def _up(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/ready")[0] in (200, 503)
        except OSError:
            return False


def waiting(*options: str, **more: Any) -> Sidecar:
    return Waiting(None, *options, **more)


def test_a_token_is_good_for_its_own_identity_only(mesh: tuple[ControlProcess, Path]) -> None:
    """A sidecar cannot say who it is: the token does."""
    made, home = mesh
    own = home / "thief"
    own.mkdir()
    (own / "token").write_text(asyncio.run(made.join_token("thief", serviceAccount="thief")))
    asks = ["--control", made.url, "--control-ca", str(made.state / "ca" / "root.pem"), "--token-file", str(own / "token")]
    with waiting(*asks, "--service-account", "bank", pod="bank", home=own) as one:
        until(lambda: one.json("/server_info")["identity"]["uri"], "an identity")
        assert one.json("/server_info")["identity"]["uri"].endswith("/sa/thief")
        until(lambda: "403" in one.json("/server_info")["control"]["last_error"], "and bank's configuration is refused")


def test_a_revoked_identity_says_so_and_a_revoked_serial_is_replaced(tmp_path: Path) -> None:
    made = control(tmp_path)

    async def revoke(**subject: str) -> None:
        async with made.client() as client:
            answer = await client.post("/mesh/v1/ca/revocations", json=subject)
            assert answer.status_code < 300, answer.text

    try:
        with sidecar(made, tmp_path, serviceAccount="book") as one:
            first = serial(one)
            asyncio.run(revoke(subject=first))
            until(lambda: serial(one) != first, "another serial")
            asyncio.run(revoke(subject="spiffe://cluster.local/ns/default/sa/book"))
            until(lambda: "book is revoked: peers refuse us" in one.log(), "it says so")
            assert one.get("/ready")[0] == 200
    finally:
        made.stop()


def test_a_rotated_root_is_followed_without_a_new_file_even_by_a_new_start_of_control(tmp_path: Path) -> None:
    """The sidecar's file knows the first root only; what control said of the second is enough, for its own door too."""
    made = control(tmp_path)
    first_root = tmp_path / "first-root.pem"
    first_root.write_bytes((made.state / "ca" / "root.pem").read_bytes())

    async def ask(method: str) -> Any:
        async with made.client() as client:
            answer = await client.request(method, "/mesh/v1/ca/rotation", json={} if method == "POST" else None)
            assert answer.status_code < 300, answer.text
            return answer.json()

    def roots() -> set[str]:
        return {root["serial_number"] for root in one.json("/certs")["certificates"][0]["ca_cert"]}

    try:
        with sidecar(made, tmp_path, "book", "--control-ca", str(first_root)) as one:
            before, held = roots(), serial(one)
            asyncio.run(ask("POST"))
            until(lambda: serial(one) != held, "a certificate under the new root", 30)
            until(lambda: len(roots()) == 1 and not roots() & before, "the old root goes", 30)
            port = made.port
            made.signal(KILL)
            until(lambda: not one.json("/server_info")["control"]["connected"])
            made.start(port)
            until(lambda: one.json("/server_info")["control"]["connected"], "it believes the new door", 20)
            assert one.get("/ready")[0] == 200
            assert renewals(one) == 1
    finally:
        made.stop()


# -- without control


class Files:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = Authority("root")
        self.paths = {name: home / f"{name}.pem" for name in ("cert", "key", "roots")}
        self.fresh()
        self.paths["roots"].write_bytes(self.root.pem)

    def fresh(self) -> str:
        """A new pair; its serial."""
        pair = self.root.issue(ME)
        self.paths["cert"].write_bytes(pair.certificate)
        self.paths["key"].write_bytes(pair.key)
        return pair.serial

    def options(self) -> list[str]:
        return [word for name, path in self.paths.items() for word in (f"--identity-{name}", str(path))]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def inbound() -> Config:
    return Config().listener("inbound", "inbound", 15006, "*", ("127.61.0.9", 80), mtls="STRICT")


def shown(ip: str, files: Files) -> str:
    """The serial of the certificate that the inbound port shows to a caller of the mesh."""
    caller = files.root.issue(spiffe("caller"))
    (files.home / "caller.pem").write_bytes(caller.both)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=files.root.pem.decode())
    context.load_cert_chain(files.home / "caller.pem")
    context.set_alpn_protocols(["istio-http/1.1", "istio"])
    with socket.create_connection((ip, 15006), 10) as plain, context.wrap_socket(plain) as secured:
        details = secured.getpeercert()
        assert details is not None
        return str(details["serialNumber"]).lower().lstrip("0")


def test_files_are_read_again_on_a_signal_and_when_they_change(files: Files) -> None:
    first = files.fresh()
    with Sidecar(inbound(), *files.options()) as one:
        assert serial(one) == first == shown(one.ip, files)
        second = files.fresh()
        one.signal(signal.SIGHUP)
        until(lambda: serial(one) == second)
        assert shown(one.ip, files) == second
        third = files.fresh()
        until(lambda: serial(one) == third, "found by itself")
        files.paths["key"].write_bytes(b"rubbish")
        one.signal(signal.SIGHUP)
        until(lambda: "is not a PEM private key" in one.json("/server_info")["identity"]["last_error"])
        assert serial(one) == third == shown(one.ip, files)
        assert f"{files.paths['key']}: is not a PEM private key; the identity stays as it was" in one.log()
        fourth = files.fresh()
        until(lambda: serial(one) == fourth, "and taken again when it is good")
        assert one.json("/server_info")["identity"]["last_error"] == ""


def test_every_worker_has_it_and_a_new_one_too(files: Files) -> None:
    first = files.fresh()
    with Sidecar(inbound(), "--concurrency", "2", *files.options()) as one:
        assert {shown(one.ip, files) for _ in range(20)} == {first}
        before = set(one.children())
        os.kill(min(before), signal.SIGKILL)
        until(lambda: one.get("/ready")[0] == 200 and len(set(one.children()) - before) == 1, "another worker", 20)
        assert {shown(one.ip, files) for _ in range(20)} == {first}
        second = files.fresh()
        one.signal(signal.SIGHUP)
        until(lambda: {shown(one.ip, files) for _ in range(20)} == {second})


def test_files_that_do_not_fit_are_said_at_the_start_in_one_line(files: Files) -> None:
    files.paths["cert"].write_bytes(b"x")
    files.paths["roots"].write_bytes(b"y")
    with pytest.raises(AssertionError) as caught:
        Sidecar(Config(), *files.options(), home=files.home)
    log = str(caught.value)
    rubbish = "holds no PEM certificate, or one that cannot be read"
    assert f"meshproxy: {files.paths['cert']}: {rubbish}; {files.paths['roots']}: {rubbish}\n" in log
    assert "Traceback" not in log and json.dumps(log).count("meshproxy: ") == 1
