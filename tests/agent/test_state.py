"""A sequence of deltas ends where the full state would; whatever is wrong changes nothing and says where."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.agent.state import Candidate, State, load, receive
from meshproxy.model.base import Model, encode, fingerprint
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints
from meshproxy.model.delivery import Ack, Kind, Nack, Push, Resource
from meshproxy.model.listener import Listener
from meshproxy.model.route import DirectResponse, Route, RouteConfig, VirtualHost

Wanted = dict[tuple[Kind, str], Model]


def resource(kind: Kind, value: Model, *, version: str = "", name: str = "") -> Resource:
    body = encode(value)
    return Resource(
        kind=kind,
        name=name or value.name,
        version=version or fingerprint(body),
        body=msgspec.Raw(body),  # type: ignore[attr-defined]
    )


def make(kind: Kind, name: str, salt: int) -> Model:
    if kind == "cluster":
        return Cluster(name=name, source=str(salt))
    if kind == "endpoints":
        return Endpoints(name=name, endpoints=(Endpoint(address="127.0.0.1", port=1 + salt),))
    if kind == "route":
        route = Route(action=DirectResponse(status=200 + salt))
        return RouteConfig(name=name, virtual_hosts=(VirtualHost(name="v", domains=("*",), routes=(route,)),))
    return Listener(name=name, direction="inbound", port=1 + salt)


def push(version: str, old: Wanted | None, new: Wanted) -> Push:
    """The push from ``old`` (None: a full one) to ``new``, over the wire and back."""
    before = old or {}
    made = Push(
        nonce="n" + version,
        version=version,
        full=old is None,
        set=tuple(resource(kind, value) for (kind, name), value in new.items() if before.get((kind, name)) != value),
        removed=tuple(key for key in before if key not in new) if old is not None else (),
    )
    return msgspec.json.decode(encode(made), type=Push)


def flat(state: State) -> Wanted:
    return {(kind, name): value for kind, items in state.resources.items() for name, value in items.items()}  # type: ignore[misc]


keys = st.tuples(st.sampled_from(["cluster", "endpoints", "route", "listener"]), st.sampled_from(["a", "b", "c"]))
worlds = st.dictionaries(keys, st.integers(0, 2)).map(
    lambda drawn: {(kind, name): make(kind, name, salt) for (kind, name), salt in drawn.items()}
)


@given(st.lists(st.tuples(worlds, st.booleans()), min_size=1, max_size=6))
def test_deltas_and_fulls_end_in_the_same_state(steps: list[tuple[Wanted, bool]]) -> None:
    state, current = State(), None
    for number, (wanted, full) in enumerate(steps, 1):
        before = flat(state)
        judged = state.judge(push(str(number), None if full or current is None else current, wanted))
        assert isinstance(judged, Candidate)
        assert flat(state) == before  # judging changes nothing
        state.commit(judged)
        assert flat(state) == wanted
        assert state.version == str(number)
        assert judged.changed == {key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key)}
        for key, value in flat(state).items():
            assert before.get(key) != value or before[key] is value  # what did not change is the same object
        current = wanted


@given(worlds, st.sampled_from(["version", "body", "name", "twice"]), st.booleans())
def test_a_bad_resource_changes_nothing_and_is_named(good: Wanted, fault: str, full: bool) -> None:
    state = State()
    receive(state, push("1", None, good), lambda candidate: ())
    value = Cluster(name="new")
    bad = {
        "version": (resource("cluster", value, version="0" * 16),),
        "body": (
            Resource(
                kind="cluster",
                name="new",
                version=fingerprint(b'{"name":"new","pool":{"connect_timeout":"x"}}'),
                body=msgspec.Raw(b'{"name":"new","pool":{"connect_timeout":"x"}}'),
            ),
        ),
        "name": (resource("cluster", value, name="other"),),
        "twice": (resource("cluster", value), resource("cluster", value)),
    }[fault]
    ack = receive(state, Push(nonce="n2", version="2", full=full, set=bad), lambda candidate: ())
    assert (ack.nonce, ack.version) == ("n2", "1")
    (nack,) = ack.nacks
    assert (nack.kind, nack.name) == ("cluster", "other" if fault == "name" else "new")
    if fault == "body":
        assert nack.error.endswith("at `$.pool.connect_timeout`")
    assert "\n" not in nack.error
    assert flat(state) == good


def test_a_change_before_any_state_asks_for_a_full_push() -> None:
    ack = receive(State(), Push(nonce="n", version="1"), lambda candidate: ())
    assert [nack.kind for nack in ack.nacks] == ["push"]


def test_removing_what_is_not_there_asks_for_a_full_push() -> None:
    state = State()
    receive(state, push("1", None, {}), lambda candidate: ())
    ack = receive(state, Push(nonce="n", version="2", removed=(("cluster", "x"),)), lambda candidate: ())
    assert ack.nacks == (Nack(kind="push", name="", error="removed: there is no cluster 'x' here: send a full push"),)


def test_an_unknown_field_is_refused_with_its_path() -> None:
    body = b'{"name":"new","outlier":{"consecutive_5xy":1}}'
    odd = Resource(kind="cluster", name="new", version=fingerprint(body), body=msgspec.Raw(body))
    ack = receive(State(), Push(nonce="n", version="1", full=True, set=(odd,)), lambda candidate: ())
    assert "consecutive_5xy" in ack.nacks[0].error
    assert ack.nacks[0].error.endswith("at `$.outlier`")


def test_what_install_cannot_obey_is_not_committed() -> None:
    state = State()
    refusal = Nack(kind="route", name="80", error="clusters: there is no cluster x - at `$.virtual_hosts[0]`")
    ack = receive(state, push("1", None, {}), lambda candidate: (refusal,))
    assert ack == Ack(nonce="n1", version="", nacks=(refusal,))
    assert state.version == ""


def test_an_untouched_kind_is_the_same_mapping() -> None:
    state = State()
    key: tuple[Kind, str] = ("cluster", "a")
    receive(state, push("1", None, {key: make("cluster", "a", 0)}), lambda candidate: ())
    held = state.held["cluster"]
    wanted: Wanted = {key: make("cluster", "a", 0), ("listener", "l"): make("listener", "l", 0)}
    receive(state, push("2", {key: make("cluster", "a", 0)}, wanted), lambda candidate: ())
    assert state.held["cluster"] is held


@pytest.mark.parametrize("body", [b"", b"nul", b"[" * 5000, b'{"name":"\xff"}'])
def test_no_body_escapes_as_an_exception(body: bytes) -> None:
    odd = Resource(kind="cluster", name="new", version=fingerprint(body), body=msgspec.Raw(body))
    assert not isinstance(State().judge(Push(nonce="n", version="1", full=True, set=(odd,))), Candidate)


def test_a_file_is_judged_by_the_same_rules() -> None:
    state = State()
    candidate = load(state, [resource("cluster", Cluster(name="a"))], "file-1")
    assert isinstance(candidate, Candidate)
    assert candidate.resources["cluster"] == {"a": Cluster(name="a")}
    assert candidate.resources["route"] == {}
