"""What a policy said of a request. Made at config time, one for each possible answer; requests only point at them."""

from __future__ import annotations

__all__ = ["Decision"]


class Decision:
    """action: ALLOW, DENY, AUDIT or CUSTOM. policy: ``namespace/name``, "" when none matched. rule: its index, or -1.

    result: the word for metrics ("allowed", "denied", "matched", "error", "failure_mode_allowed"). reason: one sentence for
    people. detail: of the 403 (Istio's naming), "" where there is none. dry_run: it changed nothing. counted: what it is counted
    by, which outlives it: another configuration makes another ``Decision``.
    """

    __slots__ = ("action", "allowed", "counted", "detail", "dry_run", "policy", "reason", "result", "rule")

    def __init__(
        self,
        allowed: bool,
        action: str,
        policy: str,
        rule: int,
        reason: str,
        *,
        result: str = "",
        detail: str = "",
        dry_run: bool = False,
    ) -> None:
        self.allowed = allowed
        self.action = action
        self.policy = policy
        self.rule = rule
        self.reason = reason
        self.result = result or ("allowed" if allowed else "denied")
        self.detail = detail
        self.dry_run = dry_run
        self.counted = (action, policy or "none", self.result)

    def __repr__(self) -> str:
        return f"Decision({self.result}, {self.action} {self.policy or 'none'} rule {self.rule})"
