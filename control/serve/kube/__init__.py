"""The Kubernetes-shaped API: good enough that an unchanged kubectl works.

``routes(store, logs_dir=…, clock=…, stopping=…)`` gives the Starlette routes, ``handlers()`` the exception handlers of the app
that holds them. The walk of a request: ``api`` finds the target and the verb; ``reading``, ``writing``, ``deleting``, ``watch``,
``pods`` do it; ``status`` says no.
"""

from control.serve.kube.api import routes
from control.serve.kube.status import handlers

__all__ = ["handlers", "routes"]
