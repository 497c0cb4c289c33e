"""Who calls, by TokenReview."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.cluster.reviews import TokenReviews
from control.identity import Person, ProxyIdentity, Refused, Unjudged
from control.store.kubernetes.client import ApiServer
from tests.control.incluster import Tokens
from tests.control.kubeserver import Fault, KubeServer

NOW = 1_000_000.0


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[KubeServer, Tokens, ApiServer]]:
    async with KubeServer() as server:
        tokens = Tokens()
        server.reviews = tokens.review
        api = ApiServer(server.kubeconfig(tmp_path / "kubeconfig"))
        await api.connect()
        try:
            yield server, tokens, api
        finally:
            await api.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


def asked(server: KubeServer) -> int:
    return sum("tokenreviews" in line for line in server.requests)


def test_a_pods_token_is_that_pods(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (_server, tokens, api):
            reviews = TokenReviews(api, "istio-system", lambda space, pod: "u1" if pod == "book" else "")
            token = tokens.issue("default", "sa", "istio-ca", NOW + 3600, "book", "u1")
            assert await reviews.judge(token, NOW) == ProxyIdentity("default", "book", "sa", NOW + 3600, "JTI=0")
            later = tokens.issue("default", "sa", "istio-ca", NOW + 3600, "new", "u9")
            assert isinstance(await reviews.judge(later, NOW), ProxyIdentity), "a pod may be quicker than the watch"
            earlier = tokens.issue("default", "sa", "istio-ca", NOW + 3600, "book", "u0")
            assert await reviews.judge(earlier, NOW) == Refused("the bearer token is of an earlier pod default/book")

    run(story)


@pytest.mark.parametrize(
    ("namespace", "account", "audience", "pod", "expires", "why"),
    [
        ("default", "sa", "istio-ca", "", NOW + 9, "not bound to a pod"),
        ("default", "sa", "https://kubernetes.default.svc", "book", NOW + 9, "does not accept"),
        ("default", "sa", "istio-ca", "book", NOW, "expired"),
        ("default", "mesh-admin", "mesh-api", "", NOW + 9, "no role"),
        ("istio-system", "istiod", "mesh-api", "", NOW + 9, "no role"),
    ],
)
def test_tokens_for_something_else_prove_nothing(
    tmp_path: Path, namespace: str, account: str, audience: str, pod: str, expires: float, why: str
) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (_server, tokens, api):
            token = tokens.issue(namespace, account, audience, expires, pod, "u1")
            verdict = await TokenReviews(api, "istio-system").judge(token, NOW)
            assert isinstance(verdict, Refused) and why in verdict.why
            assert token not in verdict.why

    run(story)


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_an_account_of_the_root_namespace_has_a_role(tmp_path: Path, role: str) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (_server, tokens, api):
            token = tokens.issue("istio-system", f"mesh-{role}", "mesh-api", NOW + 600)
            verdict = await TokenReviews(api, "istio-system").judge(token, NOW)
            assert isinstance(verdict, Person) and (verdict.role, verdict.expires) == (role, NOW + 600)

    run(story)


def test_a_verdict_is_believed_for_a_minute_and_not_beyond_the_tokens_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, tokens, api):
            reviews = TokenReviews(api, "istio-system")
            token = tokens.issue("default", "sa", "istio-ca", NOW + 90, "book", "u1")
            assert await asyncio.gather(*(reviews.judge(token, NOW) for _ in range(9)))
            assert asked(server) == 1, "asked once, however many ask"
            assert isinstance(await reviews.judge(token, NOW + 59), ProxyIdentity) and asked(server) == 1
            tokens.refused.add(token)
            assert isinstance(await reviews.judge(token, NOW + 60), Refused) and asked(server) == 2
            tokens.refused.clear()
            assert isinstance(await reviews.judge(token, NOW + 70), ProxyIdentity)
            assert await reviews.judge(token, NOW + 90) == Refused("the bearer token has expired, or does not say when it does")

    run(story)


def test_without_an_api_server_nobody_new_comes_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, tokens, api):
            reviews = TokenReviews(api, "istio-system")
            known = tokens.issue("default", "sa", "istio-ca", NOW + 3600, "book", "u1")
            await reviews.judge(known, NOW)
            server.faults.append(Fault("tokenreviews", 500))
            other = tokens.issue("default", "sa", "istio-ca", NOW + 3600, "rating", "u2")
            assert isinstance(await reviews.judge(other, NOW), Unjudged)
            assert isinstance(await reviews.judge(other, NOW), ProxyIdentity), "not remembered"
            await server.stop()
            assert isinstance(await reviews.judge(known, NOW + 59), ProxyIdentity)
            assert isinstance(await reviews.judge(known, NOW + 61), Unjudged)

    run(story)


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c.d", "ä.b.c", "x." + "y" * 20000 + ".z"])
def test_what_cannot_be_a_token_is_not_asked_about(tmp_path: Path, token: str) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (server, _tokens, api):
            assert isinstance(await TokenReviews(api, "istio-system").judge(token, NOW), Refused)
            assert asked(server) == 0

    run(story)
