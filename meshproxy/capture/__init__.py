"""Interception: the init container's program. ``settings`` and ``rules`` are quiet, ``tables``, ``lo``, ``validate`` and
``command`` are loud. It knows nobody of the sidecar and imports the standard library only: it runs before every pod's start.
"""
