"""The mesh's certificate authority as it is kept (room ``ca``): which issuer signs, which roots are trusted, how that changes.

In: a directory and the wall time. Out: ``Authority``: the issuer of now, the roots to trust, and the three steps of a rotation
(``begin``, ``switch``, ``finish``). Assumes that the directory belongs to this process alone.

Each issuer has a directory of its own (``material``), named by its id and never changed. ``state.json`` says which of them count,
and replacing it is the only thing that a step does: a crash leaves the step undone or done. What it does not name is rubbish of
a crash and goes. ``root.pem`` holds the trusted roots for others to read (sidecars' ``--control-ca``); it is made from the state.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography import x509
from msgspec.structs import replace

from control.ca.issuer import Issuer, ServerCertificate, fingerprint, pem
from control.ca.material import Expired, keep, load, load_files, make_root, move_in
from control.files import FileProblem, write_private

__all__ = ["Authority", "Rotating", "State"]

STATE = "state.json"


class Rotating(msgspec.Struct, frozen=True):
    """A change of issuer under way. Times are wall time; ``switched`` is 0 while the old issuer still signs.

    ``force``: nobody who is away is waited for.
    """

    started: float
    switched: float = 0.0
    force: bool = False


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``trusted``: ids of issuers whose roots count, oldest first; two during a rotation."""

    issuer: str
    trusted: tuple[str, ...]
    rotating: Rotating | None = None
    rotated: float = 0.0  # when the last rotation ended


class Authority:
    def __init__(self, directory: Path, state: State, issuers: dict[str, Issuer]) -> None:
        self._directory = directory
        self._now = (state, issuers)  # one value: whoever reads in another thread sees both before or both after a step

    def __repr__(self) -> str:
        return f"Authority({self._state.issuer})"

    @property
    def _state(self) -> State:
        return self._now[0]

    @classmethod
    def open(cls, directory: Path, now: float, given: Path | None = None) -> Authority:
        """Load what is there, or begin: with the authority in ``given``, or with a root of our own.

        Raises ``FileProblem`` when anything is missing, unreadable, garbage or does not belong together, or when the issuer has
        expired at wall time ``now``. A damaged authority is never replaced in silence: every sidecar trusts the old one. One
        that has expired is replaced by the one in ``given``: it can no longer be rotated.
        """
        state_file = directory / STATE
        if not state_file.exists():
            _begin(directory, now, given)
        state = _read(state_file)
        issuers, expired = _load(directory, state, now)
        if not issuers and given is None:
            raise FileProblem(f"{expired}: start once with --ca-dir DIR to go on under another authority")
        if not issuers:
            assert given is not None
            fresh = load(given, now)
            _keep(directory, fresh)
            issuers = {fresh.id: fresh}
        if expired is not None:  # during a rotation: what is left is what holds
            kept = state.issuer if state.issuer in issuers else next(reversed(issuers))
            issuers = {kept: issuers[kept]}
            state = State(kept, (kept,), None, now)
            _write(directory, state)
        authority = cls(directory, state, issuers)
        authority._tidy()
        authority._publish()
        return authority

    # -- what holds now --------------------------------------------------------------------------------------------------

    @property
    def issuer(self) -> Issuer:
        state, issuers = self._now
        return issuers[state.issuer]

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """All that are trusted, oldest first."""
        state, issuers = self._now
        return tuple(issuers[id_] for id_ in state.trusted)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """Whom to trust, each once."""
        found = {fingerprint(root): root for issuer in self.issuers for root in issuer.roots}
        return tuple(found.values())

    @property
    def root_pem(self) -> bytes:
        return b"".join(map(pem, self.roots))

    @property
    def root_id(self) -> str:
        """SHA-256 of the root that the issuer stands under, as in ``Trust.issuer``."""
        return fingerprint(self.issuer.root)

    @property
    def rotating(self) -> Rotating | None:
        return self._state.rotating

    @property
    def rotated(self) -> float:
        return self._state.rotated

    @property
    def expires(self) -> float:
        """Wall time at which nothing can be issued any more."""
        return self.issuer.expires

    def issue_server(self, names: Iterable[str], now: float, lifetime: float) -> ServerCertificate:
        return self.issuer.issue_server(names, now, lifetime)

    # -- the steps of a rotation -----------------------------------------------------------------------------------------

    def begin(self, now: float, given: Path | None = None, force: bool = False) -> None:
        """Trust one more: a new root of our own, or the authority in ``given``. The old one still signs."""
        state, issuers = self._now
        assert state.rotating is None
        fresh = make_root(now) if given is None else load(given, now)
        if fresh.id in issuers:
            raise FileProblem(f"{given}: is the authority that signs already: put the new one's files there")
        self._begin(state, issuers, fresh, now, force)

    def _begin(self, state: State, issuers: dict[str, Issuer], fresh: Issuer, now: float, force: bool) -> None:
        self._store(fresh)
        rotating = Rotating(now, force=force)
        self._change(replace(state, trusted=(*state.trusted, fresh.id), rotating=rotating), {**issuers, fresh.id: fresh})

    def force(self) -> None:
        """From now on wait for nobody who is away."""
        state, issuers = self._now
        assert state.rotating is not None
        self._change(replace(state, rotating=replace(state.rotating, force=True)), issuers)

    def switch(self, now: float) -> None:
        """Sign with the new one."""
        state, issuers = self._now
        assert state.rotating is not None and not state.rotating.switched
        self._change(replace(state, issuer=state.trusted[-1], rotating=replace(state.rotating, switched=now)), issuers)

    def finish(self, now: float) -> None:
        """Trust the new one only, and destroy the old one's key."""
        state, issuers = self._now
        assert state.rotating is not None and state.rotating.switched
        kept = state.issuer
        self._change(State(kept, (kept,), None, now), {kept: issuers[kept]})
        self._tidy()

    def _store(self, fresh: Issuer) -> None:
        """Before anything names it."""
        _keep(self._directory, fresh)

    def _save(self, state: State, issuers: dict[str, Issuer]) -> None:
        """``state`` counts once this returns. Raises ``FileProblem``: then it does not."""
        _write(self._directory, state)

    def _change(self, state: State, issuers: dict[str, Issuer]) -> None:
        self._save(state, issuers)
        self._now = (state, issuers)
        self._publish()

    def _publish(self) -> None:
        path, wanted = self._directory / "root.pem", self.root_pem
        if not path.exists() or path.read_bytes() != wanted:
            write_private(path, wanted)

    def _tidy(self) -> None:
        """Remove issuers that do not count: of a rotation that ended, or that a crash kept from beginning."""
        (self._directory / "root.key").unlink(missing_ok=True)  # where the key was kept before it could rotate
        for path in self._directory.iterdir():
            name = path.name.removeprefix(".").partition(".")[0]
            if path.is_dir() and _is_id(name) and path.name not in self._state.trusted:
                shutil.rmtree(path, ignore_errors=True)


def _is_id(name: str) -> bool:
    return len(name) == 16 and set(name) <= set("0123456789abcdef")


def _load(directory: Path, state: State, now: float) -> tuple[dict[str, Issuer], Expired | None]:
    """Those that can still sign; and of those that cannot any more, one."""
    issuers: dict[str, Issuer] = {}
    expired = None
    for id_ in state.trusted:
        try:
            issuers[id_] = load(directory / id_, now)
        except Expired as problem:
            expired = problem
    return issuers, expired


def _keep(directory: Path, issuer: Issuer) -> None:
    place = directory / issuer.id
    if place.exists():  # of an attempt that a crash ended before it counted, or a root that is coming back
        shutil.rmtree(place)
    keep(issuer, place)


def _begin(directory: Path, now: float, given: Path | None) -> None:
    """Make the directory, or bring one of an earlier release (``root.pem`` and ``root.key``) into today's form."""
    certificate_file, key_file = directory / "root.pem", directory / "root.key"
    if certificate_file.exists() or key_file.exists():
        for path, other in ((certificate_file, key_file), (key_file, certificate_file)):
            if not path.exists():
                raise FileProblem(f"{path}: is missing while {other.name} exists: restore it, or remove {other} too")
        found = load_files(certificate_file, key_file, directory / "none", directory / "none", now)
        _keep(directory, found)
        _write(directory, State(found.id, (found.id,)))
        return
    issuer = make_root(now) if given is None else load(given, now)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        _keep(scratch, issuer)
        _write(scratch, State(issuer.id, (issuer.id,)))
        move_in(scratch, directory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _read(path: Path) -> State:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except OSError as error:
        raise FileProblem(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FileProblem(f"{path}: is damaged: restore {path.parent} from a backup") from error
    if state.issuer not in state.trusted or not all(map(_is_id, state.trusted)):
        raise FileProblem(f"{path}: names no issuer: restore {path.parent} from a backup")
    return state


def _write(directory: Path, state: State) -> None:
    write_private(directory / STATE, msgspec.json.encode(state) + b"\n")
