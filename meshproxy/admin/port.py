"""Admin room: what the admin pages ask of the sidecar. Implemented by ``app.py``.

Questions may be answered at once or by an awaitable (with several workers the answer has to be gathered). Answers are plain
values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator
from typing import Any, Protocol

from meshproxy.podenv import Prober

__all__ = ["AdminPort", "Place"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class Place(Protocol):
    """Where the pages are served; what is read of the ``Bootstrap``."""

    @property
    def ip(self) -> str: ...
    @property
    def admin_bind(self) -> str: ...
    @property
    def admin_port(self) -> int: ...
    @property
    def health_port(self) -> int: ...
    @property
    def metrics_port(self) -> int: ...
    @property
    def prometheus_port(self) -> int | None: ...
    @property
    def status_bind(self) -> str: ...
    @property
    def app_probers(self) -> tuple[tuple[str, Prober], ...]: ...


class AdminPort(Protocol):
    def ready(self) -> str:
        """ "" when traffic is served; else why not, in a word or two: ``no configuration yet``, ``no certificate yet``."""
        ...

    def info(self) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """``/server_info``: version, node, uptime, workers, state of the stream to control, command line."""
        ...

    def dump(self) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """``/config_dump``: see ``admin.dump.config_dump``. Without secrets."""
        ...

    def certs(self) -> dict[str, Any] | Awaitable[dict[str, Any]]:
        """``/certs``: certificates as Envoy shows them. Without keys."""
        ...

    def clusters(self) -> list[dict[str, Any]] | Awaitable[list[dict[str, Any]]]:
        """``cluster.status.cluster_status`` of every cluster."""
        ...

    def listeners(self) -> list[dict[str, Any]] | Awaitable[list[dict[str, Any]]]:
        """``name`` and ``address`` ("ip:port") of every listener, and whatever else is known."""
        ...

    def plaintext(self) -> list[dict[str, Any]] | Awaitable[list[dict[str, Any]]]:
        """Who has called in plaintext where mutual TLS is welcome: ``listener``, ``source``, ``workload``, ``namespace``,
        ``requests``, ``seen`` (Unix seconds)."""
        ...

    def stats(self) -> Iterable[tuple[str, float]] | Awaitable[Iterable[tuple[str, float]]]:
        """``telemetry.exposition.stats`` of all families."""
        ...

    def metrics(self, accept: str) -> tuple[str, Iterator[bytes]] | Awaitable[tuple[str, Iterator[bytes]]]:
        """``telemetry.exposition.exposition`` of all families."""
        ...

    def scrape(self, accept: str, patience: float) -> tuple[str, Iterator[bytes]] | Awaitable[tuple[str, Iterator[bytes]]]:
        """The same, and the app's own where there are any. ``patience``: seconds that may go into asking the app."""
        ...

    def log_level(self) -> str: ...

    def set_log_level(self, level: str) -> None:
        """``level``: one of ``LOG_LEVELS``."""
        ...

    def drain(self) -> None:
        """Send callers away; go on with what is in flight and with what the app asks. Returns at once."""
        ...

    def quit(self) -> None:
        """Drain, then end the process. Returns at once."""
        ...
