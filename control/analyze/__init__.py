"""Analysis: what is well-formed and yet will not do what its author meant. Pure; start reading at ``analyzer``.

``Scene.of(objects)`` is what is looked at, ``analyze(scene) -> tuple[Finding, ...]`` the judgement. One file per family of
checks; ``registry.CHECKS`` lists them, ``codes.CODES`` says what each code means.
"""

from control.analyze.analyzer import analyze, matches_suppression
from control.analyze.codes import CODES, Code, Level
from control.analyze.finding import Finding
from control.analyze.registry import CHECKS, Check
from control.analyze.scene import Scene

__all__ = ["CHECKS", "CODES", "Check", "Code", "Finding", "Level", "Scene", "analyze", "matches_suppression"]
