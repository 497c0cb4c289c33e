"""One child process: in a session of its own, its output in a file, dead when its parent dies.

In: argv, environment, log file. Out: ``Child`` with an awaitable end. Loud. Assumes Linux (pidfd, PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from control.children import die_with_parent

__all__ = ["Child", "start_time"]


def start_time(pid: int) -> str | None:
    """When a process started: the boot, and the kernel's ticks since. With the pid it names one process for ever; without the
    boot a stranger could have both after a restart of the machine. None for what does not run: a zombie has ended too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot[:8]}-{fields[19]}"


class Child:
    """A running child. Its whole process group is ended with it, so a program's own children are not left behind."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path | None = None) -> None:
        """Starts it at once. Raises ``OSError`` when the program cannot be executed."""
        with log.open("ab", buffering=0) as out:
            self._popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Not reaped yet, so the pid, and with it the group's id, is still ours: no stranger can be hit.
        self.kill_group(signal.SIGKILL)
        code = self._popen.wait()
        if not self._ended.done():
            self._ended.set_result(code)

    async def wait(self) -> int:
        """The exit code; negative for a signal, as subprocess has it."""
        return await asyncio.shield(self._ended)

    @property
    def ended(self) -> bool:
        return self._ended.done()

    def kill_group(self, number: int) -> None:
        """Signal every process of the group. Does nothing once the child was reaped."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def stop(self, grace: float) -> None:
        """SIGTERM, ``grace`` seconds, SIGKILL."""
        if self.ended:
            return
        self.kill_group(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            self.kill_group(signal.SIGKILL)
            await self.wait()
