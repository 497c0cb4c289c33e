"""mesh-init with the real iptables, in network namespaces of the test's own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POD = ("istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "10.9.0.0/16,fd09::/32")
POD += ("-b", "*", "-d", "15090,15021,15020", "-c", "eth9", "-k", "vm0", "--log_output_level=default:info")
_numbers = itertools.count()

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "iptables-restore", "ip6tables-restore", "setpriv"))),
    reason="needs root, ip, iptables and setpriv",
)


def init(*words: str, within: tuple[str, ...] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = (*within, sys.executable, "-m", "meshproxy.capture", *words)
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**clean, **environ})


class Space:
    def __init__(self, name: str) -> None:
        self.within = ("ip", "netns", "exec", name)

    def init(self, *words: str, code: int = 0, **environ: str) -> str:
        done = init(*words, within=self.within, **environ)
        assert done.returncode == code, done.stderr
        return done.stderr

    def run(self, *words: str) -> str:
        done = subprocess.run((*self.within, *words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rules(self, kind: str = "") -> list[str]:
        """Both families', without their counters."""
        saved = self.run(f"iptables{kind}-save") + self.run(f"ip6tables{kind}-save")
        return [line for line in saved.splitlines() if line.startswith(("*", "-A", ":ISTIO"))]

    def six(self) -> bool:
        return "::6/128" in self.run("ip", "-6", "addr", "show", "lo")


@pytest.fixture
def space() -> Iterator[Space]:
    name = f"ci{os.getpid()}x{next(_numbers)}"
    subprocess.run(("ip", "netns", "add", name), check=True)
    try:
        made = Space(name)
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(("ip", "netns", "del", name), check=False)


@needs_root
def test_written_once_and_removed(space: Space) -> None:
    space.run("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "RETURN")
    assert "IPv4 and IPv6: connections are intercepted" in space.init(*POD)
    rules = space.rules()
    assert space.six()
    for rule in (
        "-A OUTPUT -j ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -d fd09::/32 -j RETURN",
        "-A ISTIO_OUTPUT -d 10.9.0.0/16 -j RETURN",
    ):
        assert rule in rules
    assert "intercepted already" in space.init(*POD)
    assert space.rules() == rules
    space.init("--clean", "-c", "eth9", "-k", "vm0")
    left = [rule for rule in space.rules() if not rule.startswith("*")]
    assert left == ["-A OUTPUT -p tcp -m tcp --dport 7 -j RETURN"]
    assert not space.six()
    assert "there were no rules" in space.init("--clean")


@needs_root
def test_other_rules_are_refused_or_replaced(space: Space) -> None:
    space.init(*POD)
    before = space.rules()
    said = space.init(*POD, "-q", "5432", code=1)
    assert "other rules are there already (IPv4): nat lacks `-A ISTIO_OUTPUT -p tcp --dport 5432 -j ISTIO_REDIRECT`" in said
    assert space.rules() == before
    space.init(*POD, "-q", "5432", "--force-apply")
    after = space.rules()
    assert sorted(set(after) - set(before)) == ["-A ISTIO_OUTPUT -p tcp -m tcp --dport 5432 -j ISTIO_REDIRECT"]
    assert len(after) == len(before) + 2
    space.init(*POD, "--reconcile")
    assert space.rules() == before


@needs_root
def test_what_dry_run_prints_can_be_restored(space: Space) -> None:
    done = init(*POD, "--dry-run", PATH="/nowhere")
    assert done.returncode == 0
    four, six = done.stdout.split("# ip6tables-restore --noflush\n")
    for program, text in (("iptables-restore", four), ("ip6tables-restore", six)):
        subprocess.run((*space.within, program, "--noflush"), input=text, text=True, check=True)
    assert "intercepted already" in space.init(*POD)


def fakes(folder: Path, **programs: str) -> str:
    """A PATH of programs that are what the system has, but for these."""
    for name in ("iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "sh", "cat"):
        if (real := shutil.which(name)) is not None:
            (folder / name).symlink_to(real)
    for name, script in programs.items():
        file = folder / name.replace("_", "-")
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    return str(folder)


@needs_root
@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_rules_join_those_of_the_variant_that_is_in_use(space: Space, tmp_path: Path, kind: str) -> None:
    """Programs that only tell what they were given: not every kernel has both variants."""
    others = "echo '*nat'; echo '-A OUTPUT -p tcp -j THEIRS'; echo COMMIT"
    programs = {f"{name}_{each}_save": "exit 0" for name in ("iptables", "ip6tables") for each in ("nft", "legacy")}
    programs[f"iptables_{kind}_save"] = others
    for name in ("iptables", "ip6tables"):
        for each in ("nft", "legacy"):
            programs[f"{name}_{each}_restore"] = f"cat > {tmp_path}/{name}-{each}.given"
    within = (*space.within, "env", f"PATH={fakes(tmp_path, **programs)}")
    done = init(*POD, within=within)
    assert done.returncode == 0 and f"by iptables-{kind}" in done.stderr
    given = {file.name.removesuffix(".given"): file.read_text() for file in tmp_path.glob("*.given")}
    assert sorted(given) == [f"ip6tables-{kind}", f"iptables-{kind}"]
    assert all("-A OUTPUT -j ISTIO_OUTPUT" in text for text in given.values())


@needs_root
@pytest.mark.parametrize("there", [False, True])
def test_both_families_or_none(space: Space, tmp_path: Path, there: bool) -> None:
    if there:
        space.init(*POD)
    before = space.rules()
    path = fakes(tmp_path, ip6tables_restore="cat > /dev/null; echo 'no such table' >&2; exit 1")
    within = (*space.within[:-1], space.within[-1], "env", f"PATH={path}")
    done = init(*POD, "-q", "5432", "--force-apply", within=within)
    assert done.returncode == 1
    assert done.stderr == "mesh-init: ip6tables-restore: no such table; nothing was changed\n"
    left = space.rules()
    assert space.six() is there
    assert [one for one in left if not one.startswith("*")] == [one for one in before if not one.startswith("*")]


@needs_root
def test_a_pod_that_has_no_ipv6_address_can_do_without_its_tables(space: Space, tmp_path: Path) -> None:
    path = fakes(tmp_path, ip6tables_save="echo 'no such table' >&2; exit 1")
    within = (*space.within, "env", f"PATH={path}")
    done = init(*POD, within=within)
    assert done.returncode == 0 and "IPv6 is not intercepted, and this pod has no IPv6 address: ip6tables-save" in done.stderr
    space.run("ip", "link", "add", "eth0", "type", "bridge")
    space.run("ip", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")
    done = init(*POD, within=within)
    assert (done.returncode, done.stderr) == (1, "mesh-init: ip6tables-save: no such table\n")


@needs_root
def test_where_ipv6_is_off_nobody_asks_for_its_tables(space: Space, tmp_path: Path) -> None:
    space.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    within = (*space.within, "env", f"PATH={fakes(tmp_path, ip6tables_save='exit 1', ip6tables_restore='exit 1')}")
    for said in ("IPv4: connections are intercepted", "IPv4: connections are intercepted already"):
        done = init(*POD, within=within)
        assert (done.returncode, done.stderr.strip()) == (0, f"mesh-init: {said}")
    assert init("--clean", within=within).returncode == 0


@needs_root
def test_validation_as_the_sidecar_s_user(space: Space) -> None:
    """As a CNI plugin's check has it: no capability, only a connection."""
    space.run("ip", "link", "add", "eth0", "type", "bridge")
    for words in (
        ("link", "set", "eth0", "up"),
        ("addr", "add", "10.77.0.1/24", "dev", "eth0"),
        ("addr", "add", "fd77::1/64", "dev", "eth0", "nodad"),
        ("route", "add", "default", "dev", "eth0"),
        ("-6", "route", "add", "default", "dev", "eth0"),
    ):
        space.run("ip", *words)
    user = (*space.within, "setpriv", "--reuid=1337", "--regid=1337", "--clear-groups", "--inh-caps=-all,+dac_read_search")
    within = (*user, "--ambient-caps=-all,+dac_read_search", "--")
    check = (*POD, "--run-validation", "--skip-rule-apply", "--probe-timeout", "10s")
    done = init(*check, within=within)
    assert done.returncode == 126 and "connections are not intercepted: a connection to 10.77.0.1 port 15002" in done.stderr
    space.init(*POD)
    done = init(*check, within=within)
    assert (done.returncode, done.stderr) == (0, "mesh-init: connections are intercepted\n")
    space.init(*POD, "--run-validation")  # as root, by the rules
    space.init("--clean", "-c", "eth9", "-k", "vm0")
    assert "nat lacks" in space.init(*check, code=126)


def test_without_iptables_there_is_one_line(tmp_path: Path) -> None:
    done = init(*POD, PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "mesh-init: there is no iptables-restore here; install the package iptables\n")


def test_bad_arguments_change_nothing_and_are_all_named() -> None:
    done = init("-p", "x", "-b", "y")
    assert done.returncode == 2 and done.stderr.count("\n") == 2


@needs_root
def test_without_the_right_to_it_there_is_one_line(space: Space) -> None:
    within = (*space.within, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")
    done = init(*POD, within=within)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "NET_ADMIN" in done.stderr


def test_it_starts_without_the_sidecar_s_libraries() -> None:
    """It runs before every pod's start."""
    code = "import sys, meshproxy.capture.command; print(*sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"uvloop", "cryptography", "msgspec", "asyncio", "ssl", "re2"} & set(done.stdout.split())


def test_the_sidecar_s_command_knows_it() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "meshproxy", "init", "--help"), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: mesh-init")
