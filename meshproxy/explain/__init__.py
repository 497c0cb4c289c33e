"""Explanations: the decision that the sidecar would take for a request, by the very code that takes it, in words.

In: a snapshot, a listener's name, a request and who asks (``request``). Out: ``Explanation`` (``decision``), its parts from
``guard`` (mutual TLS, tokens, policies) and ``destination`` (clusters, endpoints, TLS towards them). Nothing is sent and nothing
counted. No token is in what is told.
"""

from meshproxy.explain.decision import explain
from meshproxy.explain.destination import overlay
from meshproxy.explain.model import Explanation
from meshproxy.explain.request import listener_for, request_from

__all__ = ["Explanation", "explain", "listener_for", "overlay", "request_from"]
