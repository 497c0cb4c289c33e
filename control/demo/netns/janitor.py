"""``python -m control.demo.netns.janitor NETWORK [SPACE ...]``: waits for the end of its input, then removes. Loud.

It is a process of its own so that a launcher that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import signal
import sys

from control.demo.netns.layout import Layout
from control.demo.netns.network import remove

__all__ = ["main"]


def main(argv: list[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    remove(Layout(argv[0]), argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
