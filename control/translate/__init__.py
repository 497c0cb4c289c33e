"""Resources to proxy configuration: pure and deterministic. Start reading at ``translator``.

``Translator().translate(world, proxy) -> Snapshot``; ``diff(old, new) -> Change`` says what to send.
"""

from control.translate.proxy import ProxyId, proxy_of
from control.translate.snapshot import Change, Entry, Layer, Problem, Snapshot, diff
from control.translate.translator import Translator, translate

__all__ = [
    "Change",
    "Entry",
    "Layer",
    "Problem",
    "ProxyId",
    "Snapshot",
    "Translator",
    "diff",
    "proxy_of",
    "translate",
]
