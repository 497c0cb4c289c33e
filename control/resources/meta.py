"""What every resource shares: the base structs, object metadata, selectors, and the value forms used by their fields.

Room: control/resources (bottom floor of control). In: nothing. Out: struct bases and annotated aliases. The aliases carry
range limits that msgspec enforces and a ``form`` (duration, regex, ...) that ``check`` and ``schema`` read, so that a field's
rules stand where the field is declared.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

__all__ = [
    "Base64",
    "Duration",
    "DurationOrZero",
    "HttpStatus",
    "Int32",
    "Lenient",
    "LocalPort",
    "ObjectMeta",
    "OwnerReference",
    "Part",
    "Percentage",
    "PolicyTargetReference",
    "PortNumber",
    "Regex",
    "Resource",
    "Uint32",
    "WorkloadSelector",
]

Duration = Annotated[str, Meta(description="A duration such as 1.5s, 100ms, 3m or 1h30m.", extra={"form": "duration"})]
DurationOrZero = Annotated[
    str, Meta(description="A duration such as 1.5s; 0s turns it off.", extra={"form": "duration", "zero": True})
]
Regex = Annotated[str, Meta(description="An RE2 expression.", extra={"form": "regex"})]
Base64 = Annotated[str, Meta(description="Bytes in standard base64.", extra={"form": "base64"})]
PortNumber = Annotated[int, Meta(ge=1, le=65535, description="A port, 1 to 65535.", extra={"form": "port"})]
LocalPort = Annotated[int, Meta(ge=0, le=65535, description="A port; 0 is unset.", extra={"form": "port"})]
Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1, description="An integer from 0 to 4294967295.")]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
HttpStatus = Annotated[int, Meta(ge=100, le=599, description="An HTTP status code, 100 to 599.")]
Percentage = Annotated[float, Meta(ge=0, le=100, description="A percentage, 0 to 100.")]


class Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A piece of a resource. Attribute names are snake_case of the JSON field; ``None`` means not given.

    ``exclusive`` lists groups of JSON fields of which at most one may be given; ``exactly_one`` groups of which one must be.
    """

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = ()
    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = ()


class Lenient(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A piece of a core Kubernetes object, of which we read only some fields: the others are ignored, not refused."""


class OwnerReference(Lenient, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Part, frozen=True, kw_only=True):
    """Kubernetes object metadata. ``resource_version`` is an opaque string, ``creation_timestamp`` RFC 3339."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None  # generators write null here
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    self_link: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    managed_fields: Any = None


class Resource(Part, frozen=True, kw_only=True):
    """A mesh object: strict, and every field of its API is known. Subclasses add ``spec``."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


class WorkloadSelector(Part, frozen=True, kw_only=True):
    """Selects workloads whose labels hold all of ``match_labels``."""

    match_labels: dict[str, str] = {}


class PolicyTargetReference(Part, frozen=True, kw_only=True):
    """What a policy attaches to: a Gateway, GatewayClass, Service or ServiceEntry of the same namespace."""

    group: str = ""
    kind: str
    name: str
    namespace: str = ""
