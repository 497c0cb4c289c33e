"""Rules for the whole test run: which tests are left out, that it is said, and that CI may not leave any out.

A test that needs a program says ``@pytest.mark.system("siege", "kubectl")``. Where a program is missing the test is skipped
and named at the end with the remedy. With ``MESH_NO_SKIP=1`` any skip, whatever its reason, makes the run fail.

Property tests draw the same examples in every run, and a busy machine fails none: Hypothesis' own deadline is a timing assertion.
``MESH_FUZZ=1`` draws anew, to look for what the usual examples do not meet.
"""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import settings

settings.register_profile("mesh", deadline=None, derandomize=os.environ.get("MESH_FUZZ", "") in ("", "0"), database=None)
settings.load_profile("mesh")

# A proxy of the user's environment must not get between tests and loopback servers.
for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "KUBECONFIG"):
    os.environ.pop(_name, None)


def no_skip() -> bool:
    return os.environ.get("MESH_NO_SKIP", "") not in ("", "0")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("system"):
        missing = [program for program in mark.args if shutil.which(program) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}: {_remedy(missing)}")


def _remedy(missing: list[str]) -> str:
    return "install kubectl 1.27 or newer" if "kubectl" in missing else "run `make system-deps`"


def _skips(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", ())) if reporter is not None else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if no_skip() and _skips(session.config) and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = _skips(config)
    if not left_out:
        return
    verdict = "failures here, because MESH_NO_SKIP is set" if no_skip() else "the rest ran"
    terminalreporter.section(f"left out: {len(left_out)} ({verdict})")
    for report in left_out:
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.line(f"{report.nodeid}: {why.removeprefix('Skipped: ')}")
