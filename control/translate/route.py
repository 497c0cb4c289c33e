"""Translate, routes: the HTTP rules of a VirtualService as one client gets them, and the plain route to a service.

In: a VirtualService with full names, a client, and answers about destinations (``Targets``). Out: model routes in order.
First match wins; a rule that catches everything ends the list (semantics A1).
"""

from __future__ import annotations

from control.resources import virtual_service as api
from control.resources.values import parse_duration
from control.translate import actions
from control.translate.aim import Aim, Targets
from control.translate.cluster import cluster_name
from control.translate.match import Client, applies, catches_all, claim_keys, claim_path, route_match
from control.translate.snapshot import Problem
from control.world.config import HostedVirtualService, gateway_name
from control.world.mesh import MeshSettings
from control.world.services import MeshService
from meshproxy.model import route as model
from meshproxy.model.match import RouteMatch

__all__ = ["service_route", "virtual_service_routes"]


def service_route(mesh: MeshSettings, service: MeshService, port: int, targets: Targets) -> model.Route:
    """The route of a service that no VirtualService speaks about."""
    name = cluster_name(port, "", service.host)
    targets.used(service, name)
    return model.Route(
        name="default",
        action=model.Forward(
            clusters=(model.WeightedCluster(cluster=name),),
            retry=actions.retry(None, mesh.default_retry, hashed=targets.hashed(name)),
        ),
    )


def virtual_service_routes(
    vs: HostedVirtualService, mesh: MeshSettings, client: Client, targets: Targets, problems: list[Problem]
) -> tuple[model.Route, ...]:
    """The routes of ``vs`` for ``client``; none when no rule applies to it."""
    routes: list[model.Route] = []
    for index, rule in enumerate(vs.resource.spec.http):
        translator = _Rule(vs, index, rule, mesh, client, targets, problems)
        if translator.add_to(routes):
            break
    return tuple(routes)


class _Rule:
    """One ``http[]`` entry on its way to the model."""

    def __init__(
        self,
        vs: HostedVirtualService,
        index: int,
        rule: api.HTTPRoute,
        mesh: MeshSettings,
        client: Client,
        targets: Targets,
        problems: list[Problem],
    ) -> None:
        self.vs, self.rule, self.mesh, self.client, self.targets, self.problems = (
            vs,
            rule,
            mesh,
            client,
            targets,
            problems,
        )
        self.source = f"{vs.source} http[{index}]"
        self.aim = Aim(vs.namespace, mesh.cluster_domain, client.ports, targets, self.note, "answered 503")

    def note(self, path: str, message: str) -> None:
        self.problems.append(Problem(f"{self.source}.{path}", message))

    def add_to(self, routes: list[model.Route]) -> bool:
        """Appends the routes of this rule; true when nothing can come after it."""
        rule = self.rule
        if rule.delegate is not None:
            self.note("delegate", "not honoured yet: this rule matches nothing")
            return False
        if not rule.match:
            routes.append(self.route(None, self.source))
            return True
        for index, match in enumerate(rule.match):
            gateways = frozenset(gateway_name(g, self.vs.namespace) for g in match.gateways)
            if not applies(match, gateways, self.client):
                continue
            unread = [key for key in claim_keys(match) if claim_path(key) is None]
            if unread:  # fail closed: a question about nothing does not hold, not even inverted
                self.note(f"match[{index}].headers[{unread[0]}]", "names no claim: this match never holds")
                continue
            routes.append(self.route(match, f"{self.source}.match[{index}]"))
            if catches_all(match):
                return True
        return False

    def route(self, match: api.HTTPMatchRequest | None, source: str) -> model.Route:
        rule, headers = self.rule, self.rule.headers or api.Headers()
        return model.Route(
            name=".".join(part for part in (rule.name, match.name if match is not None else "") if part),
            match=route_match(match) if match is not None else RouteMatch(),
            action=self.action(match.uri if match is not None else None),
            request_headers=actions.header_ops(headers.request, self.note, "headers.request", request=True),
            response_headers=actions.header_ops(headers.response, self.note, "headers.response", request=False),
            cors=actions.cors(rule.cors_policy),
            fault=actions.fault(rule.fault, self.note),
            source=source,
        )

    def action(self, uri: api.StringMatch | None) -> model.Forward | model.Redirect | model.DirectResponse:
        rule = self.rule
        if rule.redirect is not None:
            return actions.redirect(rule.redirect, uri)
        if rule.direct_response is not None:
            return actions.direct_response(rule.direct_response)
        clusters, hashed = self.clusters()
        if not clusters:
            self.note("route", "no destination has any weight: answered 503")
            return model.DirectResponse(status=503)
        return model.Forward(
            clusters=clusters,
            rewrite=actions.rewrite(rule.rewrite, uri),
            timeout=parse_duration(rule.timeout) if rule.timeout else 0.0,
            retry=actions.retry(rule.retries, self.mesh.default_retry, hashed=hashed),
            mirrors=self.mirrors(),
        )

    def clusters(self) -> tuple[tuple[model.WeightedCluster, ...], bool]:
        """The destinations, and whether any of them balances by hash. One destination counts whatever its weight."""
        chosen: list[model.WeightedCluster] = []
        hashed = False
        single = len(self.rule.route) == 1
        for index, target in enumerate(self.rule.route):
            path = f"route[{index}]"
            if not single and target.weight <= 0:
                continue
            name = self.destination(target.destination, f"{path}.destination")
            hashed = hashed or self.targets.hashed(name)
            headers = target.headers or api.Headers()
            chosen.append(
                model.WeightedCluster(
                    cluster=name,
                    weight=1 if single else target.weight,
                    request_headers=actions.header_ops(headers.request, self.note, f"{path}.headers.request", request=True),
                    response_headers=actions.header_ops(headers.response, self.note, f"{path}.headers.response", request=False),
                )
            )
        return tuple(chosen), hashed

    def destination(self, target: api.Destination, path: str) -> str:
        return self.aim.cluster(target, path)

    def mirrors(self) -> tuple[model.Mirror, ...]:
        rule = self.rule
        found: list[model.Mirror] = []
        for index, policy in enumerate(rule.mirrors):
            share = 100.0 if policy.percentage is None else actions.percent_of(policy.percentage.value)
            if share > 0:
                name = self.destination(policy.destination, f"mirrors[{index}].destination")
                found.append(model.Mirror(cluster=name, percent=share))
        if rule.mirror is not None and not rule.mirrors:
            share = 100.0
            if rule.mirror_percentage is not None:
                share = actions.percent_of(rule.mirror_percentage.value)
            elif rule.mirror_percent is not None:
                share = float(rule.mirror_percent)
            if share > 0:
                found.append(model.Mirror(cluster=self.destination(rule.mirror, "mirror"), percent=share))
        return tuple(found)
