"""The chain: order, verdicts, resuming after the filter that parked."""

from __future__ import annotations

from typing import Any

from meshproxy.filters.chain import run
from meshproxy.message.verdict import Wait
from meshproxy.policy.replies import plain_reply


def test_filters_run_in_order_until_one_answers() -> None:
    seen: list[str] = []

    def note(name: str, verdict: Any = None) -> Any:
        def judge(exchange: Any, now: float) -> Any:
            seen.append(name)
            return verdict

        return judge

    reply, wait = plain_reply(200), Wait(1.0)
    assert run((note("a"), note("b")), None, 0.0) == (2, None)  # type: ignore[arg-type]
    assert run((note("c"), note("d", reply), note("e")), None, 0.0) == (1, reply)  # type: ignore[arg-type]
    chain = (note("f"), note("g", wait), note("h"))
    at, verdict = run(chain, None, 0.0)  # type: ignore[arg-type]
    assert (at, verdict) == (1, wait)
    assert run(chain, None, 1.0, at + 1) == (3, None)  # type: ignore[arg-type]
    assert run((), None, 0.0) == (0, None)  # type: ignore[arg-type]
    assert "".join(seen) == "abcdfgh"
