"""The certificate authority where it is kept in a cluster (room ``cluster``): one Secret, shared by all replicas.

In: the Secret's data. Out: ``ClusterAuthority``, an ``Authority`` whose steps are durable in the Secret before they count, and
``pack``/``unpack`` between the two. The Secret has Istio's four files for who signs now, so that it is what istiod would write
and read; a rotation adds the other authority's four, behind its id, and ``state.json``. What Istio wrote, without that, counts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from control.ca.authority import Authority, State
from control.ca.issuer import Issuer, pem
from control.ca.material import CA_CERT, CA_KEY, CHAIN, ROOT_CERT, load, make_root
from control.cluster.names import CA_SECRET, CACERTS
from control.files import FileProblem, write_private

__all__ = ["CACERTS", "CA_SECRET", "ClusterAuthority", "begin", "given", "pack", "unpack"]

STATE = "state.json"
FILES = (CA_CERT, CA_KEY, ROOT_CERT, CHAIN)
Data = Mapping[str, bytes]


def pack(state: State, issuers: Mapping[str, Issuer]) -> dict[str, bytes]:
    """The Secret's data."""
    data = {STATE: msgspec.json.encode(state)}
    for id_ in state.trusted:
        prefix = "" if id_ == state.issuer else f"{id_}."
        issuer = issuers[id_]
        data |= {
            prefix + CA_KEY: issuer.key_pem(),
            prefix + CA_CERT: pem(issuer.certificate),
            prefix + ROOT_CERT: b"".join(map(pem, issuer.roots)),
            prefix + CHAIN: b"".join(map(pem, issuer.above)),
        }
    return data


def unpack(data: Data, now: float, scratch: Path, name: str = CA_SECRET) -> tuple[State, dict[str, Issuer]]:
    """Raises ``FileProblem`` (one line) when it cannot be used, or has expired, at wall time ``now``."""
    issuer = _load(data, "", now, scratch, name)
    if STATE not in data:
        return State(issuer.id, (issuer.id,)), {issuer.id: issuer}
    try:
        state = msgspec.json.decode(data[STATE], type=State)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FileProblem(f"Secret {name}: {STATE} is damaged: remove that key to go on with {CA_CERT} alone") from error
    if state.issuer != issuer.id:  # somebody replaced the four files by hand: they count
        return State(issuer.id, (issuer.id,)), {issuer.id: issuer}
    issuers = {issuer.id: issuer}
    for id_ in state.trusted:
        if id_ != state.issuer:
            issuers[id_] = _load(data, f"{id_}.", now, scratch, name)
    if set(state.trusted) != issuers.keys():
        raise FileProblem(f"Secret {name}: {STATE} names other authorities than there are")
    return state, issuers


def begin(now: float, own: Issuer | None = None) -> tuple[State, dict[str, Issuer]]:
    """A mesh's first authority: the user's own, or a root of ours."""
    issuer = own or make_root(now)
    return State(issuer.id, (issuer.id,)), {issuer.id: issuer}


def given(data: Data, now: float, scratch: Path) -> Issuer:
    """The user's own authority. Raises ``FileProblem``."""
    return _load(data, "", now, scratch, CACERTS)


def _load(data: Data, prefix: str, now: float, scratch: Path, name: str) -> Issuer:
    """By the code that judges files, in a directory of mode 0700 that is gone at once."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".ca-") as directory:
        for file in FILES:
            if data.get(prefix + file):
                write_private(Path(directory, file), data[prefix + file])
        try:
            return load(Path(directory), now)
        except FileProblem as problem:
            kind, words = type(problem), str(problem).replace(f"{directory}/", f"Secret {name}: {prefix}")
            raise kind(words) from None


class ClusterAuthority(Authority):
    """``save`` makes data durable and returns; it runs in the authority's own thread and raises ``FileProblem``."""

    def __init__(self, state: State, issuers: dict[str, Issuer], scratch: Path, save: Callable[[dict[str, bytes]], None]) -> None:
        super().__init__(scratch, state, issuers)
        self._to_secret = save

    def adopt(self, state: State, issuers: dict[str, Issuer]) -> bool:
        """What another replica has made of it; False: nothing new."""
        if state == self._state:
            return False
        self._now = (state, issuers)
        return True

    def begin_with(self, own: Issuer, now: float) -> None:
        """Rotate to the user's own authority."""
        state, issuers = self._now
        self._begin(state, issuers, own, now, force=False)

    def packed(self) -> dict[str, bytes]:
        return pack(*self._now)

    def _store(self, fresh: Issuer) -> None:
        """It is written together with the state."""

    def _save(self, state: State, issuers: dict[str, Issuer]) -> None:
        self._to_secret(pack(state, issuers))

    def _publish(self) -> None:
        """There is no file for others here: the roots are in a ConfigMap of every namespace."""

    def _tidy(self) -> None:
        """The Secret holds what counts and nothing else."""
