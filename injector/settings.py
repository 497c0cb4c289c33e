"""The injector's settings: the ConfigMap ``istio-sidecar-injector``, key ``values``, as YAML. Quiet.

In: the text, and that of the mesh's own ConfigMap ``istio``, key ``mesh``, of which the defaults for proxies are taken. Out:
``Settings``, or ``BadSettings`` that names the field. Unknown fields are errors: a misspelt one would silently be its default.
The mesh's text is judged by control; here the fields that concern pods are read and the rest is left alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal

import msgspec
from msgspec import Struct

from injector import quantity
from injector.yamltext import YamlProblem, read

__all__ = [
    "DATA_KEY",
    "MAP_NAME",
    "BadSettings",
    "Cni",
    "Expression",
    "Init",
    "Proxy",
    "Selector",
    "Settings",
    "with_mesh",
]

VERSION = version("pymesh")
MAP_NAME = "istio-sidecar-injector"
DATA_KEY = "values"


class BadSettings(ValueError):
    """One line: the field's path and what to do."""


class _Part(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """camelCase on paper."""


class Expression(_Part, frozen=True, kw_only=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class Selector(_Part, frozen=True, kw_only=True):
    """A Kubernetes label selector. An empty one picks nobody."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Expression, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        if not self.match_labels and not self.match_expressions:
            return False
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _holds(one, labels) for one in self.match_expressions
        )


def _holds(one: Expression, labels: dict[str, str]) -> bool:
    if one.operator == "Exists":
        return one.key in labels
    if one.operator == "DoesNotExist":
        return one.key not in labels
    return (labels.get(one.key) in one.values) == (one.operator == "In")


class Resources(_Part, frozen=True, kw_only=True):
    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class Proxy(_Part, frozen=True, kw_only=True):
    """What a sidecar is when its pod asks for nothing else. The lists of ports and ranges are written as in the annotations."""

    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "2000m", "memory": "1024Mi"})
    log_level: str = "warning"
    component_log_level: str = "misc:error"
    agent_log_level: str = "default:info"
    interception_mode: Literal["REDIRECT", "NONE"] = "REDIRECT"
    include_outbound_ip_ranges: str = msgspec.field(default="*", name="includeOutboundIPRanges")
    exclude_outbound_ip_ranges: str = msgspec.field(default="", name="excludeOutboundIPRanges")
    include_inbound_ports: str = "*"
    exclude_inbound_ports: str = ""
    include_outbound_ports: str = ""
    exclude_outbound_ports: str = ""
    status_port: int = 15020
    readiness_initial_delay_seconds: int = 0
    readiness_period_seconds: int = 15
    readiness_failure_threshold: int = 4
    startup_probe: bool = True
    startup_failure_threshold: int = 600
    hold_application_until_proxy_starts: bool = False
    env: dict[str, str] = {}


class Init(_Part, frozen=True, kw_only=True):
    """The container that writes the rules. ``image`` "": the sidecar's."""

    image: str = ""
    resources: Resources | None = None
    force_apply: bool = False


class Cni(_Part, frozen=True, kw_only=True):
    """``enabled``: a CNI plugin writes the rules, and the init container only looks whether it did."""

    enabled: bool = False


class Settings(_Part, frozen=True, kw_only=True):
    """``native_sidecars`` auto: when ``kubernetes_version``, that of the oldest kubelet, is 1.33 or newer."""

    policy: Literal["enabled", "disabled"] = "enabled"
    never_inject_selector: tuple[Selector, ...] = ()
    always_inject_selector: tuple[Selector, ...] = ()
    injected_annotations: dict[str, str] = {}
    revision: str = ""
    root_namespace: str = "istio-system"
    hub: str = "pymesh"
    image: str = "mesh"  # with a slash in it: the whole reference, and hub and tag do not count
    tag: str = VERSION
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    image_pull_secrets: tuple[str, ...] = ()
    native_sidecars: Literal["auto", "true", "false"] = "auto"
    kubernetes_version: str = ""
    cluster_domain: str = "cluster.local"
    cluster_name: str = "Kubernetes"
    network: str = ""
    mesh_id: str = msgspec.field(default="", name="meshID")
    trust_domain: str = ""
    ca_address: str = ""
    rewrite_app_http_probe: bool = msgspec.field(default=True, name="rewriteAppHTTPProbe")
    enable_prometheus_merge: bool = True
    proxy: Proxy = Proxy()
    init: Init = Init()
    cni: Cni = Cni()
    proxy_config: dict[str, Any] = {}  # under what a pod's own proxy.istio.io/config says

    @classmethod
    def read(cls, text: str) -> Settings:
        """Raises ``BadSettings``."""
        try:
            given = read(text)
        except YamlProblem as problem:
            raise BadSettings(f"{DATA_KEY}: cannot be read as YAML: {problem}") from None
        try:
            found = msgspec.convert(_plain({} if given is None else given), cls)
        except msgspec.ValidationError as error:
            raise BadSettings(_told(str(error))) from None
        for line in _wrong(found):
            raise BadSettings(f"{DATA_KEY}.{line}")
        return found

    @property
    def proxy_image(self) -> str:
        if "/" in self.image:
            return self.image
        return f"{self.hub}/{self.image}:{self.tag}" if self.tag else f"{self.hub}/{self.image}"

    @property
    def native(self) -> bool:
        if self.native_sidecars != "auto":
            return self.native_sidecars == "true"
        oldest = _version(self.kubernetes_version)
        return oldest is not None and oldest >= (1, 33)


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _plain(value: Any) -> Any:
    """``nativeSidecars: true`` is as good as in quotes."""
    if isinstance(value, dict) and isinstance(value.get("nativeSidecars"), bool):
        return {**value, "nativeSidecars": str(value["nativeSidecars"]).lower()}
    return value


def _told(message: str) -> str:
    text, _, path = message.partition(" - at `$")
    where = f"{DATA_KEY}{path.rstrip('`')}"
    if unknown := re.match(r"Object contains unknown field `(.*)`", text):
        names = {name for struct in (Settings, Proxy, Init, Cni, Selector, Resources) for name in struct.__struct_encode_fields__}
        near = difflib.get_close_matches(unknown[1], names, 1)
        return f"{where}.{unknown[1]}: is no setting{f', did you mean {near[0]}?' if near else ''}"
    return f"{where}: {text[:1].lower()}{text[1:]}"


def _wrong(settings: Settings) -> Iterator[str]:
    """What types cannot tell. The forms of lists and levels are judged where annotations are (``annotations.check_settings``)."""
    if settings.kubernetes_version and _version(settings.kubernetes_version) is None:
        yield f'kubernetesVersion: must be like "1.33", not "{settings.kubernetes_version}"'
    for name, port in (("statusPort", settings.proxy.status_port),):
        if not 0 <= port <= 65535:
            yield f"proxy.{name}: must be a port from 0 to 65535, not {port}"
    for path, resources in (("proxy", settings.proxy.resources), ("init", settings.init.resources)):
        for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)) if resources else ():
            for name, amount in amounts.items():
                try:
                    quantity.read(str(amount))
                except ValueError as bad:
                    yield f"{path}.resources.{kind}.{name}: {bad}"
    for where, selectors in (
        ("neverInjectSelector", settings.never_inject_selector),
        ("alwaysInjectSelector", settings.always_inject_selector),
    ):
        for i, selector in enumerate(selectors):
            for j, one in enumerate(selector.match_expressions):
                if bool(one.values) != (one.operator in ("In", "NotIn")):
                    need = "needs values" if one.operator in ("In", "NotIn") else "takes no values"
                    yield f"{where}[{i}].matchExpressions[{j}]: {one.operator} {need}"
    yield from _named(settings)


def _named(settings: Settings) -> Iterator[str]:
    for i, secret in enumerate(settings.image_pull_secrets):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", secret):
            yield f'imagePullSecrets[{i}]: must be the name of a Secret, not "{secret}"'
    for field, text in (("hub", settings.hub), ("image", settings.image), ("tag", settings.tag)):
        if any(c.isspace() for c in text) or (not text and field == "image"):
            yield f'{field}: must be a part of an image\'s name, not "{text}"'


def with_mesh(settings: Settings, text: str) -> Settings:
    """The mesh's own words under the injector's: defaultConfig, enablePrometheusMerge, trustDomain. Raises ``BadSettings``."""
    try:
        mesh = read(text)
    except YamlProblem as problem:
        raise BadSettings(f"mesh: cannot be read as YAML: {problem}") from None
    mesh = {} if mesh is None else mesh
    if not isinstance(mesh, dict):
        raise BadSettings("mesh: must be one YAML mapping, such as trustDomain: cluster.local")
    changes: dict[str, Any] = {}
    default, merge, domain = mesh.get("defaultConfig"), mesh.get("enablePrometheusMerge"), mesh.get("trustDomain")
    if default is not None and not isinstance(default, dict):
        raise BadSettings("mesh.defaultConfig: must be an object")
    if default:
        changes["proxy_config"] = {**default, **settings.proxy_config}
    if merge is not None:
        if not isinstance(merge, bool):
            raise BadSettings("mesh.enablePrometheusMerge: must be true or false")
        changes["enable_prometheus_merge"] = merge and settings.enable_prometheus_merge
    if domain is not None and not isinstance(domain, str):
        raise BadSettings("mesh.trustDomain: must be a domain name")
    if domain and not settings.trust_domain:
        changes["trust_domain"] = domain
    return msgspec.structs.replace(settings, **changes)
