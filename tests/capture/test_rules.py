"""The rules, chain by chain; and that iptables-restore's text leads from anything of ours to what is wanted."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.capture.rules import Table, found, same, spoken, transition, wanted
from meshproxy.capture.settings import BadSettings, Settings, parse

ISTIO = "-p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -i * -b * -d 15090,15021,15020"


def nat(argv: str, family: int = 4) -> Table:
    return wanted(parse(argv.split(), {}), family)["nat"]


@pytest.mark.parametrize(("family", "mark", "loopback"), [(4, "127.0.0.6/32", "127.0.0.1/32"), (6, "::6/128", "::1/128")])
def test_the_chains_of_an_injected_pod(family: int, mark: str, loopback: str) -> None:
    table = nat(ISTIO, family)
    assert table.chains == {
        "ISTIO_INBOUND": (
            "-p tcp --dport 15008 -j RETURN",
            "-p tcp --dport 15090 -j RETURN",
            "-p tcp --dport 15021 -j RETURN",
            "-p tcp --dport 15020 -j RETURN",
            "-p tcp -j ISTIO_IN_REDIRECT",
        ),
        "ISTIO_REDIRECT": ("-p tcp -j REDIRECT --to-ports 15001",),
        "ISTIO_IN_REDIRECT": ("-p tcp -j REDIRECT --to-ports 15006",),
        "ISTIO_OUTPUT": (
            f"-o lo -s {mark} -j RETURN",
            f"-o lo ! -d {loopback} -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-o lo -m owner ! --uid-owner 1337 -j RETURN",
            "-m owner --uid-owner 1337 -j RETURN",
            f"-o lo ! -d {loopback} -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT",
            "-o lo -m owner ! --gid-owner 1337 -j RETURN",
            "-m owner --gid-owner 1337 -j RETURN",
            f"-d {loopback} -j RETURN",
            "-j ISTIO_REDIRECT",
        ),
    }
    assert table.jumps == (("PREROUTING", "-p tcp -j ISTIO_INBOUND"), ("OUTPUT", "-j ISTIO_OUTPUT"))
    assert table.first == ()


def output(argv: str, family: int = 4) -> list[str]:
    """What stands in ISTIO_OUTPUT before and after what is always there."""
    return [rule for rule in nat(argv, family).chains["ISTIO_OUTPUT"] if "owner" not in rule and "-o lo" not in rule]


def test_ranges_each_in_its_family() -> None:
    argv = "-i 10.1.0.0/16,fd00::/8,10.2.3.4/32 -x 10.1.9.0/24,fd00:9::/32"
    assert output(argv) == [
        "-d 127.0.0.1/32 -j RETURN",
        "-d 10.1.9.0/24 -j RETURN",
        "-d 10.1.0.0/16 -j ISTIO_REDIRECT",
        "-d 10.2.3.4/32 -j ISTIO_REDIRECT",
    ]
    assert output(argv, 6) == ["-d ::1/128 -j RETURN", "-d fd00:9::/32 -j RETURN", "-d fd00::/8 -j ISTIO_REDIRECT"]
    assert output("-i 0.0.0.0/0")[-1] == "-j ISTIO_REDIRECT"  # as iptables shows it


def test_outbound_ports() -> None:
    assert output("-o 3306 -q 5432 -i *") == [
        "-p tcp --dport 3306 -j RETURN",
        "-p udp --dport 3306 -j RETURN",
        "-d 127.0.0.1/32 -j RETURN",
        "-p tcp --dport 5432 -j ISTIO_REDIRECT",
        "-j ISTIO_REDIRECT",
    ]
    assert output("-q 5432")[-1] == "-p tcp --dport 5432 -j ISTIO_REDIRECT"  # no range: the ports only


def test_inbound_ports() -> None:
    assert nat("-b 80,81 -d 22").chains["ISTIO_INBOUND"] == (
        "-p tcp --dport 15008 -j RETURN",
        "-p tcp --dport 80 -j ISTIO_IN_REDIRECT",
        "-p tcp --dport 81 -j ISTIO_IN_REDIRECT",
    )
    assert nat("-i *").jumps == (("OUTPUT", "-j ISTIO_OUTPUT"),)  # none: nothing that comes in is looked at


def test_interfaces() -> None:
    table = nat("-i 10.0.0.0/8,fd00::/8 -b * -c eth8,eth9 -k vm0,vm1")
    assert table.jumps == (
        ("PREROUTING", "-i eth8 -j RETURN"),
        ("OUTPUT", "-o eth8 -j RETURN"),
        ("PREROUTING", "-i eth9 -j RETURN"),
        ("OUTPUT", "-o eth9 -j RETURN"),
        ("PREROUTING", "-p tcp -j ISTIO_INBOUND"),
        ("OUTPUT", "-j ISTIO_OUTPUT"),
    )
    assert [rule for _, rule in table.first] == [
        "-i vm1 -d 10.0.0.0/8 -j ISTIO_REDIRECT",
        "-i vm0 -d 10.0.0.0/8 -j ISTIO_REDIRECT",
        "-i vm1 -j RETURN",
        "-i vm0 -j RETURN",
    ]


def test_loopback_is_captured_when_it_is_asked_for_by_name() -> None:
    rules = nat("-i 127.1.2.3/32").chains["ISTIO_OUTPUT"]
    assert not any("! --uid-owner" in rule or "! --gid-owner" in rule for rule in rules)


def test_groups() -> None:
    only = wanted(Settings(groups=(202, 7), ranges=None), 4)["nat"].chains["ISTIO_OUTPUT"]
    assert "-m owner ! --gid-owner 202 -m owner ! --gid-owner 7 -j RETURN" in only
    assert wanted(Settings(groups=()), 4)["nat"].chains["ISTIO_OUTPUT"][-2] == "-j RETURN"
    assert "-m owner --gid-owner 7 -j RETURN" in wanted(Settings(closed_groups=(7,)), 4)["nat"].chains["ISTIO_OUTPUT"]


def test_dropping_what_belongs_to_no_connection() -> None:
    table = wanted(Settings(drop_invalid=True), 6)["mangle"]
    assert table == Table({"ISTIO_DROP": ("-j DROP",)}, (("PREROUTING", "-m conntrack --ctstate INVALID -j ISTIO_DROP"),))


SAVED = """# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
:DOCKER - [0:0]
-A PREROUTING -p tcp -m comment --comment "it's \\"theirs\\" -j ISTIO_INBOUND" -j DOCKER
-A PREROUTING -i eth9 -j RETURN
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -p tcp -m tcp --dport 7 -j RETURN
-A OUTPUT -o eth9 -j RETURN
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""


def test_what_is_there_is_known_by_its_meaning() -> None:
    tables = wanted(parse(["-i", "*", "-b", "*", "-c", "eth9"], {}), 4)
    there = found(SAVED, tables)
    assert same(there, tables)
    assert [chain for chain, rule in there["nat"].jumps] == ["PREROUTING", "PREROUTING", "OUTPUT", "OUTPUT"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("--to-ports 15001", "--to-ports 15101", "nat has `-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15101`"),
        ("-A OUTPUT -j ISTIO_OUTPUT\n", "", "nat lacks `-A OUTPUT -j ISTIO_OUTPUT`"),
        ("! -d 127.0.0.1/32 -o lo", "-d 127.0.0.1/32 -o lo", "nat has `-A ISTIO_OUTPUT -d 127.0.0.1/32 -o lo"),
        (
            "-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n",
            "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN\n",
            "their order is another",
        ),
        (":DOCKER", ":ISTIO_OUTPUT_DNS - [0:0]\n:DOCKER", "their order is another"),
    ],
)
def test_what_differs_is_seen(old: str, new: str, said: str) -> None:
    assert old in SAVED
    tables = wanted(parse(["-i", "*", "-b", "*", "-c", "eth9"], {}), 4)
    there = found(SAVED.replace(old, new), tables)
    assert not same(there, tables)
    assert spoken(there, tables).startswith(said)


class Kernel:
    """iptables of one table, as far as our texts need it."""

    def __init__(self, foreign: list[tuple[str, str]]) -> None:
        self.chains: dict[str, list[str]] = {"PREROUTING": [], "OUTPUT": [], "DOCKER": []}
        for chain, rule in foreign:
            self.chains[chain].append(rule)

    def restore(self, text: str) -> None:
        for line in text.splitlines():
            verb, _, rest = line.partition(" ")
            if verb.startswith(":"):
                self.chains[verb[1:]] = []
                continue
            chain, _, rule = rest.partition(" ")
            if verb == "-A":
                self.chains[chain].append(rule)
            elif verb == "-I":
                self.chains[chain].insert(0, rule.removeprefix("1 "))
            elif verb == "-D":
                self.chains[chain].remove(rule)
            elif verb == "-X":
                assert not self.chains.pop(chain)
                assert not any(f"-j {chain}" in one for rules in self.chains.values() for one in rules)

    def saved(self) -> str:
        lines = ["*nat", *(f":{chain} - [0:0]" for chain in self.chains)]
        return "\n".join([*lines, *(f"-A {chain} {rule}" for chain, rules in self.chains.items() for rule in rules), "COMMIT"])


ports = st.lists(st.integers(1, 65535), max_size=3, unique=True).map(tuple)
names = st.lists(st.sampled_from(["eth0", "eth1", "vm0", "vm1"]), max_size=2, unique=True).map(tuple)
ranges = st.lists(st.sampled_from(["10.0.0.0/8", "10.9.0.0/16", "0.0.0.0/0", "fd00::/8", "127.0.0.0/8"]), max_size=3, unique=True)


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    argv = []
    for flag, values in (("-b", ports), ("-d", ports), ("-q", ports), ("-o", ports), ("-c", names), ("-k", names)):
        argv += [flag, ",".join(map(str, draw(values)))]
    argv += [
        "-i",
        draw(st.sampled_from(["*", ",".join(draw(ranges))])),
        "-x",
        ",".join(draw(ranges)),
        "-u",
        draw(st.sampled_from("137")),
    ]
    return parse(argv, {})


foreign = st.lists(
    st.tuples(
        st.sampled_from(["PREROUTING", "OUTPUT", "DOCKER"]),
        st.sampled_from(
            ["-j DOCKER", "-p tcp -m tcp --dport 7 -j RETURN", "-i eth7 -j RETURN", '-m comment --comment "a b" -j RETURN']
        ),
    ),
    max_size=4,
)


@given(settings(), settings(), foreign, st.sampled_from([4, 6]))
def test_from_any_rules_to_any_others_and_away(
    one: Settings, other: Settings, theirs: list[tuple[str, str]], family: int
) -> None:
    kernel = Kernel(theirs)
    before = kernel.saved()
    first, second = ({"nat": wanted(each, family)["nat"]} for each in (one, other))
    kernel.restore(transition(found(kernel.saved(), first), first))
    assert same(found(kernel.saved(), first), first)
    # what -c and -k made is known again with both
    both = {"nat": Table({}, (*first["nat"].jumps, *second["nat"].jumps), (*first["nat"].first, *second["nat"].first))}
    kernel.restore(transition(found(kernel.saved(), both), second))
    assert same(found(kernel.saved(), second), second)
    kernel.restore(transition(found(kernel.saved(), second), {}))
    assert kernel.saved() == before


@given(settings(), st.sampled_from([4, 6]))
def test_no_text_of_the_user_s_is_more_than_it_should_be(one: Settings, family: int) -> None:
    for line in transition({}, wanted(one, family)).splitlines():
        assert re.fullmatch(r"\*nat|COMMIT|:ISTIO_[A-Z_]+ - \[0:0\]|-[AI] [A-Z_]+( 1)?( [\w.:/!*+-]+)+", line), line
        assert line == " ".join(shlex.split(line))


@given(st.text(max_size=20), st.sampled_from(["-c", "-k", "-i", "-x", "-b", "-d", "-o", "-q", "-u"]))
def test_what_is_taken_is_harmless(text: str, flag: str) -> None:
    try:
        settings = parse([flag, text], {})
    except BadSettings:
        return
    for family in (4, 6):
        for line in transition({}, wanted(settings, family)).splitlines():
            assert line.isascii() and line.isprintable() and line == " ".join(shlex.split(line))
