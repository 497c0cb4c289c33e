"""The agent against a scripted control over real TLS: whatever control does, the agent comes back and says why."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from control.ca.authority import Authority
from meshproxy.agent.client import Agent, AgentConfig
from meshproxy.agent.state import State, receive
from meshproxy.agent.tasks import spawn
from meshproxy.model.base import encode
from meshproxy.model.delivery import Ack, Answer, Hello, Push, Query

HELLO = encode(Hello(control="scripted")) + b"\n"
FULL = encode(Push(nonce="n1", version="v1", full=True)) + b"\n"
START = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[["Control", asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Control:
    """Plays one script per stream in turn (the last again and again) and keeps the posts."""

    def __init__(self, directory: Path, *scripts: Script) -> None:
        authority = Authority.open(directory / "ca", time.time())
        made = authority.issue_server(["127.0.0.1"], time.time(), 3600.0)
        (directory / "server.pem").write_bytes(made.key + made.certificate)
        self.ca_file = directory / "ca" / "root.pem"
        self.token_file = directory / "token"
        self.token_file.write_text("the-token\n")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "server.pem")
        self.scripts = list(scripts)
        self.streams: list[str] = []
        self.posts: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.post_answers = [b"HTTP/1.1 204 No Content\r\n\r\n"]
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Control:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await self.server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                assert "authorization: Bearer the-token\r\n" in head
                method, path, _ = head.split(" ", 2)
                if method == "GET":
                    self.streams.append(path)
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                    await script(self, writer)
                    return
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                self.posts.put_nowait((path, await reader.readexactly(length)))
                answer = self.post_answers.pop(0) if len(self.post_answers) > 1 else self.post_answers[0]
                writer.write(answer)
                if b"connection: close" in answer or not answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort() if not writer.is_closing() and writer.transport.get_write_buffer_size() else writer.close()

    def agent(self, state: State | None = None, **config: Any) -> Agent:
        held = state or State()
        settings = AgentConfig(
            control=f"https://127.0.0.1:{self.port}",
            ca_file=self.ca_file,
            token_file=self.token_file,
            namespace="default",
            pod="book",
            backoff_first=0.01,
            backoff_most=0.02,
            **config,
        )
        return Agent(
            settings,
            lambda push: receive(held, push, lambda candidate: ()),
            lambda query: Answer(id=query.id),
            lambda: held.version,
            draw=lambda: 0.5,
        )

    async def post(self) -> tuple[str, bytes]:
        async with asyncio.timeout(5):
            return await self.posts.get()


def says(*lines: bytes, then: str = "hold") -> Script:
    async def script(control: Control, writer: asyncio.StreamWriter) -> None:
        writer.write(START + b"".join(map(chunk, lines)))
        if then == "hold":
            await asyncio.Event().wait()
        elif then == "end":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            await writer.drain()
            writer.transport.abort()

    return script


def refuses(answer: bytes) -> Script:
    async def script(control: Control, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return script


async def until(predicate: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not predicate():
            await asyncio.sleep(0.002)


def play(tmp_path: Path, *scripts: Script, story: Callable[[Control, Agent], Awaitable[None]], **config: Any) -> None:
    async def main() -> None:
        async with Control(tmp_path, *scripts) as control:
            agent = control.agent(**config)
            task = spawn(agent.run(), "agent")
            try:
                await story(control, agent)
            finally:
                agent.stop()
                await task
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_a_push_is_applied_and_confirmed(tmp_path: Path) -> None:
    async def story(control: Control, agent: Agent) -> None:
        path, body = await control.post()
        assert (path, body) == ("/mesh/v1/config/ack", encode(Ack(nonce="n1", version="v1")))
        assert control.streams == ["/mesh/v1/config?have=&pod=default%2Fbook"]
        assert (agent.status.connected, agent.status.control) == (True, "scripted")

    play(tmp_path, says(HELLO, FULL), story=story)


def test_it_says_what_it_has_when_it_comes_back(tmp_path: Path) -> None:
    async def story(control: Control, agent: Agent) -> None:
        await until(lambda: len(control.streams) == 3)
        assert control.streams[1:] == ["/mesh/v1/config?have=v1&pod=default%2Fbook"] * 2
        assert agent.status.failures == 1  # an end in order is none

    play(tmp_path, says(HELLO, FULL, then="end"), says(HELLO, then="cut"), says(HELLO), story=story)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (says(HELLO, b'{"type":"fnord"}\n', then="hold"), "sent a line that this proxy does not understand"),
        (says(b"x" * 2000, then="hold"), "sent a line of more than 1000 bytes"),
        (says(HELLO, then="cut"), "the connection"),
        (says(HELLO, then="hold"), "silent for 0.05 s"),
        (
            refuses(b'HTTP/1.1 401 Unauthorized\r\ncontent-length: 34\r\n\r\n{"message":"Unauthorized: no\\nno"}'),
            "answered 401: Unauthorized: no no",
        ),
        (refuses(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 4\r\n\r\noops"), "answered 503: no reason given"),
        (refuses(b"garbage\r\n\r\n"), "the connection ended or is not HTTP"),
        (refuses(b""), "the connection"),
    ],
)
def test_every_failure_is_one_line_and_tried_again(tmp_path: Path, script: Script, said: str) -> None:
    async def story(control: Control, agent: Agent) -> None:
        errors: list[str] = []
        await until(lambda: (errors.append(agent.status.last_error), said in agent.status.last_error)[1])
        assert "\n" not in agent.status.last_error
        assert "the-token" not in agent.status.last_error
        seen = len(control.streams)
        await until(lambda: len(control.streams) > seen)

    play(tmp_path, script, story=story, max_line=1000, dead_after=0.05)


def test_an_ack_survives_a_connection_that_control_closed_while_idle(tmp_path: Path) -> None:
    second = encode(Push(nonce="n2", version="v2")) + b"\n"

    async def script(control: Control, writer: asyncio.StreamWriter) -> None:
        writer.write(START + chunk(HELLO + FULL))
        await until(lambda: control.posts.qsize() == 1)
        for other in control.writers:  # the connection for posts
            if other is not writer:
                other.transport.abort()
        writer.write(chunk(second))
        await asyncio.Event().wait()

    async def story(control: Control, agent: Agent) -> None:
        await until(lambda: control.posts.qsize() == 2)
        assert [(await control.post())[1] for _ in range(2)] == [
            encode(Ack(nonce="n1", version="v1")),
            encode(Ack(nonce="n2", version="v2")),
        ]
        assert agent.status.connects == 1

    play(tmp_path, script, story=story)


def test_an_ack_that_control_refuses_means_a_new_stream(tmp_path: Path) -> None:
    async def story(control: Control, agent: Agent) -> None:
        await until(lambda: len(control.streams) == 2)
        assert control.streams[1] == "/mesh/v1/config?have=v1&pod=default%2Fbook"

    async def main() -> None:
        async with Control(tmp_path, says(HELLO, FULL), says(HELLO)) as control:
            control.post_answers = [b"HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n"]
            agent = control.agent()
            task = spawn(agent.run(), "agent")
            await story(control, agent)
            agent.stop()
            await task

    asyncio.run(main())


def test_a_bug_in_apply_is_a_refusal_not_a_crash(tmp_path: Path) -> None:
    async def main() -> None:
        async with Control(tmp_path, says(HELLO, FULL)) as control:
            agent = control.agent()
            agent._apply = lambda push: {}["bug"]  # type: ignore[index]
            task = spawn(agent.run(), "agent")
            path, body = await control.post()
            assert path.endswith("/ack")
            assert b'"error":"failed in the proxy: KeyError","kind":"push"' in body
            agent.stop()
            await task

    asyncio.run(main())


def test_questions_are_answered_beside_the_stream(tmp_path: Path) -> None:
    async def story(control: Control, agent: Agent) -> None:
        assert await control.post() == ("/mesh/v1/config/answer", encode(Answer(id="q")))

    play(tmp_path, says(HELLO, encode(Query(id="q", verb="dump")) + b"\n"), story=story)


def test_a_flood_of_questions_is_bounded_and_ends_with_its_stream(tmp_path: Path) -> None:
    flood = [encode(Query(id=f"q{number}", verb="dump")) + b"\n" for number in range(2000)]

    async def main() -> None:
        gone = asyncio.Event()

        async def asks(control: Control, writer: asyncio.StreamWriter) -> None:
            writer.write(START + chunk(HELLO + b"".join(flood) + FULL))
            await gone.wait()

        async with Control(tmp_path, asks, says(HELLO, encode(Query(id="new", verb="dump")) + b"\n")) as control:
            agent = control.agent()
            started: list[str] = []

            async def never(query: Query) -> Answer:
                started.append(query.id)
                if query.id != "new":
                    await asyncio.Event().wait()
                return Answer(id=query.id)

            agent._answer = never
            task = spawn(agent.run(), "agent")
            path, _ = await control.post()
            assert path.endswith("/ack")  # the push behind the flood was taken
            await until(lambda: len(started) == 16)
            assert len(agent._replies) == 256
            gone.set()
            assert await control.post() == ("/mesh/v1/config/answer", encode(Answer(id="new")))  # its turn came at once
            assert len(started) == 17
            agent.stop()
            await task

    asyncio.run(main())


def test_a_missing_token_is_told_and_picked_up_when_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with Control(tmp_path, says(HELLO)) as control:
            control.token_file.unlink()
            agent = control.agent()
            task = spawn(agent.run(), "agent")
            await until(lambda: agent.status.last_error == f"{control.token_file}: No such file or directory")
            control.token_file.write_text("two words")
            await until(lambda: agent.status.last_error == f"{control.token_file}: holds no token")
            control.token_file.write_text("the-token")
            await until(lambda: agent.status.connected)
            agent.stop()
            await task

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "127.0.0.1:15012", "https://", "https://a/b", "https://u@a", "https://a?x"]
)
def test_a_foolish_url_is_refused_at_once(tmp_path: Path, url: str) -> None:
    config = AgentConfig(control=url, ca_file=tmp_path, token_file=tmp_path, namespace="a", pod="b")
    with pytest.raises(ValueError, match=r"control: must be like https://127\.0\.0\.1:15012"):
        Agent(config, lambda push: Ack(nonce="", version=""), lambda query: Answer(id=""))


def test_reports_go_out_on_the_second_connection_and_are_lost_in_silence(tmp_path: Path) -> None:
    refused = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"

    async def story(control: Control, agent: Agent) -> None:
        assert not await agent.report(b"too early")
        await until(lambda: agent.status.connected)
        assert await agent.report(b"one")
        assert await control.post() == ("/mesh/v1/config/report", b"one")
        control.post_answers = [refused]
        assert not await agent.report(b"two")
        control.post_answers = [b"HTTP/1.1 204 No Content\r\n\r\n"]
        control.token_file.rename(tmp_path / "elsewhere")
        assert not await agent.report(b"three")
        (tmp_path / "elsewhere").rename(control.token_file)
        assert await agent.report(b"four")
        assert [(await control.post())[1] for _ in range(2)] == [b"two", b"four"]
        assert len(control.streams) == 1 and agent.status.failures == 0

    play(tmp_path, says(HELLO), story=story)


def test_a_report_that_control_does_not_take_in_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshproxy.agent.client.REPORT_TIME", 0)

    async def story(control: Control, agent: Agent) -> None:
        await until(lambda: agent.status.connected)
        assert not await agent.report(b"one")

    play(tmp_path, says(HELLO), story=story)
