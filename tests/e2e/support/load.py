"""Clients that ask without a pause and count: what was answered, how, and what was asked but never answered."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.e2e.support.sockets import connect, until


class Load:
    """``clients`` threads. ``lost``: requests that were sent and got no whole answer, with the reason. ``statuses``: the answers.

    keep: ask on one connection until its server closes it; else one connection per request. A connection that cannot be opened
    loses nothing: the client knows that it was not heard. With ``ends`` it ends the client; else it counts as a failure.
    """

    def __init__(
        self, address: tuple[str, int], host: str, clients: int = 4, *, keep: bool = True, ends: bool = False, path: str = "/"
    ) -> None:
        self.statuses: Counter[int] = Counter()
        self.closes = 0
        self.lost: list[str] = []
        self._address = address
        self._request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{'' if keep else 'connection: close' + chr(13) + chr(10)}\r\n"
        self._keep = keep
        self._ends = ends
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self.join()

    def join(self, seconds: float = 20) -> None:
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive()

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def more(self, count: int, seconds: float = 20) -> None:
        """Wait until that many more have been answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or self.lost, f"{count} more answers", seconds)

    def _run(self) -> None:
        request = self._request.encode()
        while not self._stop.is_set():
            try:
                peer = connect(self._address)
            except OSError as error:
                if not self._ends:
                    self.lost.append(f"connect: {error!r}")
                return
            with peer:
                while not self._stop.is_set():
                    try:
                        answer = peer.ask(request)
                    except (OSError, EOFError) as error:
                        self.lost.append(repr(error))
                        return
                    self.statuses[answer.status] += 1
                    if answer.headers.get("connection") == "close":
                        self.closes += 1
                        break
