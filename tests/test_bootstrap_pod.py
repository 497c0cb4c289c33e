"""A pod that was made for Istio's proxy: its command line, variables and files say the same to ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy import podenv
from meshproxy.bootstrap import BadBootstrap, Bootstrap, parse

ISTIO = [
    "proxy",
    "sidecar",
    "--domain",
    "shop.svc.cluster.local",
    "--proxyLogLevel=warning",
    "--proxyComponentLogLevel=misc:error",
    "--log_output_level=default:info",
]
ENV = {"POD_NAME": "web-1", "POD_NAMESPACE": "shop", "INSTANCE_IP": "10.0.0.7", "CA_ADDR": "istiod.istio-system.svc:15012"}


def pod(*more: str, labels: str | None = None, **environ: str) -> Bootstrap:
    there = {podenv.ROOT_FILE, podenv.TOKEN_FILE} | ({podenv.LABELS_FILE} if labels is not None else set())
    return parse([*ISTIO, *more], {**ENV, **environ}, lambda path: str(path) in there, lambda path: labels or "")


def test_an_injected_pod_needs_nothing_else() -> None:
    found = pod(labels='app="web"\nversion="v1"\n', ISTIO_META_WORKLOAD_NAME="web", SERVICE_ACCOUNT="web")
    assert found.control == "https://istiod.istio-system.svc:15012"
    assert (found.control_ca, found.token_file) == (Path(podenv.ROOT_FILE), Path(podenv.TOKEN_FILE))
    assert (found.role, found.node, found.service_account) == ("sidecar", "web-1.shop", "web")
    assert found.labels == (("app", "web"), ("version", "v1"))
    assert found.log_level == "info"  # of warning and info the more talkative
    assert found.ignored == ("--domain", "--proxyComponentLogLevel")
    assert found.workload.workload == "web"


def test_a_router_is_a_gateway() -> None:
    assert parse(["proxy", "router"], ENV, lambda path: True, lambda path: "").role == "gateway"
    assert parse(["proxy"], ENV, lambda path: True, lambda path: "").role == "sidecar"


def test_our_own_flags_and_variables_win() -> None:
    found = pod(
        "--concurrency=3",
        "--role",
        "gateway",
        "--workload-labels=app=flag",
        labels='app="file"',
        PROXY_CONFIG='{"concurrency": 2, "statusPort": 15999}',
        MESH_METRICS_PORT="16000",
        MESH_LOG_LEVEL="error",
    )
    assert (found.concurrency, found.role, found.metrics_port, found.log_level) == (3, "gateway", 16000, "error")
    assert found.labels == (("app", "flag"),)


@pytest.mark.parametrize(
    ("config", "limit", "expected"),
    [
        ("{}", "2", {}),
        ('{"concurrency": 4}', "", {"concurrency": 4}),
        ('{"concurrency": 0}', "2", {"concurrency": 2}),
        ('{"concurrency": 0}', "", {"concurrency": 1}),
        ('{"concurrency": null, "tracing": {"sampling": 5}}', "", {}),
        ('{"drainDuration": "1m30s"}', "", {"drain_seconds": 90.0}),
        ('{"drainDuration": "45s", "terminationDrainDuration": "500ms"}', "", {"termination_seconds": 0.5}),
        ('{"statusPort": 15999, "proxyAdminPort": 15555}', "", {"metrics_port": 15999, "admin_port": 15555}),
        ('{"statusPort": 0}', "", {}),
    ],
)
def test_proxy_config(config: str, limit: str, expected: dict[str, object]) -> None:
    found, plain = pod(PROXY_CONFIG=config, ISTIO_CPU_LIMIT=limit), pod()
    for field in ("concurrency", "drain_seconds", "termination_seconds", "metrics_port", "admin_port"):
        assert getattr(found, field) == expected.get(field, getattr(plain, field))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["--proxyLogLevel=debug", "--log_output_level=default:info"], "debug"),
        (["--proxyLogLevel", "trace"], "debug"),
        (["--proxyLogLevel=off"], "critical"),
        (["--log_output_level=dns:debug,default:warn"], "warning"),
        (["--log_output_level=error"], "error"),
        (["--log_output_level=dns:debug"], "info"),
        (["--proxyLogLevel=chatty"], "info"),
    ],
)
def test_levels(levels: list[str], expected: str) -> None:
    assert parse(["proxy", "sidecar", *levels], ENV, lambda path: True, lambda path: "").log_level == expected


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PROXY_CONFIG": "concurrency: 2"}, "PROXY_CONFIG: must be a ProxyConfig as JSON: "),
        ({"PROXY_CONFIG": '{"concurrency": "2"}'}, "PROXY_CONFIG: must be a ProxyConfig as JSON: "),
        (
            {"PROXY_CONFIG": '{"drainDuration": "soon"}'},
            "PROXY_CONFIG: drainDuration: must be a duration such as 45s",
        ),
        ({"PROXY_CONFIG": '{"concurrency": 999}'}, "PROXY_CONFIG: must be a number of processes from 1 to 256, not '999'"),
        ({"ISTIO_KUBE_APP_PROBERS": "{"}, "ISTIO_KUBE_APP_PROBERS: must be probes as the injector writes them: "),
        ({"ISTIO_KUBE_APP_PROBERS": '{"/a": {}}'}, "ISTIO_KUBE_APP_PROBERS: '/a': must be like /app-health/web/readyz"),
        (
            {"ISTIO_KUBE_APP_PROBERS": '{"/app-health/a/livez": {}}'},
            "ISTIO_KUBE_APP_PROBERS: /app-health/a/livez: must be one of httpGet, tcpSocket and grpc",
        ),
        (
            {"ISTIO_KUBE_APP_PROBERS": '{"/app-health/a/livez": {"tcpSocket": {"port": "http"}}}'},
            "ISTIO_KUBE_APP_PROBERS: must be probes as the injector writes them: Expected `int`, got `str`",
        ),
        (
            {"ISTIO_KUBE_APP_PROBERS": '{"/app-health/a/livez": {"httpGet": {"port": 70000}}}'},
            "ISTIO_KUBE_APP_PROBERS: must be probes as the injector writes them: Expected `int` <= 65535",
        ),
        ({"EXIT_ON_ZERO_ACTIVE_CONNECTIONS": "maybe"}, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS: must be true or false, not 'maybe'"),
        ({"MINIMUM_DRAIN_DURATION": "a while"}, "MINIMUM_DRAIN_DURATION: must be a duration such as 45s"),
        ({"CA_ADDR": "istiod:port"}, "CA_ADDR: must be like https://127.0.0.1:15012, without a path or query"),
    ],
)
def test_mistakes(environ: dict[str, str], line: str) -> None:
    with pytest.raises(BadBootstrap) as caught:
        pod(**environ)
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].startswith(line)


def test_where_a_pods_pages_are_and_how_it_ends() -> None:
    found = pod(EXIT_ON_ZERO_ACTIVE_CONNECTIONS="true", MINIMUM_DRAIN_DURATION="1m5s", MESH_NATIVE_SIDECAR="true")
    assert (found.ip, found.admin_bind, found.status_bind, found.prometheus_port) == ("10.0.0.7", "127.0.0.1", "::", 15090)
    assert (found.termination_seconds, found.exit_on_zero, found.minimum_drain, found.native) == (5.0, True, 65.0, True)
    assert pod("--admin-bind=10.0.0.7").status_bind == "::"
    plain = pod()
    assert (plain.exit_on_zero, plain.minimum_drain, plain.native) == (False, 5.0, False)


def test_a_role_that_is_none_and_files_that_are_missing() -> None:
    with pytest.raises(BadBootstrap) as caught:
        parse(["proxy", "waypoint"], ENV, lambda path: True, lambda path: "")
    assert caught.value.errors[0] == "proxy: must be proxy sidecar or proxy router, not proxy waypoint"
    with pytest.raises(BadBootstrap) as caught:
        parse(ISTIO, ENV, lambda path: False, lambda path: "")
    assert caught.value.errors == (
        f"--control-ca: {podenv.ROOT_FILE}: no such file",
        f"--token-file: {podenv.TOKEN_FILE}: no such file",
    )


def test_probers() -> None:
    text = (
        '{"/app-health/web/readyz":{"httpGet":{"path":"/r","port":8080,"httpHeaders":[{"name":"Host","value":"x"}]},'
        '"timeoutSeconds":3},"/app-health/db/livez":{"tcpSocket":{"port":5432}},"/app-health/rpc/livez":{"grpc":{"port":9}}}'
    )
    found = dict(pod(ISTIO_KUBE_APP_PROBERS=text).app_probers)
    web = found["/app-health/web/readyz"]
    assert web.http_get is not None
    assert (web.http_get.path, web.http_get.port, web.http_get.http_headers[0].name, web.timeout_seconds) == (
        "/r",
        8080,
        "Host",
        3,
    )
    assert found["/app-health/db/livez"].tcp_socket == podenv.TcpSocket(port=5432)
    assert found["/app-health/rpc/livez"].grpc == podenv.Grpc(port=9)


def test_labels_file() -> None:
    text = 'a="1"\n\nb="say \\"hi\\" \\\\ \\n\\t\\x41\\u00e9\\U0001F600"\nc=""\n'
    assert podenv.labels(text) == (("a", "1"), ("b", 'say "hi" \\ \n\tAé😀'), ("c", ""))
    with pytest.raises(ValueError, match="line 1: must be like"):
        podenv.labels("app=web")
    with pytest.raises(BadBootstrap):
        pod(labels="app=web")


@given(st.dictionaries(st.from_regex(r"[a-z]([-a-z./]{0,9}[a-z])?", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_labels_come_back(pairs: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text)

    assert dict(podenv.labels("".join(f'{key}="{quoted(value)}"\n' for key, value in pairs.items()))) == pairs
