"""What a tap asks of a sidecar and what it is told: requests as they pass, never their bodies.

In: ``TapOrder`` with a ``TapFilter`` (control's question ``tap``). Out: ``TapBatch`` of ``TapEvent``, posted to control while
its answer is not 410. Also the small languages of filters: statuses, flags. Pure.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshproxy.model.base import Model

__all__ = ["FLAGS", "MOST_SECONDS", "TapBatch", "TapEvent", "TapFilter", "TapOrder", "flags", "statuses"]

MOST_SECONDS = 3600.0  # that a tap may stay open
Direction = Literal["inbound", "outbound", "gateway"]
FLAGS = (
    *("UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL"),
    *("UAEX", "DC", "URX", "SI", "DPE", "UPE", "NC", "OM"),
)


class TapFilter(Model, frozen=True):
    """All that is given must hold. ``path``, ``authority``: a beginning and a whole, or with ``*`` a pattern for the whole.

    ``source``, ``destination``: a workload or service, ``NAME``, ``NAME.NAMESPACE`` or ``NAMESPACE/NAME``, or an IP address.
    ``headers``: of the request; a value None: it is there at all.
    """

    methods: tuple[str, ...] = ()
    path: str = ""
    statuses: tuple[tuple[int, int], ...] = ()  # from, to, both included
    authority: str = ""
    source: str = ""
    destination: str = ""
    directions: tuple[Direction, ...] = ()
    min_ms: float = 0.0
    flags: tuple[str, ...] = ()
    headers: tuple[tuple[str, str | None], ...] = ()


class TapOrder(Model, frozen=True):
    """``most`` 0: as many as come. ``rate``: requests told a second; those beyond are counted. ``values``: of headers too."""

    id: str
    filter: TapFilter = TapFilter()
    seconds: float = 600.0
    most: int = 0
    rate: int = 200
    values: bool = False


class TapEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One request that is over. Texts are as they were sent, but for what is secret. ``time``: Unix seconds of its head.

    ``source``: workload ``name.namespace``, else "". ``mtls``: of the side that ``direction`` names (inbound the caller's
    connection, else that to the endpoint): ``mtls``, ``tls`` or ``none``. ``tries`` 0: nobody was asked.
    """

    time: float
    direction: str
    listener: str = ""
    method: str
    authority: str
    path: str
    protocol: str = ""
    status: int
    flags: tuple[str, ...] = ()
    detail: str = ""
    failure: str = ""  # of the transport towards the endpoint
    duration_ms: float
    upstream_ms: float | None = None  # until the endpoint's first byte
    source: str = ""
    source_address: str = ""
    source_principal: str = ""
    destination: str = ""  # workload name.namespace, else ""
    destination_service: str = ""
    destination_principal: str = ""
    cluster: str = ""
    endpoint: str = ""  # ip:port
    route: str = ""
    mtls: str = "none"
    tries: int = 0
    request_id: str = ""
    trace_id: str = ""
    grpc_status: str = ""
    bytes_received: int = 0
    bytes_sent: int = 0
    request_headers: tuple[tuple[str, str], ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()


class TapBatch(Model, frozen=True):
    """``POST /mesh/v1/config/tap``, a few times a second. ``over``: left out because there were more than ``rate`` in a second;
    ``slow``: because the sidecar's queue was full. ``ended``: why this is the last one.
    """

    id: str
    events: tuple[TapEvent, ...] = ()
    over: int = 0
    slow: int = 0
    ended: str = ""


def statuses(text: str) -> tuple[tuple[int, int], ...]:
    """``503``, ``5xx``, ``400-499``, several with commas; 0 is a request without an answer. Raises ``ValueError`` (one line)."""
    found: list[tuple[int, int]] = []
    for word in text.lower().split(","):
        word = word.strip()
        low, dash, high = word.partition("-")
        if len(word) == 3 and word[0] in "12345" and word[1:] == "xx":
            found.append((int(word[0]) * 100, int(word[0]) * 100 + 99))
        elif _status(low) and (not dash or _status(high)):
            first, last = int(low), int(high or low)
            if first > last:
                raise ValueError(f"{word}: the range ends before it begins")
            found.append((first, last))
        else:
            raise ValueError(f"{word or repr(text)}: not a status; write 503, 5xx or 400-499")
    return tuple(found)


def _status(word: str) -> bool:
    return word == "0" or (len(word) == 3 and word.isascii() and word.isdigit() and "100" <= word <= "599")


def flags(text: str) -> tuple[str, ...]:
    """``UF`` or ``UF,UH``. Raises ``ValueError`` (one line)."""
    found = tuple(word.strip().upper() for word in text.split(","))
    for word in found:
        if word not in FLAGS:
            raise ValueError(f"{word or repr(text)}: not a response flag; they are {', '.join(FLAGS)}")
    return found
