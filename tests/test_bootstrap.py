"""Settings: flags beat variables, every mistake is told at once in one line each, nothing secret is a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshproxy.bootstrap import SETTINGS, AppPage, BadBootstrap, Bootstrap, parse, read, usage

MINIMUM = ["--pod", "book", "--config", "mesh.json"]


def settings(*argv: str, **environ: str) -> Bootstrap:
    return parse([*MINIMUM, *argv], environ, lambda path: True)


def errors(*argv: str, files: bool = True, **environ: str) -> list[str]:
    with pytest.raises(BadBootstrap) as caught:
        parse(argv, environ, lambda path: files)
    assert all("\n" not in line for line in caught.value.errors)
    return list(caught.value.errors)


def test_defaults() -> None:
    assert settings() == Bootstrap(pod="book", config=Path("mesh.json"))


def test_every_flag() -> None:
    found = parse(
        [
            "--pod=book-1",
            "--namespace=shop",
            "--service-account=book",
            "--ip=127.1.0.1",
            "--role=gateway",
            "--workload-labels=version=v1,app=book",
            "--workload-name=book",
            "--cluster-id=west",
            "--control=https://127.0.0.1:15012",
            "--control-ca=/ca.pem",
            "--token-file=/token",
            "--outbound-port=1",
            "--admin-port=2",
            "--health-port=3",
            "--metrics-port=0",
            "--admin-bind=0.0.0.0",
            "--concurrency=4",
            "--drain-seconds=1.5",
            "--log-level=WARNING",
            "--access-log=/dev/stdout",
            "--access-log-encoding=text",
            "--access-log-format=%RESPONSE_CODE%",
        ],
        {},
        lambda path: True,
    )
    assert found == Bootstrap(
        pod="book-1",
        namespace="shop",
        service_account="book",
        ip="127.1.0.1",
        role="gateway",
        labels=(("app", "book"), ("version", "v1")),
        workload_name="book",
        cluster_id="west",
        control="https://127.0.0.1:15012",
        control_ca=Path("/ca.pem"),
        token_file=Path("/token"),
        outbound_port=1,
        admin_port=2,
        health_port=3,
        metrics_port=0,
        admin_bind="0.0.0.0",
        status_bind="0.0.0.0",
        concurrency=4,
        drain_seconds=1.5,
        log_level="warning",
        access_log="/dev/stdout",
        access_log_encoding="TEXT",
        access_log_format="%RESPONSE_CODE%",
    )
    assert found.node == "book-1.shop"


def test_variables_and_who_wins() -> None:
    found = settings("--namespace", "flag", POD_NAME="variable", POD_NAMESPACE="variable", INSTANCE_IP="10.0.0.7", MESH_ROLE="")
    assert (found.pod, found.namespace, found.ip, found.admin_bind, found.role) == (
        "book",
        "flag",
        "10.0.0.7",
        "10.0.0.7",
        "sidecar",
    )


def test_all_mistakes_at_once() -> None:
    assert errors(
        *("--pod", "a/b", "--ip", "here", "--role", "router", "--control", "http://x", "--admin-port", "99999"),
        *("--concurrency", "0", "--drain-seconds", "soon", "--workload-labels", "app", "--log-level", "loud"),
        *("--access-log", "log.txt", "--access-log-format", "%NOPE%"),
    ) == [
        "--pod: must be a Kubernetes name (letters, digits, '-', '.'), not 'a/b'",
        "--ip: must be an IP address, not 'here'",
        "--role: must be sidecar or gateway, not 'router'",
        "--workload-labels: must be like app=rating,version=v1; 'app' has no key or no '='",
        "--control: must be like https://127.0.0.1:15012, without a path or query",
        "--admin-port: must be a port from 0 to 65535, not '99999'",
        "--concurrency: must be a number of processes from 1 to 256, not '0'",
        "--drain-seconds: must be seconds from 0 to 86400, not 'soon'",
        "--log-level: must be debug, info, warning, error or critical, not 'loud'",
        "--access-log: must be an absolute path such as /dev/stdout, not 'log.txt'",
        "--control-ca: is required with --control",
        "--token-file: is required with --control",
        "--access-log-format: unknown or unsupported operator %NOPE%; a literal percent sign is written %%",
    ]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "--pod: is required (or POD_NAME)"),
        ([], "--control: is required (or --config FILE to run without a control service)"),
        (["--control", "https://a"], "--token-file: is required with --control"),
        (
            ["--control", "https://a", "--config", "x"],
            "--config: cannot go with --control: a proxy is either standalone or asks control",
        ),
        (["--prot", "1"], "--prot: no such flag; did you mean --pod?"),
        (["--zzzzzz", "1"], "--zzzzzz: no such flag; see meshproxy --help"),
        (["serve"], "serve: no such flag; see meshproxy --help"),
        (["--pod", "--ip", "::1"], "--pod: needs a value, NAME"),
        (["--pod"], "--pod: needs a value, NAME"),
        (["--pod="], "--pod: must not be empty"),
        (["--pod", "a", "--pod", "b"], "--pod: given twice"),
        (["--admin-port", "15021"], "--health-port: 15021 is --admin-port already"),
        (
            ["--access-log-encoding", "JSON", "--access-log-format", "x"],
            "--access-log-format: is for the encoding TEXT; JSON has",
        ),
    ],
)
def test_one_mistake(argv: list[str], line: str) -> None:
    assert any(found.startswith(line) for found in errors(*argv)), errors(*argv)


def test_missing_files_are_named() -> None:
    found = errors("--pod=a", "--control=https://a", files=False, MESH_CONTROL_CA="/ca", MESH_TOKEN_FILE="/token")
    assert found == ["MESH_CONTROL_CA: /ca: no such file", "MESH_TOKEN_FILE: /token: no such file"]


@pytest.mark.parametrize(
    "url", ["https://user:secret@a", "https://a/?token=secret", "ftp://secret@a", "https://a:99999999/secret"]
)
def test_a_secret_given_in_the_wrong_place_is_not_repeated(url: str) -> None:
    assert "secret" not in "\n".join(errors("--pod=a", "--control", url, "--token", "secret"))


def test_no_setting_takes_a_secret_itself() -> None:
    secret = [setting for setting in SETTINGS if "token" in setting.flag or "key" in setting.flag]
    assert {setting.flag for setting in secret} == {"--token-file", "--identity-key"}
    assert all(setting.read is Path for setting in secret), "they name files"


def test_the_identity_is_three_files_or_none_and_not_with_control() -> None:
    three = ["--identity-cert=/c", "--identity-key=/k", "--identity-roots=/r"]
    found = settings(*three)
    assert (found.identity_cert, found.identity_key, found.identity_roots) == (Path("/c"), Path("/k"), Path("/r"))
    assert errors("--pod=a", "--config=x", "--identity-key=/k") == [
        "--identity-cert: is required with --identity-key",
        "--identity-roots: is required with --identity-key",
    ]
    assert errors(*MINIMUM, *three, files=False)[-3:] == [
        "--identity-cert: /c: no such file",
        "--identity-key: /k: no such file",
        "--identity-roots: /r: no such file",
    ]
    with_control = ["--pod=a", "--control=https://a", "--control-ca=/ca", "--token-file=/t"]
    assert errors(*with_control, three[0], MESH_IDENTITY_ROOTS="/r") == [
        "--identity-cert: cannot go with --control: control gives the identity",
        "--identity-roots: cannot go with --control: control gives the identity",
    ]


def test_where_the_apps_metrics_are() -> None:
    def page(*argv: str, **environ: str) -> AppPage | None:
        return settings(*argv, **environ).app_metrics

    assert page() is None
    assert page("--app-metrics", "http://127.0.0.1:9090") == AppPage("127.0.0.1", 9090, "/metrics")
    assert page("--app-metrics", "http://[::1]/m?a=1") == AppPage("::1", 80, "/m?a=1")
    annotations = '{"scrape":"true","path":"/m","port":"8080"}'
    assert page(ISTIO_PROMETHEUS_ANNOTATIONS=annotations) == AppPage("", 8080, "/m")
    assert page(ISTIO_PROMETHEUS_ANNOTATIONS='{"scrape":"true"}') == AppPage("", 80, "/metrics")
    assert page(ISTIO_PROMETHEUS_ANNOTATIONS='{"scrape":"false","port":"1"}') is None
    assert page(ISTIO_PROMETHEUS_ANNOTATIONS='{"port":"8080"}') == AppPage("", 8080, "/metrics")
    assert page("--app-metrics", "http://h:1", ISTIO_PROMETHEUS_ANNOTATIONS=annotations) == AppPage("h", 1, "/metrics")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("https://h/", "--app-metrics: must be like http://127.0.0.1:9090/metrics, not 'https://h/'"),
        ("http://u:hidden@h/", "--app-metrics: must hold no user or password: what is asked is on this machine"),
        ("{", '--app-metrics: must be like {"scrape": "true", "port": "9090", "path": "/metrics"}'),
        ('{"scrape":"true","port":"x"}', "--app-metrics: must be a port from 0 to 65535, not 'x'"),
        ('{"scrape":"true","path":"m"}', "--app-metrics: path: must start with a slash and hold no blanks, not 'm'"),
        ("http://127.0.0.1:15020", "--app-metrics: 15020 is our own --metrics-port: we would ask ourselves"),
    ],
)
def test_where_they_cannot_be(text: str, line: str) -> None:
    assert line in errors("--app-metrics", text)


def test_help_names_every_flag_and_variable() -> None:
    text = usage()
    for setting in SETTINGS:
        assert setting.flag in text and setting.variables[0] in text
    assert max(map(len, text.splitlines())) <= 130


def test_our_own_workload() -> None:
    found = settings("--workload-labels", "app.kubernetes.io/name=rating,app.kubernetes.io/version=v1.0.0").workload
    assert (found.workload, found.app, found.version) == ("book", "rating", "v1.0.0")
    assert (found.canonical_service, found.canonical_revision) == ("rating", "v1.0.0")
    assert settings().workload.canonical_revision == "latest"


def test_read_exits_with_the_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--ip", "x"], {})
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == "meshproxy: --ip: must be an IP address, not 'x'"


def test_read_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read(["--help"], {})
    assert caught.value.code == 0 and capsys.readouterr().out == usage()
