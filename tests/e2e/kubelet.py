"""For tests: what a kubelet and a container runtime do with a pod's manifest, on one machine and without images.

A pod is a network namespace on a bridge. A container has its own mounts: a root of nothing but this Python, the system's programs
and what its manifest mounts, read-only where the manifest says so; its user, its capabilities, its variables, and the projected
token with the mode that a kubelet gives it. Commands are the console scripts of ``pyproject.toml``, as in the image. Needs root.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.pods import ROOT, Space

Obj = dict[str, Any]
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "protocols", "services", "passwd", "group")
_IMAGE = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # ENV of the Dockerfile
_CAPABILITIES = {"NET_ADMIN": "net_admin", "NET_RAW": "net_raw", "NET_BIND_SERVICE": "net_bind_service"}


class Node:
    """The machine. ``content(volume, pod)``: files of a volume that comes from the API server, None: there is no such object.

    ``six``: its addresses, and those of its pods, are of IPv6 only.
    """

    def __init__(self, mark: str, folder: Path, six: bool) -> None:
        self.mark = mark
        self.folder = folder
        self.content: Callable[[Obj, Obj], dict[str, bytes] | None] = lambda volume, pod: None
        self.net, self.prefix = ("fd88::", 64) if six else ("10.88.0.", 24)
        self.ip = f"{self.net}1"
        self.hosts: dict[str, str] = {}
        self.pods: list[Pod] = []
        self.space = Space(f"{mark}n")
        self.space.run("ip", "link", "add", "name", "br0", "type", "bridge", "forward_delay", "0")
        self.address(self.space, self.ip, "br0")

    def address(self, space: Space, ip: str, device: str) -> None:
        space.run("ip", "addr", "add", f"{ip}/{self.prefix}", "dev", device, *(("nodad",) if ":" in ip else ()))
        space.run("ip", "link", "set", device, "up")

    def pod(self, manifest: Obj, variables: dict[str, str] | None = None) -> Pod:
        made = Pod(self, len(self.pods) + 2, manifest, variables or {})
        self.pods.append(made)
        return made

    def close(self) -> None:
        for pod in self.pods:
            pod.stop()
        self.space.delete()


class Pod:
    """``variables``: what every container finds besides, such as where the API server is."""

    def __init__(self, node: Node, number: int, manifest: Obj, variables: dict[str, str]) -> None:
        self.node = node
        self.ip = f"{node.net}{number}"
        self.manifest = manifest
        self.name: str = manifest["metadata"]["name"]
        self._variables = variables
        self._home = node.folder / f"pod{number}"
        self._home.mkdir()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.space = Space(f"{node.mark}{number}")
        device = f"v{number}{node.mark}"[-15:]
        node.space.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", self.space.name)
        node.space.run("ip", "link", "set", device, "master", "br0", "up")
        node.address(self.space, self.ip, "eth0")
        self.space.run("ip", "route", "add", "default", "via", node.ip)

    def start(self, *leave: str) -> None:
        """All of its containers but those in ``leave``, as a kubelet orders them; returns when the sidecar holds nothing up."""
        spec = self.manifest["spec"]
        for one in spec.get("initContainers") or ():
            if one["name"] in leave:
                continue
            self._run(one)
            if one.get("restartPolicy") == "Always":
                self._probe(one, "startupProbe")
            else:
                code = self._running.pop(one["name"]).wait(60)
                assert code == 0, f"{one['name']} ended with {code}: {self.log(one['name'])}"
        for one in spec["containers"]:
            if one["name"] not in leave:
                self._run(one)
                hook = ((one.get("lifecycle") or {}).get("postStart") or {}).get("exec")
                if hook:
                    self.exec(one, hook["command"])

    def ready(self) -> None:
        spec = self.manifest["spec"]
        for one in (*(spec.get("initContainers") or ()), *spec["containers"]):
            if one["name"] in self._running:
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    self._probe(one, probe)

    def exec(self, container: Obj, command: list[str]) -> None:
        done = subprocess.run(self._command(container, command, "exec"), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr!r} {self.log(container['name'])}"

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        self.space.delete()

    def log(self, container: str) -> str:
        file = self._home / f"{container}.log"
        return file.read_text(errors="replace")[-6000:] if file.exists() else ""

    # -- one container ---------------------------------------------------------------------------------------------------

    def _run(self, container: Obj) -> None:
        command = [*container.get("command", ()), *container.get("args", ())]
        with (self._home / f"{container['name']}.log").open("ab") as log:
            self._running[container["name"]] = subprocess.Popen(
                self._command(container, command, "root"), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def _probe(self, container: Obj, kind: str) -> None:
        asked = (container.get(kind) or {}).get("httpGet")
        if not asked:
            return
        url = f"{asked.get('scheme', 'HTTP').lower()}://{at(self.ip)}:{asked['port']}{asked['path']}"
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as a kubelet does
        process = self._running[container["name"]]
        end = time.monotonic() + 60
        said = "nothing"
        while time.monotonic() < end and process.poll() is None:
            try:
                with httpx.Client(verify=context, trust_env=False, timeout=5) as client:
                    answer = client.get(url)
            except httpx.HTTPError as error:
                said = repr(error)
            else:
                if answer.status_code < 400:
                    return
                said = f"{answer.status_code} {answer.text}"
            time.sleep(0.02)
        raise AssertionError(f"{self.name}/{container['name']} {kind} {url}: {said}\n{self.log(container['name'])}")

    def _command(self, container: Obj, command: list[str], where: str) -> list[str]:
        return [
            "ip",
            "netns",
            "exec",
            self.space.name,
            "unshare",
            "--mount",
            "sh",
            "-ec",
            self._script(container, command, where),
        ]

    def _script(self, container: Obj, command: list[str], where: str) -> str:
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **_IMAGE, "PYTHONPATH": str(ROOT)}
        env |= {"HOME": "/nonexistent"} | self._variables | self._env(container)
        command = [re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), word) for word in command]
        root = self._home / f"{container['name']}.{where}"
        root.mkdir(exist_ok=True)
        hosts = self._home / "hosts"
        hosts.write_text("".join(f"{ip} {name}\n" for name, ip in {"localhost": "127.0.0.1", **self.node.hosts}.items()))
        security = {**(self.manifest["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
        user, group = security.get("runAsUser", 1337), security.get("runAsGroup", 1337)
        assert user or not security.get("runAsNonRoot"), f"{container['name']}: would be refused as root"
        lines = [f"R={shlex.quote(str(root))}", "mount --make-rprivate /", "mount -t tmpfs -o mode=755 none $R", "cd $R"]
        lines += ["mkdir usr proc sys dev etc run tmp var var/lib var/lib/mesh", "ln -s ../run var/run", "chmod 1777 tmp"]
        lines += [f"ln -s usr/{name} {name}" for name in ("bin", "sbin", "lib", "lib64") if Path(f"/usr/{name}").exists()]
        lines += [f"mount --rbind /{name} $R/{name}" for name in ("usr", "proc", "sys", "dev")]
        lines += [f"cp -a /etc/{name} etc/" for name in _ETC if Path("/etc", name).exists()]
        lines += [f"cp {shlex.quote(str(hosts))} etc/hosts", "chown 1337:1337 var/lib/mesh"]
        lines += ["echo mesh:x:1337:1337::/nonexistent:/usr/sbin/nologin >> etc/passwd", "echo mesh:x:1337: >> etc/group"]
        mounts = sorted(self._mounts(container))
        for at, source, _ in mounts:  # what is mounted within a volume has its place there, made while it can be written
            for inner in (path for path, _, _ in mounts if path.startswith(f"{at}/")):
                (source / inner.removeprefix(f"{at}/")).mkdir(exist_ok=True)
        for at, source, writable in mounts:
            lines += [f"mkdir -p $R{at}", f"mount --bind {shlex.quote(str(source))} $R{at}"]
            lines += [] if writable else [f"mount -o remount,bind,ro $R{at}"]
        for path in sorted({str(ROOT), sys.prefix, sys.base_prefix}):  # after the volumes: a checkout may lie below /tmp
            if not path.startswith("/usr"):
                lines += [f"mkdir -p $R{path}", f"mount --rbind {path} $R{path}"]
        if security.get("readOnlyRootFilesystem"):
            lines.append("mount -o remount,ro $R")
        wanted = (security.get("capabilities") or {}).get("add", ()) if user == 0 else ()
        caps = ",".join(["-all", *(f"+{_CAPABILITIES[name]}" for name in wanted)])
        drop = [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group}",
            "--clear-groups",
            f"--bounding-set={caps}",
            f"--inh-caps={caps}",
        ]
        drop += [] if security.get("allowPrivilegeEscalation", True) else ["--no-new-privs"]
        words = [*drop, "env", "-i", *(f"{key}={value}" for key, value in env.items()), *_program(command)]
        lines.append(f"exec chroot $R {shlex.join(words)}")
        return "\n".join(lines)

    def _env(self, container: Obj) -> dict[str, str]:
        found: dict[str, str] = {}
        for one in container.get("env") or ():
            source = one.get("valueFrom") or {}
            if "fieldRef" in source:
                found[one["name"]] = self._field(source["fieldRef"]["fieldPath"])
            elif "resourceFieldRef" in source:
                kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
                found[one["name"]] = _amount(name, ((container.get("resources") or {}).get(kind) or {}).get(name))
            else:
                found[one["name"]] = one.get("value") or ""
        return found

    def _field(self, path: str) -> str:
        spec, meta = self.manifest["spec"], self.manifest["metadata"]
        known = {"metadata.name": self.name, "metadata.namespace": meta["namespace"], "status.podIP": self.ip}
        known |= {"status.hostIP": self.node.ip, "spec.nodeName": "node-1", "spec.serviceAccountName": spec["serviceAccountName"]}
        for part in ("labels", "annotations"):
            pairs = (meta.get(part) or {}).items()
            known[f"metadata.{part}"] = "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(pairs))
        return str(known[path])

    def _mounts(self, container: Obj) -> Iterator[tuple[str, Path, bool]]:
        volumes = {one["name"]: one for one in self.manifest["spec"].get("volumes") or ()}
        for mount in container.get("volumeMounts") or ():
            volume = volumes[mount["name"]]
            made = self._home / f"volume-{mount['name']}"
            if not made.exists():
                self._fill(volume, made)
            yield mount["mountPath"], made, "emptyDir" in volume and not mount.get("readOnly")

    def _fill(self, volume: Obj, at: Path) -> None:
        at.mkdir()
        if "emptyDir" in volume:
            at.chmod(0o777)
            return
        owner, mode = -1, 0o644
        if "downwardAPI" in volume:
            items = volume["downwardAPI"]["items"]
            files: dict[str, bytes] | None = {one["path"]: self._field(one["fieldRef"]["fieldPath"]).encode() for one in items}
        else:
            files = self.node.content(volume, self.manifest)
        if "projected" in volume and (user := self._everyones_user()) is not None:
            owner, mode = user, 0o600
        assert files is not None, f"{volume}: a kubelet would wait for it"
        for name, content in files.items():
            (at / name).write_bytes(content)
            (at / name).chmod(mode)
            os.chown(at / name, owner, -1)

    def _everyones_user(self) -> int | None:
        """To whom a kubelet gives a projected token: where the containers have different users, everybody may read it."""
        spec = self.manifest["spec"]
        default = (spec.get("securityContext") or {}).get("runAsUser")
        all_of_them = (*(spec.get("initContainers") or ()), *spec["containers"])
        users = {(one.get("securityContext") or {}).get("runAsUser", default) for one in all_of_them}
        return users.pop() if len(users) == 1 else None


def _program(command: list[str]) -> list[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts[command[0]].partition(":")
    code = f"import sys; from {module} import {name}; sys.argv[0] = {command[0]!r}; sys.exit({name}())"
    return [sys.executable, "-P", "-c", code, *command[1:]]


def _amount(name: str, text: str | None) -> str:
    """As the downward API says it, with divisor 1; without a limit what the node has."""
    if text is None:
        return str(os.cpu_count()) if name == "cpu" else str(8 << 30)
    if name == "cpu":
        return str(math.ceil(float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)))
    units = {"Ki": 10, "Mi": 20, "Gi": 30}
    return str(int(text[:-2]) << units[text[-2:]]) if text[-2:] in units else text


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def at(ip: str) -> str:
    """As a URL has it."""
    return f"[{ip}]" if ":" in ip else ip


@contextlib.contextmanager
def node(mark: str, folder: Path, *, six: bool = False) -> Iterator[Node]:
    folder.mkdir(mode=0o755)
    made = Node(mark, folder, six)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
