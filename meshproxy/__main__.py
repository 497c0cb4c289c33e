"""argv and environment to a running sidecar."""

from __future__ import annotations

import gc
import sys

from meshproxy import ask

__all__ = ["main"]


def main() -> None:
    """The ``meshproxy`` command. Exit codes: 0 after a drain, 1 when it cannot run, 2 for bad settings; ``init``: its own."""
    if sys.argv[1:2] == ["init"]:
        from meshproxy.capture.command import main as init

        raise SystemExit(init(sys.argv[2:]))
    if sys.argv[1:2] and sys.argv[1] in ask.COMMANDS:  # Kubernetes waits for these: nothing else is loaded
        raise SystemExit(ask.main(sys.argv[1:]))
    from meshproxy.bootstrap import read

    bootstrap = read()
    import uvloop

    from meshproxy.app import Cannot, run

    # Requests leave no cycles behind, so the collector may look seldom.
    gc.set_threshold(20_000, 50, 50)
    try:
        uvloop.run(run(bootstrap))
    except Cannot as no:
        sys.stderr.write(f"meshproxy: {no}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
