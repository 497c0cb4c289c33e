"""What mesh-init takes: Istio's arguments and variables, each value judged, all errors at once."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.names import INIT
from injector.pod import inject
from injector.template import INBOUND, OUTBOUND, UID
from meshproxy.capture.settings import FLAGS, BadSettings, Settings, parse, usage
from tests.injector.pods import SETTINGS, pod


def errors(argv: list[str], **environ: str) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as bad:
        parse(argv, environ)
    return bad.value.errors


def test_nothing_said_captures_nothing_but_the_sidecar_s_ports_are_istio_s() -> None:
    settings = parse([], {})
    assert settings == Settings()
    assert (settings.outbound, settings.inbound, settings.uids, settings.gids) == (OUTBOUND, INBOUND, (UID,), (UID,))
    assert (settings.ranges, settings.inbound_ports) == ((), ())


def injected(**annotations: str) -> Settings:
    """Of the arguments that the injector gives this program."""
    values = {f"traffic.sidecar.istio.io/{name}": value for name, value in annotations.items()}
    made = inject(pod(annotations=values), "shop", SETTINGS)
    init = next(one for one in made["spec"]["initContainers"] if one["name"] == INIT)
    assert init["command"] == ["mesh-init"]
    return parse(init["args"], {one["name"]: one["value"] for one in init["env"]})


def test_the_injector_s_words_are_understood() -> None:
    closed = (15090, 15021, 15020)
    assert injected() == Settings(inbound_ports=None, ranges=None, closed_inbound_ports=closed)
    assert injected(
        includeOutboundIPRanges="10.0.0.0/8,fd00::/8",
        excludeOutboundIPRanges="10.1.0.0/16",
        includeInboundPorts="80,81",
        excludeInboundPorts="22",
        includeOutboundPorts="5432",
        excludeOutboundPorts="3306,3307",
        excludeInterfaces="eth1,eth2",
        kubevirtInterfaces="vm0",
    ) == Settings(
        inbound_ports=(80, 81),
        closed_inbound_ports=(*closed, 22),
        ranges=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        closed_ranges=(ip_network("10.1.0.0/16"),),
        outbound_ports=(5432,),
        closed_outbound_ports=(3306, 3307),
        closed_interfaces=("eth1", "eth2"),
        virtual=("vm0",),
    )


def test_what_the_injector_writes() -> None:
    argv = [
        "istio-iptables",
        "-p",
        "15001",
        "-z",
        "15006",
        "-u",
        "1500",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-x",
        "",
        "-b",
        "*",
        "-d",
        "15090,15021,15020,22",
    ]
    argv += ["-q", "5432", "-o", "3306,3307", "-k", "vm0,vm1", "-c", "eth1", "--log_output_level=default:info", "--force-apply"]
    settings = parse(argv, {})
    assert settings == Settings(
        uids=(1500,),
        gids=(1500,),
        inbound_ports=None,
        closed_inbound_ports=(15090, 15021, 15020, 22),
        ranges=None,
        outbound_ports=(5432,),
        closed_outbound_ports=(3306, 3307),
        virtual=("vm0", "vm1"),
        closed_interfaces=("eth1",),
        force=True,
    )


@pytest.mark.parametrize("argv", [["-p", "15101"], ["-p15101"], ["-p=15101"], ["--envoy-port", "15101"], ["--envoy-port=15101"]])
def test_the_forms_of_a_flag(argv: list[str]) -> None:
    assert parse(argv, {}).outbound == 15101


def test_a_flag_beats_its_variable_and_an_empty_variable_is_none() -> None:
    environ = {"ENVOY_PORT": "15101", "PROXY_UID": "", "ISTIO_SERVICE_CIDR": "10.0.0.0/8", "DRY_RUN": "true", "INVALID_DROP": "1"}
    assert parse([], environ) == Settings(outbound=15101, ranges=(ip_network("10.0.0.0/8"),), dry_run=True, drop_invalid=True)
    assert parse(["-p", "15102", "-i", "", "--dry-run=false"], environ).outbound == 15102
    assert parse(["-i", ""], environ).ranges == ()


def test_a_group_is_its_own_where_it_is_named() -> None:
    assert parse(["-u", "1,2"], {}).gids == (1, 2)
    assert parse(["-u", "1", "-g", "5"], {}).gids == (5,)


def test_only_these_groups_traffic() -> None:
    known = {"java": 202}.get
    assert parse([], {"ISTIO_OUTBOUND_OWNER_GROUPS": "java,7"}, known).groups == (202, 7)
    assert parse([], {"ISTIO_OUTBOUND_OWNER_GROUPS": "*", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7"}, known).closed_groups == (
        7,
    )
    assert errors([], ISTIO_OUTBOUND_OWNER_GROUPS="java") == (
        "ISTIO_OUTBOUND_OWNER_GROUPS: must be groups' names or ids, with commas between: 'java' is none",
    )
    assert "only one of them" in errors([], ISTIO_OUTBOUND_OWNER_GROUPS="1", ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE="2")[0]


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["-p", "0"], "-p: must be a port from 1 to 65535, not '0'"),
        (["-z", "65536"], "-z: must be a port"),
        (["-p", "15001; reboot"], "-p: must be a port"),
        (["-p", "١٥٠٠١"], "-p: must be a port"),
        (["-b", "80,*"], "-b: must be ports from 1 to 65535, with commas between: '*' is none; * stands alone, for all ports"),
        (["-d", "80:90"], "-d: must be ports"),
        (["-o", "80,,90"], "-o: must be ports from 1 to 65535, with commas between: '' is none"),
        (["-i", "10.0.0.0"], "-i: must be ranges such as 10.0.0.0/8, with commas between: '10.0.0.0' is none; write /32 or /128"),
        (["-i", "10.0.0.0/33"], "-i: must be ranges"),
        (["-i", "10.0.0.0/8 -j ACCEPT"], "-i: must be ranges"),
        (["-x", "*"], "-x: must not be *: nothing would be intercepted"),
        (["-x", "fe80::%eth0/64"], "-x: must be ranges"),
        (["-c", "eth0 -j ACCEPT"], "-c: must be names of network interfaces"),
        (["-c", "-j"], "-c: must be names of network interfaces"),
        (["-k", "eth0\n-A OUTPUT"], "-k: must be names of network interfaces"),
        (["-k", "a" * 16], "-k: must be names of network interfaces"),
        (["-u", "istio-proxy"], "-u: must be ids, with commas between: 'istio-proxy' is none"),
        (["-u", ""], "-u: must name one id at least"),
        (["-m", "TPROXY"], "-m: TPROXY is not supported: this sidecar intercepts by REDIRECT"),
        (["-m", "NONE"], "-m: must be REDIRECT, not 'NONE'"),
        (["-p", "15006"], "-p, -z: must differ"),
        (["-p"], "-p: needs a value"),
        (["--nonsense"], "'--nonsense': there is no such flag"),
        (["-Q"], "'-Q': there is no such flag"),
        (["stray"], "'stray': is no flag"),
        (["--force-apply=perhaps"], "--force-apply: must be true or false"),
        (["--probe-timeout", "5"], "--probe-timeout: must be a duration such as 5s"),
        (["--network-namespace", "x"], "--network-namespace: is not supported: it works in the network namespace"),
        (["--cni-mode"], "--cni-mode: is not supported"),
        (["--clean", "--skip-rule-apply"], "--clean: cannot be had with"),
    ],
)
def test_what_cannot_be(argv: list[str], error: str) -> None:
    (line,) = errors(argv)
    assert line.startswith(error)


def test_all_errors_at_once() -> None:
    assert len(errors(["-p", "x", "-b", "y", "--what", "-i", "z"], ENVOY_PORT="1", PROXY_GID="w")) == 5


def test_what_says_nothing_here_is_said() -> None:
    settings = parse(["--native-nftables", "-t", "1337", "--redirect-dns=true", "--dual-stack", "--cni-mode=false"], {})
    assert [note.partition(":")[0] for note in settings.notes] == [
        "--native-nftables is ignored",
        "-t is ignored",
        "--redirect-dns is ignored",
    ]
    assert parse([], {"ISTIO_META_DNS_CAPTURE": "true"}).notes == (
        "ISTIO_META_DNS_CAPTURE is ignored: names are not captured: apps go on asking the cluster's own DNS",
    )
    assert parse([], {"ISTIO_META_DNS_CAPTURE": "false"}).notes == ()


def test_help_names_every_flag_that_does_something() -> None:
    text = usage()
    for flag in FLAGS:
        if flag.help:
            assert f"--{flag.long} " in text
    assert parse(["--help", "-p", "x"], {}).help


words = st.one_of(
    st.sampled_from([f"-{flag.short}" for flag in FLAGS if flag.short] + [f"--{flag.long}" for flag in FLAGS]),
    st.text(max_size=12),
    st.sampled_from(["*", "80", "10.0.0.0/8", "eth0", "true", ""]),
)


@given(st.lists(words, max_size=8), st.dictionaries(st.sampled_from([flag.variable for flag in FLAGS]), st.text(max_size=8)))
def test_any_words_are_settings_or_lines(argv: list[str], environ: dict[str, str]) -> None:
    try:
        parse(argv, environ)
    except BadSettings as bad:
        assert bad.errors and all(line and "\n" not in line for line in bad.errors)
