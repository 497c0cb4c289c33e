"""Two sessions joined in memory, and vaults that hold what a test says."""

from __future__ import annotations

from collections.abc import Mapping

from meshproxy.model.security import Secret, Trust
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from tests.certs import Authority, spiffe

__all__ = ["ROOT", "contexts", "joined", "mesh_vault", "shake"]

ROOT = Authority("mesh root")


def mesh_vault(account: str, root: Authority = ROOT, *, trust: Trust | None = None, **leaf: float) -> Vault:
    """The vault of a sidecar of this account."""
    vault = Vault()
    vault.identify(root.identity(spiffe(account), **leaf))
    vault.configure(trust if trust is not None else Trust(roots=(root.root.decode(),)), {})
    return vault


def secret(name: str, **fields: bytes) -> Mapping[str, Secret]:
    return {name: Secret(name=name, **{field: value.decode() for field, value in fields.items()})}


def contexts(server: Vault, client: Vault) -> tuple[Session, Session]:
    """A session of either side; nothing is sent yet."""
    door, call = server.mesh_server(), client.mesh_client()
    assert not isinstance(door, Session) and not isinstance(call, Session)
    return Session(door, True), Session(call, False)  # type: ignore[arg-type]


def shake(server: Session, client: Session) -> None:
    """Carry bytes to and fro until neither has more to say."""
    client.start()
    while True:
        out = client.take()
        if out:
            server.receive(out)
        back = server.take()
        if back:
            client.receive(back)
        if not out and not back:
            return


def joined(server: Vault, client: Vault) -> tuple[Session, Session]:
    """(server's session, client's session), handshaken unless one of them has a fault."""
    ends = contexts(server, client)
    shake(*ends)
    return ends
