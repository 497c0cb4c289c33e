"""A sidecar's life in a pod: its hooks, its probes, and an end that costs nobody a request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.pods import Space, intercept, needs_root
from tests.e2e.support.app import App
from tests.e2e.support.config import Config
from tests.e2e.support.load import Load
from tests.e2e.support.sidecar import ROOT, Sidecar
from tests.e2e.support.sockets import Listening, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n"


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with App() as app:
        yield app


def refuses(sidecar: Sidecar, port: int) -> bool:
    try:
        sidecar.client(port).close()
    except ConnectionRefusedError:
        return True
    return False


def serving(app: App) -> Config:
    return Config().listener("in", "inbound", 8080, "*", app.address)


def test_it_goes_on_taking_callers_for_its_time_and_says_close(app: App) -> None:
    """Who hears of the end late, a load balancer or a sidecar far away, still gets an answer."""
    with Sidecar(serving(app), "--termination-seconds", "300") as sidecar, sidecar.client(8080) as idle:
        assert idle.ask(GET).status == 200
        sidecar.signal(signal.SIGTERM)
        until(lambda: sidecar.get("/healthz/ready", port=15021)[0] == 503, "not ready any more")
        with sidecar.client(8080) as late:
            answer = late.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert idle.ended()
        assert sidecar.post("/quitquitquit", port=15020)[0] == 200


def test_a_gateway_waits_for_its_time_only(app: App) -> None:
    with Sidecar(serving(app), "--termination-seconds", "0.5", "--role", "gateway") as sidecar:
        began = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        assert sidecar.wait() == 0
        assert time.monotonic() - began >= 0.5


def test_quitquitquit_cuts_the_wait_short(app: App) -> None:
    with Sidecar(serving(app), "--termination-seconds", "300") as sidecar:
        sidecar.signal(signal.SIGTERM)
        until(lambda: sidecar.get("/ready")[0] == 503, "it ends")
        assert not refuses(sidecar, 8080)
        assert sidecar.post("/quitquitquit", port=15020) == (200, "OK\n")
        assert sidecar.wait() == 0


def test_workers_end_by_the_same_plan(app: App) -> None:
    options = ("--termination-seconds", "300", "--concurrency", "2")
    with Sidecar(serving(app), *options, own_group=True) as sidecar:
        sidecar.signal(signal.SIGTERM)
        until(lambda: sidecar.get("/ready")[0] == 503, "it ends")
        with sidecar.client(8080) as late:
            answer = late.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert sidecar.post("/quitquitquit", port=15020) == (200, "OK\n")
        assert sidecar.wait() == 0


def test_a_native_sidecar_waits_for_requests_only(app: App) -> None:
    """The kubelet stops it after the app; until then /drain has sent callers away."""
    with (
        Listening() as raw,
        Sidecar(serving(app).service("raw", raw.address), "--termination-seconds", "300", "--native", "true") as sidecar,
        sidecar.client() as busy,
    ):
        assert sidecar.post("/drain", port=15020)[0] == 200
        with sidecar.client(8080) as late:
            assert late.ask(GET).headers["connection"] == "close"
        busy.send(GET.replace(b"app", b"raw"))
        server = raw.accept()
        server.request()
        sidecar.signal(signal.SIGTERM)
        until(lambda: refuses(sidecar, 8080) and refuses(sidecar, 15001), "its doors are shut")
        server.send(OK)
        assert busy.response().body == b"ok"
        assert sidecar.wait() == 0


def test_exit_on_zero_active_connections(app: App) -> None:
    with (
        Listening() as raw,
        Sidecar(
            Config().service("raw", raw.address),
            *("--termination-seconds", "300", "--exit-on-zero", "true", "--minimum-drain", "0.2s"),
            drain=0.1,
        ) as sidecar,
        sidecar.client() as busy,
    ):
        busy.send(GET.replace(b"app", b"raw"))
        server = raw.accept()
        server.request()
        began = time.monotonic()
        sidecar.signal(signal.SIGTERM)
        until(lambda: time.monotonic() - began > 0.5, "longer than any drain")
        assert not refuses(sidecar, 15001), "an open connection keeps all doors open"
        server.send(OK)
        assert busy.response().body == b"ok"
        busy.close()
        assert sidecar.wait() == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_rolling_replacement_loses_no_request(app: App, keep: bool) -> None:
    """Two replicas behind their sidecars are replaced one after the other; their caller hears of each end after it has begun."""

    def replica() -> Sidecar:
        return Sidecar(serving(app), "--termination-seconds", "300", drain=10)

    def calling(*replicas: Sidecar) -> Config:
        return Config().service("app", *((one.ip, 8080) for one in replicas), pool={"max_requests": 1000})

    with ExitStack() as stack:
        running = [stack.enter_context(replica()) for _ in range(2)]
        caller = stack.enter_context(Sidecar(calling(*running)))
        with Load(caller.outbound, "app", 6, keep=keep) as load:
            for number in range(2):
                load.more(100)
                old, running[number] = running[number], stack.enter_context(replica())
                old.signal(signal.SIGTERM)
                load.more(50)  # nobody has told the caller yet
                caller.install(calling(*running))
                assert old.post("/quitquitquit")[0] == 200  # its time is over
                assert old.wait() == 0
            load.more(100)
        assert load.lost == []
        assert set(load.statuses) == {200}
        for one in running:
            assert one.post("/quitquitquit")[0] == 200
            assert one.wait() == 0


# -- hooks and probes


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "meshproxy", *words], capture_output=True, text=True, check=False, cwd=ROOT)


@contextmanager
def in_a_pod(
    tmp_path: Path, *options: str, environ: dict[str, str] | None = None, role: str = "sidecar", rules: bool = False
) -> Iterator[Pod]:
    space = Space(f"life{time.monotonic_ns() % 10**9}")
    pod = Pod(space, tmp_path)
    try:
        for address in ("10.88.0.1/32", "fd88::1/128"):
            space.run("ip", "addr", "add", address, "dev", "lo")
        if rules:
            intercept(space)
        pod.start(role, *options, environ=environ or {})
        yield pod
    finally:
        pod.stop()
        space.delete()


class Pod:
    """``meshproxy proxy sidecar`` with an injector's variables, in a network of its own."""

    def __init__(self, space: Space, home: Path) -> None:
        self.space = space
        self.home = home
        self.config = home / "mesh.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, role: str, *options: str, environ: dict[str, str]) -> None:
        variables = {
            "POD_NAME": "web-1",
            "INSTANCE_IP": "10.88.0.1",
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        words = ("ip", "netns", "exec", self.space.name, sys.executable, "-m", "meshproxy", "proxy", role, "--domain", "x")
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "--config", str(self.config), *options], env={**variables, **environ}, stdout=log, stderr=log
            )

    def log(self) -> str:
        return (self.home / "log").read_text()

    def get(self, path: str, port: int, method: str = "GET", address: str = "127.0.0.1") -> int:
        host = f"[{address}]" if ":" in address else address
        with self.space.connect(address, port) as peer:
            peer.send(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            return peer.response().status

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        line = ("ip", "netns", "exec", self.space.name, sys.executable, "-m", "meshproxy", *words)
        return subprocess.run(
            line, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin"}
        )

    def refuses(self, port: int) -> bool:
        try:
            self.space.connect("10.88.0.1", port).close()
        except ConnectionRefusedError:
            return True
        return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def write(path: Path, app: tuple[str, int]) -> None:
    made = Config().service("app", app).listener("in", "inbound", 15006, "*", app)
    made.write(path)


@needs_root
def test_a_pods_doors_and_hooks(tmp_path: Path) -> None:
    """Hold: `wait` returns when the sidecar is ready, which is when configuration is there; not before."""
    (tmp_path / "mesh.json").write_text("not yet")
    with in_a_pod(tmp_path) as pod:
        until(lambda: not pod.refuses(15021), "health is there", 20)
        assert pod.get("/healthz/ready", 15021) == 503
        early = pod.run("wait", "--timeoutSeconds", "0")
        assert (early.returncode, early.stderr) == (1, "meshproxy wait: not ready after 0 s: 503: no configuration yet\n")
        write(pod.config, ("10.88.0.1", 8080))
        assert pod.process is not None
        pod.process.send_signal(signal.SIGHUP)
        done = pod.run("wait")
        assert (done.returncode, done.stderr) == (0, "")
        for address in ("127.0.0.1", "10.88.0.1", "::1"):
            assert [pod.get("/healthz/ready", port, address=address) for port in (15021, 15020)] == [200, 200]
            assert [pod.get("/stats/prometheus", port, address=address) for port in (15020, 15090)] == [200, 200]
        assert pod.get("/ready", 15000) == 200
        assert pod.refuses(15000), "admin is for who is inside"
        assert pod.run("request", "GET", "ready").stdout == "LIVE\n"
        drained = pod.run("request", "--debug-port=15020", "POST", "drain")
        assert (drained.returncode, drained.stdout) == (0, "OK: draining\n")
        assert pod.get("/healthz/ready", 15021) == 503
        assert pod.run("request", "--debug-port=15020", "POST", "quitquitquit").stdout == "OK\n"
        assert pod.process.wait(20) == 0
        assert "Traceback" not in pod.log() and "bug in" not in pod.log()


@needs_root
def test_it_stays_until_the_app_has_gone(tmp_path: Path) -> None:
    """SIGTERM comes to both at once: the app is called, and calls, as long as it listens."""
    write(tmp_path / "mesh.json", ("10.88.0.1", 8080))
    with in_a_pod(tmp_path, "--termination-seconds", "0.2") as pod:
        assert pod.process is not None
        with pod.space.listen("10.88.0.1", 8080) as app:
            assert pod.run("wait").returncode == 0
            began = time.monotonic()
            pod.process.send_signal(signal.SIGTERM)
            until(lambda: pod.get("/healthz/ready", 15021) == 503, "it ends")
            until(lambda: time.monotonic() - began > 1.5, "longer than its time and another look at who listens")
            with pod.space.connect("10.88.0.1", 15001) as own:  # the app calls
                own.send(GET)
                server = app.accept()
                server.request()
                server.send(OK)
                answer = own.response()
                assert (answer.body, answer.headers.get("connection")) == (b"ok", None)
                server.close()
            assert pod.process.poll() is None
        assert pod.process.wait(20) == 0
        assert "Traceback" not in pod.log() and "bug in" not in pod.log()


@needs_root
def test_the_apps_probes_by_the_agent(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", ("10.88.0.1", 8080))
    probers = {
        "/app-health/web/readyz": {"httpGet": {"path": "/r", "port": 8080}},
        "/app-health/web/livez": {"tcpSocket": {"port": 8080}},
    }
    with in_a_pod(tmp_path, environ={"ISTIO_KUBE_APP_PROBERS": json.dumps(probers)}) as pod:
        assert pod.run("wait").returncode == 0
        assert pod.get("/app-health/web/readyz", 15020, address="10.88.0.1") == 500  # nobody is there yet
        assert pod.get("/app-health/web/livez", 15020, address="10.88.0.1") == 500
        assert pod.get("/healthz/ready", 15021) == 200, "an app that never gets ready is no fault of the sidecar's"
        with pod.space.listen("10.88.0.1", 8080) as app:
            assert pod.get("/app-health/web/livez", 15020, address="10.88.0.1") == 200
            app.accept().close()
            assert app.source == "127.0.0.6"
            with pod.space.connect("10.88.0.1", 15020) as kubelet:
                kubelet.send(b"GET /app-health/web/readyz HTTP/1.1\r\nhost: 10.88.0.1\r\nuser-agent: kube-probe/1.33\r\n\r\n")
                server = app.accept()
                line, headers = server.head()
                assert (line, headers["user-agent"]) == ("GET /r HTTP/1.1", "kube-probe/1.33")
                server.send(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
                assert kubelet.response().status == 503
                server.close()


@needs_root
@pytest.mark.parametrize("ip", ["10.88.0.1", "fd88::1"])
def test_probes_and_metrics_pass_our_own_interception(tmp_path: Path, ip: str) -> None:
    """With the rules of a real pod, whose inbound port nobody serves: what went there would be refused."""
    (tmp_path / "mesh.json").write_bytes(Config().service("app", (ip, 8080)).bytes())
    told = {
        "INSTANCE_IP": ip,
        "ISTIO_KUBE_APP_PROBERS": json.dumps({"/app-health/web/livez": {"httpGet": {"path": "/l", "port": 8080}}}),
        "ISTIO_PROMETHEUS_ANNOTATIONS": json.dumps({"scrape": "true", "port": "8080", "path": "/m"}),
    }
    with in_a_pod(tmp_path, environ=told, rules=True) as pod, pod.space.listen(ip, 8080) as app:
        assert pod.run("wait").returncode == 0
        for path, asked, answer in (
            ("/app-health/web/livez", "/l", b"HTTP/1.1 202 Yes\r\ncontent-length: 0\r\n\r\n"),
            ("/stats/prometheus", "/m", b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\na 1\n"),
        ):
            with pod.space.connect(ip, 15020) as kubelet:
                host = f"[{ip}]" if ":" in ip else ip
                kubelet.send(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
                server = app.accept()
                assert server.head()[0] == f"GET {asked} HTTP/1.1"
                assert app.source == ("::6" if ":" in ip else "127.0.0.6")
                server.send(answer)
                server.close()
                said = kubelet.response()
            assert said.status == int(answer[9:12])
        assert said.body.startswith(b"a 1\n#"), "the app's own metrics are with ours"


@needs_root
def test_who_comes_over_the_wire_may_look_and_not_touch(tmp_path: Path) -> None:
    write(tmp_path / "mesh.json", ("10.88.0.1", 8080))
    probers = {"/app-health/web/livez": {"tcpSocket": {"port": 8080}}}
    with in_a_pod(tmp_path, environ={"ISTIO_KUBE_APP_PROBERS": json.dumps(probers)}) as pod:
        assert pod.run("wait").returncode == 0
        other = Space(f"wire{time.monotonic_ns() % 10**9}")
        try:
            ends = [f"w{time.monotonic_ns() % 10**9}{side}" for side in "ab"]
            pod.space.run("ip", "link", "add", ends[0], "type", "veth", "peer", ends[1], "netns", other.name)
            for space, end, number in ((pod.space, ends[0], 1), (other, ends[1], 2)):
                space.run("ip", "addr", "add", f"10.88.1.{number}/24", "dev", end)
                space.run("ip", "link", "set", end, "up")

            def ask(path: str, port: int, method: str = "GET") -> int:
                with other.connect("10.88.1.1", port) as peer:
                    peer.send(f"{method} {path} HTTP/1.1\r\nhost: 10.88.1.1\r\nconnection: close\r\n\r\n".encode())
                    return peer.response().status

            assert [ask("/healthz/ready", port) for port in (15020, 15021)] == [200, 200]
            assert [ask("/stats/prometheus", port) for port in (15020, 15090)] == [200, 200]
            assert ask("/app-health/web/livez", 15020) == 500
            assert [ask(path, 15020, "POST") for path in ("/quitquitquit", "/drain")] == [403, 403]
            with pytest.raises(ConnectionRefusedError):
                ask("/ready", 15000)
            assert pod.get("/healthz/ready", 15021) == 200
            assert pod.get("/drain", 15020, "POST", "10.88.0.1") == 200, "the pod's own address is within"
        finally:
            other.delete()


@needs_root
def test_a_router_ends_without_an_app(tmp_path: Path) -> None:
    Config().listener("edge", "gateway", 8443, "*", ("10.88.0.1", 9)).write(tmp_path / "mesh.json")
    with in_a_pod(tmp_path, "--termination-seconds", "0.2", role="router") as pod, pod.space.listen("10.88.0.1", 8080):
        assert pod.process is not None
        assert pod.run("wait").returncode == 0
        assert pod.run("request", "--debug-port=15020", "POST", "drain").returncode == 0
        with pod.space.connect("10.88.0.1", 8443) as late:
            late.send(GET)
            assert late.response().headers["connection"] == "close"
        pod.process.send_signal(signal.SIGTERM)
        assert pod.process.wait(20) == 0
        assert "Traceback" not in pod.log() and "bug in" not in pod.log()


def test_probes_that_cannot_be_are_told_at_the_start() -> None:
    line = ("--pod", "web", "--config", "x.json", "--app-probers", '{"/x": {}}')
    done = command(*line)
    assert done.returncode == 2
    assert "--app-probers: '/x': must be like /app-health/web/readyz" in done.stderr and "Traceback" not in done.stderr
