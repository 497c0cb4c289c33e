"""``python -m meshproxy.capture``: ``mesh-init`` without its console script."""

from __future__ import annotations

from meshproxy.capture.command import main

raise SystemExit(main())
