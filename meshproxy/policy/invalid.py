"""Room: policy. The one exception of config time: a value that decodes but cannot be obeyed.

In: nothing. Out: ``Invalid``, raised by every ``compile`` in this room, never on the data path. ``apply.py`` turns it into a
refusal (NACK) that names the resource.
"""

from __future__ import annotations

__all__ = ["Invalid"]


class Invalid(ValueError):
    """``path`` is the field inside the resource (``virtual_hosts[0].routes[2].match.path``); ``message`` says what to do."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message
