"""Room 3, codec: HTTP/1 both ways, the door to the ``h1_*`` files.

A connection's bytes go to a machine (``h1_server``, ``h1_client``). Heads are read in two readings: ``h1_head`` recognises the
plain case or declines; ``h1_guard`` judges what was declined and owns every refusal; ``h1_strange`` has h11 parse what the guard
let through. Bodies are counted (``h1_body``), heads and chunks written by ``h1_write``; ``h1_rules`` holds what they share.
"""

from meshproxy.codec.h1_client import ClientCodec
from meshproxy.codec.h1_rules import H1Limits
from meshproxy.codec.h1_server import ServerCodec
from meshproxy.codec.wire import Wire

__all__ = ["ClientCodec", "H1Limits", "ServerCodec", "Wire"]
