"""The identity from files: taken, taken anew, kept when what came cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from meshproxy.agent.identity_files import IdentityFiles
from meshproxy.tls.identity import Identity
from tests.certs import Authority, Pair, spiffe

ROOT = Authority("root")
BOOK = spiffe("book")


class Files:
    def __init__(self, home: Path, pair: Pair) -> None:
        self.certificate, self.key, self.roots = home / "cert.pem", home / "key.pem", home / "roots.pem"
        self.write(pair)
        self.roots.write_bytes(ROOT.pem)
        self.taken: list[Identity] = []
        self.source = IdentityFiles(self.certificate, self.key, self.roots, self.taken.append)

    def write(self, pair: Pair) -> None:
        self.certificate.write_bytes(pair.certificate)
        self.key.write_bytes(pair.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, ROOT.issue(BOOK))


def test_three_files_are_an_identity(files: Files) -> None:
    files.source.load()
    (identity,) = files.taken
    assert identity is files.source.identity
    assert (identity.uri, identity.issuer, identity.roots) == (BOOK, ROOT.fingerprint, (ROOT.pem,))
    assert (files.source.problem, files.source.loads) == ("", 1)


def test_the_same_again_is_no_news(files: Files) -> None:
    files.source.load()
    files.source.load()
    assert (len(files.taken), files.source.loads) == (1, 1)


def test_new_files_take_their_place(files: Files) -> None:
    files.source.load()
    pair = ROOT.issue(BOOK)
    files.write(pair)
    files.source.load()
    assert [one.certificate for one in files.taken][1] == pair.certificate
    assert files.source.loads == 2


def test_bad_files_change_nothing_and_are_told_once(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.source.load()
    (before,) = files.taken
    other = ROOT.issue(BOOK)
    with caplog.at_level(logging.ERROR):
        files.key.write_bytes(other.key)
        files.source.load()
        files.source.load()
        assert files.source.problem == f"{files.key}: is not the key of {files.certificate}"
        files.key.write_bytes(b"rubbish")
        files.source.load()
        assert files.source.problem == f"{files.key}: is not a PEM private key"
        files.write(ROOT.issue((), dns=("book",)))
        files.source.load()
        assert files.source.problem == f"{files.certificate}: names no spiffe:// identity"
        files.write(ROOT.issue(BOOK, ends=-60.0))
        files.source.load()
        assert "cert.pem: ended at " in files.source.problem
    assert len(caplog.records) == 4
    assert all("the identity stays as it was" in record.message for record in caplog.records)
    assert "PRIVATE" not in caplog.text
    assert (files.source.identity, files.source.failures) == (before, 5)
    files.write(other)
    files.source.load()
    assert (files.source.problem, files.source.loads) == ("", 2)


def test_everything_wrong_is_one_line(files: Files) -> None:
    files.certificate.write_bytes(b"x")
    files.key.unlink()
    files.roots.write_bytes(b"y")
    files.source.load()
    rubbish = "holds no PEM certificate, or one that cannot be read"
    assert files.source.problem == (
        f"{files.certificate}: {rubbish}; {files.key}: No such file or directory; {files.roots}: {rubbish}"
    )
    assert files.source.identity is None


def test_what_the_data_path_cannot_use_is_not_taken(files: Files) -> None:
    def refuse(identity: Identity) -> None:
        raise ValueError("its curve is not known here")

    source = IdentityFiles(files.certificate, files.key, files.roots, refuse)
    source.load()
    assert source.problem == f"{files.certificate}: its curve is not known here"
    assert source.identity is None


def test_one_that_has_ended_is_told_at_the_start(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """It may be what a test wants, and there is none to keep: peers refuse it."""
    files.write(ROOT.issue(BOOK, ends=-60.0))
    files.source.load()
    assert files.source.identity is not None
    assert "peers refuse us" in caplog.text


def test_one_of_another_root_is_told(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.write(Authority("other").issue(BOOK))
    files.source.load()
    assert files.taken[0].issuer == ""
    assert "does not stand under a root of" in caplog.text
