"""Asking for a certificate over real TLS: a scripted control that signs, refuses, lies, or is not there."""

from __future__ import annotations

import asyncio
import datetime
import gc
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshproxy.agent.client import AgentConfig
from meshproxy.agent.identity import Enrolment
from meshproxy.agent.tasks import spawn
from meshproxy.model.base import encode
from meshproxy.model.delivery import SignedCertificate
from meshproxy.model.security import Trust
from meshproxy.tls.identity import Identity
from tests.certs import DAY, Authority, spiffe

BOOK = spiffe("book")
Answer = Callable[["Control", bytes], tuple[int, bytes]]


class Control:
    """Answers each request for a certificate with the next of ``answers`` (the last again and again)."""

    def __init__(self, home: Path, *answers: Answer) -> None:
        self.root = Authority("root")
        self.door = Authority("door")  # who signed the certificate of its door
        self.answers = list(answers) or [signs()]
        self.asked: list[tuple[str, bytes]] = []  # path, CSR
        self.tokens: list[str] = []
        self.ca_file, self.token_file = home / "ca.pem", home / "token"
        self.ca_file.write_bytes(self.door.pem)
        self.token_file.write_text("the-token\n")
        self.home = home

    def context(self, door: Authority) -> ssl.SSLContext:
        pair = door.issue(ip=("127.0.0.1",))
        (self.home / "door.pem").write_bytes(pair.both)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.home / "door.pem")
        return context

    async def open(self, port: int = 0, door: Authority | None = None) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port, ssl=self.context(door or self.door))
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(fields["content-length"]))
            self.tokens.append(fields["authorization"])
            self.asked.append((head.split(" ")[1], body))
            script = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            status, answer = script(self, msgspec.json.decode(body)["csr"].encode())
            writer.write(b"HTTP/1.1 %d Thus\r\ncontent-length: %d\r\n\r\n" % (status, len(answer)) + answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def config(self) -> AgentConfig:
        return AgentConfig(
            control=f"https://127.0.0.1:{self.port}",
            ca_file=self.ca_file,
            token_file=self.token_file,
            namespace="default",
            pod="book",
        )


def sign(by: Authority, csr: bytes, uri: str, life: float) -> bytes:
    """What ``Authority.issue`` makes, for the key of a request. Its end is cut to a whole second."""
    leaf = x509.load_pem_x509_certificate(by.issue(uri).certificate)
    end = datetime.datetime.fromtimestamp(time.time() + life, datetime.UTC)
    key = x509.load_pem_x509_csr(csr).public_key()
    built = x509.CertificateBuilder().subject_name(leaf.subject).issuer_name(leaf.issuer).public_key(key)
    built = built.serial_number(x509.random_serial_number()).not_valid_before(end - datetime.timedelta(days=2))
    built = built.not_valid_after(end)
    for extension in leaf.extensions:
        built = built.add_extension(extension.value, extension.critical)
    return built.sign(by._key, leaf.signature_hash_algorithm).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def signs(life: float = DAY, uri: str = BOOK, said: str = BOOK, roots: bool = True, foreign: bool = False) -> Answer:
    def answer(control: Control, csr: bytes) -> tuple[int, bytes]:
        chain = control.root.issue(uri).certificate if foreign else sign(control.root, csr, uri, life)
        signed = SignedCertificate(
            certificate=chain.decode(),
            roots=(control.root.pem.decode(),) if roots else (),
            issuer=control.root.fingerprint,
            expires=time.time() + life,
            identity=said,
        )
        return 201, encode(signed)

    return answer


def says(status: int, body: bytes = b"{}") -> Answer:
    return lambda control, csr: (status, body)


def refuses(why: str = "forbidden: identity is revoked") -> Answer:
    return says(403, encode({"message": why}))


class Story:
    def __init__(self, control: Control, enrolment: Enrolment, taken: list[Identity]) -> None:
        self.control, self.enrolment, self.taken = control, enrolment, taken

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.002)

    async def got(self, count: int) -> None:
        await self.until(lambda: len(self.taken) >= count)


def play(home: Path, *answers: Answer, story: Callable[[Story], Coroutine[Any, Any, None]], **more: Any) -> None:
    async def main() -> None:
        control = Control(home, *answers)
        await control.open()
        taken: list[Identity] = []
        enrolment = Enrolment(control.config(), more.pop("take", taken.append), draw=lambda: 0.5, **more)
        task = spawn(enrolment.run(), "identity")
        try:
            await story(Story(control, enrolment, taken))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await control.close()

    asyncio.run(main())
    gc.collect()


def test_a_certificate_for_a_key_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(it: Story) -> None:
        await it.enrolment.asked.wait()
        (identity,) = it.taken
        assert identity is it.enrolment.identity
        assert (identity.uri, identity.issuer, identity.roots) == (BOOK, it.control.root.fingerprint, (it.control.root.pem,))
        assert it.control.asked[0][0] == "/mesh/v1/certificate"
        assert it.control.tokens == ["bearer the-token"]
        assert b"PRIVATE" not in it.control.asked[0][1], "the key stays here"
        assert identity.key.startswith(b"-----BEGIN PRIVATE KEY-----")
        assert it.enrolment.roots() == (it.control.root.pem.decode(),)
        assert (it.enrolment.status.renewals, it.enrolment.status.failures) == (0, 0)

    with caplog.at_level(logging.DEBUG):
        play(tmp_path, story=story)
    assert f"certificate of {BOOK}: serial " in caplog.text
    assert "PRIVATE" not in caplog.text and "the-token" not in caplog.text


def test_a_new_key_in_time_again_and_again(tmp_path: Path) -> None:
    async def story(it: Story) -> None:
        await it.got(3)
        assert len({one.key for one in it.taken}) == len(it.taken)
        await it.until(lambda: it.enrolment.status.renewals == len(it.taken) - 1)

    play(tmp_path, signs(life=2.0), story=story)


def test_another_root_is_followed_at_once(tmp_path: Path) -> None:
    async def story(it: Story) -> None:
        await it.got(1)
        it.enrolment.trusted(Trust(issuer=it.control.root.fingerprint, roots=(it.control.root.pem.decode(),)))
        old, it.control.root = it.control.root, Authority("second")
        both = (old.pem.decode(), it.control.root.pem.decode())
        it.enrolment.trusted(Trust(issuer=it.control.root.fingerprint, roots=both))
        await it.got(2)
        assert it.taken[1].issuer == it.control.root.fingerprint

    play(tmp_path, story=story)


def test_a_revoked_serial_is_replaced_at_once(tmp_path: Path) -> None:
    async def story(it: Story) -> None:
        await it.got(1)
        serial = x509.load_pem_x509_certificate(it.taken[0].certificate).serial_number
        it.enrolment.trusted(Trust(issuer=it.control.root.fingerprint, revoked_serials=(f"{serial:x}",)))
        await it.got(2)

    play(tmp_path, story=story)


def test_what_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [
        (says(500), "answered 500: no reason given"),
        (says(201, b"{}"), "its answer is not understood: Object missing required field"),
        (says(201, b"\xff"), "its answer is not understood: "),
        (signs(foreign=True), "its answer holds a certificate for another key than ours"),
        (signs(uri=spiffe("rating")), f"its answer says that we are '{BOOK}', but its certificate is for '{spiffe('rating')}'"),
        (signs(roots=False), "its answer holds no root to trust"),
        (signs(life=-1.0), "its answer holds a certificate that ended at "),
    ]

    async def story(it: Story) -> None:
        await it.got(1)
        assert it.enrolment.status.failures == len(bad)
        assert it.enrolment.status.last_error == ""

    play(tmp_path, *(answer for answer, _ in bad), signs(), story=story)
    told = [record.message for record in caplog.records]
    assert [said for _, said in bad if not any(said in line for line in told)] == []
    assert all(line.startswith("no certificate: 127.0.0.1:") for line in told)


def test_what_the_data_path_cannot_use_does_not_count(tmp_path: Path) -> None:
    tries: list[Identity] = []

    def take(identity: Identity) -> None:
        tries.append(identity)
        if len(tries) == 1:
            raise ValueError("no such curve")

    async def story(it: Story) -> None:
        await it.until(lambda: len(tries) == 2)
        await it.until(lambda: it.enrolment.identity is tries[1])
        assert it.enrolment.status.failures == 1

    play(tmp_path, take=take, story=story)


def test_no_is_said_clearly_and_kept_in_mind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(it: Story) -> None:
        await it.enrolment.asked.wait()
        assert "answered 403: forbidden: identity is revoked" in it.enrolment.status.last_error
        it.enrolment.reached()
        await asyncio.sleep(0)
        assert len(it.control.asked) == 1
        it.enrolment.trusted(Trust(issuer="new"))  # the mesh has changed: it may be undone
        await it.got(1)

    play(tmp_path, refuses(), signs(), story=story)
    assert "no certificate: control refuses us our identity: 127.0.0.1:" in caplog.text


def test_a_revoked_identity_is_told_and_keeps_its_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(it: Story) -> None:
        await it.got(1)
        it.enrolment.trusted(Trust(issuer=it.control.root.fingerprint, revoked_identities=(BOOK,)))
        await it.until(lambda: "is revoked: peers refuse us" in caplog.text)
        assert it.enrolment.identity is it.taken[0]

    play(tmp_path, story=story)


def test_the_old_one_is_kept_while_control_is_down_and_its_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(it: Story) -> None:
        await it.got(1)
        await it.control.close()
        await it.until(lambda: "certificate not renewed, the old one lasts until" in caplog.text)
        assert it.enrolment.identity is it.taken[0]
        await it.until(lambda: "no mutual TLS until control gives another" in caplog.text)
        assert it.enrolment.identity is it.taken[0]
        await it.control.open(it.control.port)
        it.enrolment.reached()
        await it.got(2)

    play(tmp_path, signs(life=3.0), signs(), story=story)


def test_control_that_is_heard_again_is_asked_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        control = Control(tmp_path)
        await control.open()
        port = control.port
        await control.close()
        now = time.time()
        taken: list[Identity] = []
        enrolment = Enrolment(control.config(), taken.append, clock=lambda: now, draw=lambda: 0.5)
        task = spawn(enrolment.run(), "identity")
        await enrolment.asked.wait()  # and the clock stands still, so that no other try follows by itself
        await control.open(port)
        enrolment.reached()
        async with asyncio.timeout(10):
            while not taken:
                await asyncio.sleep(0.002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await control.close()

    asyncio.run(main())


def test_controls_own_certificate_may_stand_under_the_roots_of_the_mesh(tmp_path: Path) -> None:
    """The root changes, the door's certificate with it, and the file stays as it was."""

    async def story(it: Story) -> None:
        await it.got(1)
        await it.control.close()
        await it.control.open(it.control.port, door=it.control.root)
        it.enrolment.trusted(Trust(issuer="other"))
        await it.got(2)

    play(tmp_path, story=story)


def test_the_roots_do_not_stand_for_the_name(tmp_path: Path) -> None:
    """Whoever has a certificate of the mesh is not yet control."""

    async def main() -> None:
        control = Control(tmp_path)
        control.ca_file.write_bytes(control.root.pem)
        pair = control.root.issue(spiffe("rating"))
        (tmp_path / "door.pem").write_bytes(pair.both)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "door.pem")
        server = await asyncio.start_server(control.serve, "127.0.0.1", 0, ssl=context)
        control.port = server.sockets[0].getsockname()[1]
        enrolment = Enrolment(control.config(), lambda identity: None, draw=lambda: 0.5)
        task = spawn(enrolment.run(), "identity")
        await enrolment.asked.wait()
        assert "its certificate is not under" in enrolment.status.last_error
        assert control.tokens == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_missing_token_is_told_without_asking(tmp_path: Path) -> None:
    async def story(it: Story) -> None:
        await it.got(1)
        it.control.token_file.unlink()
        it.enrolment.trusted(Trust(issuer="other"))
        await it.until(lambda: it.enrolment.status.last_error == f"{it.control.token_file}: No such file or directory")
        assert len(it.control.asked) == 1

    play(tmp_path, story=story)
