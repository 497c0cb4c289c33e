"""The sidecar without any telemetry, for ``benchmarks.seeing``: ``-m benchmarks.blind`` instead of ``-m meshproxy``.

No configuration says this: ``Telemetry`` chooses which metrics are shown, but the counting goes on, because control's own picture
is made of it. So the counting is taken out here.
"""

from __future__ import annotations

from typing import Any

from meshproxy.__main__ import main
from meshproxy.telemetry.observe import Observer


def _finished(self: Observer, record: Any, now: float) -> None:
    """Count nothing."""


if __name__ == "__main__":
    Observer.finished = _finished  # type: ignore[method-assign]
    main()
