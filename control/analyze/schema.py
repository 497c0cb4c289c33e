"""Analysis, schema: what validation says of each object, errors and warnings. Codes IST0106, IST0133, IST0002, MESH0006,
MESH0010.

In: a scene. Out: findings, one per fault, each with the field's path. Assumes nothing: objects may be of any shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Obj, Scene, known
from control.resources.check import validate
from control.resources.honoured import NOT_YET, STORED_ONLY

__all__ = ["duplicates", "validation"]


def duplicates(scene: Scene) -> Iterator[Finding]:
    """Only files can hold an object twice."""
    counts = Counter((str(obj.get("apiVersion")).partition("/")[0], _subject(obj)) for obj in scene.objects)
    for (_, subject), count in counts.items():
        if count > 1:
            yield found("MESH0010", subject, "", f"is given {count} times; only the last one counts. Remove the others.")


def validation(scene: Scene) -> Iterator[Finding]:
    for obj in scene.objects:
        subject = _subject(obj)
        if not _ours(obj):
            continue
        verdict = validate(obj)
        for problem in verdict.errors:
            yield found("IST0106", subject, problem.path, problem.message)
        for problem in verdict.warnings:
            if problem.message in STORED_ONLY.values():
                if scene.live:
                    yield found("MESH0006", subject, "", problem.message, "Info")
            elif problem.message.startswith(NOT_YET):
                yield found("MESH0006", subject, problem.path, f"{problem.message}: it changes nothing; do not rely on it")
            elif "is deprecated" in problem.message:
                yield found("IST0002", subject, problem.path, problem.message)
            elif not problem.message.startswith("never happens"):  # MESH0004 says it
                yield found("IST0133", subject, problem.path, problem.message)


def _ours(obj: Obj) -> bool:
    """Istio's groups are ours to judge, known or not; of the others only kinds that we know."""
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        return True
    group = version.partition("/")[0]
    return group.endswith("istio.io") or known({**obj, "metadata": {}})


def _subject(obj: Obj) -> Subject:
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    return Subject(str(obj.get("kind") or "?"), str(meta.get("namespace") or ""), str(meta.get("name") or "?"))
