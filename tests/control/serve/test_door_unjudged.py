"""The door while nobody can say whose a token is."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from control.identity import Judgement, ProxyIdentity, Unjudged
from control.serve.auth import Door

NOW = 1000.0


class Reviews:
    """Answers until it is ``away``."""

    def __init__(self) -> None:
        self.away = False

    async def judge(self, token: str, now: float) -> Judgement:
        if self.away:
            return Unjudged("cannot be asked")
        return ProxyIdentity("default", token, "sa", NOW + 60, f"id-{token}")


def test_a_sidecar_whose_stream_is_open_goes_on_and_nobody_else() -> None:
    async def story() -> None:
        clock = [NOW]
        reviews, streaming, end = Reviews(), asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/mesh/v1/config":
                streaming.set()
                await end.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": scope["state"]["caller"].pod.encode()})

        door = Door(app, reviews, lambda: clock[0])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://mesh") as client:

            async def ack(token: str) -> int:
                answer = await client.post("/mesh/v1/config/ack", headers={"authorization": f"Bearer {token}"})
                return answer.status_code

            stream = asyncio.ensure_future(client.get("/mesh/v1/config", headers={"authorization": "Bearer book"}))
            await streaming.wait()
            assert await ack("rating") == 204
            reviews.away = True
            assert await ack("book") == 204
            assert await ack("rating") == 503, "it was let in before, but has nothing open"
            clock[0] = NOW + 60
            assert await ack("book") == 503, "its token has expired"
            clock[0] = NOW
            end.set()
            assert (await stream).status_code == 204
            assert await ack("book") == 503, "its stream has ended"

    asyncio.run(story())
