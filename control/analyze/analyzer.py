"""Analysis, the whole: every check over one scene, findings that the user does not want left out, in a stable order.

In: a ``Scene``. Out: findings. An object's annotation ``galley.istio.io/analyze-suppress`` (codes, comma-separated, or ``*``)
silences codes for it, as in Istio.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from control.analyze.finding import Finding
from control.analyze.registry import CHECKS
from control.analyze.scene import Scene

__all__ = ["SUPPRESS", "analyze", "matches_suppression"]

SUPPRESS = "galley.istio.io/analyze-suppress"


def analyze(scene: Scene, namespace: str | None = None) -> tuple[Finding, ...]:
    """All findings, worst first; with ``namespace`` only those about its objects (a Namespace counts as its own)."""
    silenced = _silenced(scene)
    seen: dict[Finding, None] = {}
    for check in CHECKS:
        for finding in check.run(scene):
            codes = silenced.get((finding.kind, finding.namespace, finding.name), frozenset())
            if "*" in codes or finding.code in codes:
                continue
            if namespace is not None and (finding.namespace or finding.name) != namespace:
                continue
            seen[finding] = None
    return tuple(sorted(seen, key=lambda finding: finding.order))


def _silenced(scene: Scene) -> dict[tuple[str, str, str], frozenset[str]]:
    found = {}
    for obj in scene.objects:
        meta = obj.get("metadata")
        notes = meta.get("annotations") if isinstance(meta, dict) else None
        text = notes.get(SUPPRESS) if isinstance(notes, dict) else None
        if isinstance(text, str) and isinstance(meta, dict):
            key = (str(obj.get("kind")), str(meta.get("namespace") or ""), str(meta.get("name")))
            found[key] = frozenset(part.strip() for part in text.split(","))
    return found


def matches_suppression(finding: Finding, text: str) -> bool:
    """Whether ``IST0103=Pod web.default`` (istioctl's form; ``default/web`` too, ``*`` for any) means this finding.

    Raises ValueError, one line, for anything else.
    """
    code, equals, what = text.partition("=")
    kind, space, name = what.strip().partition(" ")
    if not equals or not code.strip() or not space or not name.strip():
        raise ValueError(f'{text}: must be CODE=KIND NAME.NAMESPACE, such as "IST0103=Pod web.default"')
    names = [finding.name]
    if finding.namespace:
        names = [f"{finding.name}.{finding.namespace}", f"{finding.namespace}/{finding.name}"]
    if code.strip() != finding.code or not fnmatchcase(finding.kind, kind):
        return False
    return any(fnmatchcase(one, name.strip()) for one in names)
