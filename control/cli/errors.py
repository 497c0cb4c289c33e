"""The one exception of the command line: a line for stderr and an exit code.

In: nothing. Out: ``CliError``. Assumes the message says what to do.
"""

from __future__ import annotations

__all__ = ["CliError"]


class CliError(Exception):
    """``line`` is printed as it is, after ``error: `` unless it brings a prefix of its own."""

    def __init__(self, message: str, code: int = 1, prefix: str = "error: ") -> None:
        super().__init__(message)
        self.line = f"{prefix}{message}"
        self.code = code
