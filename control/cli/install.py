"""``meshctl install``, ``manifest generate``, ``upgrade``: settings to manifests, and what they would change.

In: ``--set`` and files. Out: YAML for ``kubectl apply -f -`` on stdout, advice and warnings on stderr. Where a cluster
answers, it is looked at first: nothing is printed beside an Istio that is not set apart by ``--revision``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control.cli.errors import CliError
from control.cli.options import Context, Kubeconfig, examples

if TYPE_CHECKING:
    from control.cli.installed import Cluster
    from control.install.plan import Plan

__all__ = ["Sets", "SpecFiles", "made", "register", "reach"]

Obj = dict[str, Any]
Sets = Annotated[list[str] | None, typer.Option("-s", "--set", help="PATH=VALUE, such as profile=demo; repeatable.")]
SpecFiles = Annotated[list[str] | None, typer.Option("-f", "--filename", help="An IstioOperator, or its spec; repeatable.")]
Revision = Annotated[str, typer.Option("-r", "--revision", help="A name that sets this mesh apart from another.")]
Skip = Annotated[bool, typer.Option("-y", "--skip-confirmation", help="Taken for istioctl's sake: nothing is asked.")]
Force = Annotated[bool, typer.Option("--force", help="Print although something stands against it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Taken for istioctl's sake: nothing is changed in any case.")]


def register(app: typer.Typer) -> None:
    app.command(
        "install",
        epilog=examples(
            "meshctl install --set profile=demo | kubectl apply -f -",
            "meshctl install --set hub=registry.example/mesh --set tag=1.2 -f mesh.yaml | kubectl apply -f -",
            "meshctl install --revision canary --set profile=minimal | kubectl apply -f -",
        ),
    )(install)
    app.command("upgrade", epilog=examples("meshctl upgrade --set profile=demo"))(upgrade)
    manifest = typer.Typer(help="Manifests of an installation.", no_args_is_help=True)
    manifest.callback()(lambda: None)
    manifest.command("generate", epilog=examples("meshctl manifest generate --set profile=demo > mesh.yaml"))(generate)
    app.add_typer(manifest, name="manifest")


def install(
    set_: Sets = None,
    filename: SpecFiles = None,
    revision: Revision = "",
    skip_confirmation: Skip = False,
    dry_run: DryRun = False,
    force: Force = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Print what installs the mesh: pipe it into `kubectl apply -f -`."""
    plan, notes = made(set_, filename, revision)
    cluster = reach(plan, kubeconfig, context)
    stands_against(plan, cluster, force)
    plan, more = fitted(plan, cluster)
    _print(plan, [*notes, *more])
    verify = "meshctl verify-install" + (f" --revision {plan.revision}" if plan.revision else "")
    print(f"after `kubectl apply -f -` of this: {verify}", file=sys.stderr)
    return 0


def generate(
    set_: Sets = None,
    filename: SpecFiles = None,
    revision: Revision = "",
    force: Force = False,
) -> int:
    """Print the manifests of an installation; no cluster is asked."""
    plan, notes = made(set_, filename, revision)
    _print(plan, notes)
    return 0


def upgrade(
    set_: Sets = None,
    filename: SpecFiles = None,
    revision: Revision = "",
    skip_confirmation: Skip = False,
    dry_run: DryRun = False,
    force: Force = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> int:
    """Show what installing this version would change in the cluster. Give the settings that it was installed with."""
    from control.cli.installed import differences, get, said
    from control.cli.options import connect
    from control.install.manifest import objects

    plan, notes = made(set_, filename, revision)
    _tell(notes)
    api = connect(kubeconfig, context)
    cluster = _look(api, plan)
    if cluster.problem:
        raise CliError(f"{cluster.problem}: there is nothing to upgrade")
    stands_against(plan, cluster, force)
    plan, more = fitted(plan, cluster)
    _tell(more)
    changes = 0
    for obj in objects(plan):
        live = get(api, obj)
        places = [] if live is None else [one for one in differences(obj, live) if one not in ("apiVersion", "kind")]
        if live is None:
            print(f"create  {said(obj)}{_in(obj)}")
        elif places:
            shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
            print(f"change  {said(obj)}{_in(obj)}: {shown}")
        changes += live is None or bool(places)
    print("nothing would change" if not changes else f"{changes} objects would change", file=sys.stderr)
    if changes:
        print(
            "to do it: `meshctl install` with the same settings, into `kubectl apply -f -`; then restart gateways and",
            file=sys.stderr,
        )
        print("injected workloads, one after the other, for the new sidecar (kubectl rollout restart)", file=sys.stderr)
    return 0


def _in(obj: Obj) -> str:
    namespace = obj["metadata"].get("namespace")
    return f" -n {namespace}" if namespace else ""


def made(sets: list[str] | None, files: list[str] | None, revision: str) -> tuple[Plan, list[str]]:
    """The plan, and what to warn of. Raises ``CliError``."""
    from control.cli.refs import texts
    from control.install.overlay import BadOptions, read
    from control.install.plan import settle

    given = [found for name in files or () for found in texts(name)]
    try:
        spec, warnings = read(given, sets or [], revision)
        plan = settle(spec)
    except BadOptions as bad:
        raise CliError("\nerror: ".join(bad.lines), code=1) from None
    _judge_settings(plan)
    _judge_amounts(plan)
    return plan, [*warnings, *plan.warnings]


def _judge_settings(plan: Plan) -> None:
    """By the injector's own judge: it would refuse the same when it reads them."""
    import yaml

    from injector.annotations import check_settings
    from injector.settings import BadSettings, Settings, with_mesh

    try:
        check_settings(with_mesh(Settings.read(yaml.safe_dump(plan.injector)), yaml.safe_dump(plan.mesh)))
    except BadSettings as bad:
        raise CliError(f"the sidecars' settings: {bad}") from None


def _judge_amounts(plan: Plan) -> None:
    """A cluster takes the rest and refuses the Deployment."""
    from injector.quantity import read

    lines: list[str] = []
    named = [(plan.control_name, plan.control_work), (plan.injector_name, plan.injector_work)]
    for name, work in [*named, *((gateway.name, gateway.work) for gateway in plan.gateways)]:
        found = {}
        for kind, amounts in work.resources.items():
            for what, amount in amounts.items():
                try:
                    found[kind, what] = read(amount)
                except ValueError as bad:
                    lines.append(f"{name}: resources.{kind}.{what}: {bad}")
        for (kind, what), amount in found.items():
            if kind == "requests" and amount > found.get(("limits", what), amount):
                most, asked = work.resources["limits"][what], work.resources[kind][what]
                lines.append(f"{name}: resources.requests.{what}: must be at most the limit, {most}, not {asked}")
    if lines:
        raise CliError("\nerror: ".join(lines))


def reach(plan: Plan | None, kubeconfig: str | None, context: str | None) -> Cluster:
    """What is in the cluster; ``problem`` says why it is not known. An explicit kubeconfig that leads nowhere is an error."""
    import os
    from pathlib import Path

    from control.cli.installed import PATIENCE, Cluster
    from control.cli.options import opened
    from control.client.api import Api, ApiError, Unreachable
    from control.client.kubeconfig import BadKubeconfig, find, load

    try:
        api = Api(load(find(kubeconfig, os.environ, Path.cwd()), context), timeout=PATIENCE)
        opened.append(api)
        return _look(api, plan)
    except (BadKubeconfig, Unreachable, ApiError) as failure:
        if kubeconfig or context:
            raise
        why = (
            "there is no kubeconfig"
            if isinstance(failure, BadKubeconfig) and str(failure).startswith("no kubeconfig")
            else str(failure)
        )
        return Cluster(problem=why)


def _look(api: Any, plan: Plan | None) -> Cluster:
    from control.cli.installed import inspect

    return inspect(api, plan)


def stands_against(plan: Plan, cluster: Cluster, force: bool) -> None:
    """Raises ``CliError`` where the two would be in each other's way."""
    from control.cli.installed import revision as revision_of
    from control.cli.installed import said

    problems = []
    controls = [one for one in cluster.foreign if one["kind"] == "Deployment"]
    hooks = [one for one in cluster.foreign if one["kind"] != "Deployment"]
    where = ", ".join(f"{said(one)}{_in(one)} (revision {revision_of(one)})" for one in controls or hooks)
    if (controls or hooks) and not plan.revision:
        problems.append(f"Istio is in this cluster: {where}: give --revision NAME to set this mesh apart, or remove Istio first")
    for one in (*controls, *hooks):
        if plan.revision and revision_of(one) == plan.revision:
            problems.append(f"revision {plan.revision} is Istio's own ({said(one)}{_in(one)}): choose another name")
            break
    for one in controls:
        namespace = one["metadata"].get("namespace")
        if plan.revision and namespace != plan.namespace:
            problems.append(
                f"Istio is in {namespace}: install beside it there (--set namespace={namespace}), both under one authority"
            )
    for one in cluster.gateways:
        problems.append(
            f"{said(one)}{_in(one)} is there and is not of this mesh: --set profile=minimal, or give the gateway another name"
        )
    if problems and not force:
        raise CliError("\nerror: ".join(dict.fromkeys(problems)))
    for line in dict.fromkeys(problems):
        print(f"Warning: {line}", file=sys.stderr)


def fitted(plan: Plan, cluster: Cluster) -> tuple[Plan, list[str]]:
    """As this cluster needs it, so that applying it twice changes nothing; and notes."""
    from dataclasses import replace

    if cluster.problem:
        return plan, [f"no cluster was looked at, so not whether another mesh is there: {cluster.problem}"]
    notes = []
    if cluster.validating:
        plan = replace(plan, validating_policy=cluster.validating)
    if cluster.kubelet and "kubernetesVersion" not in plan.injector:
        plan = replace(plan, injector={**plan.injector, "kubernetesVersion": cluster.kubelet})
    if cluster.foreign_crds and cluster.foreign:
        plan = replace(plan, crds=False)
        notes.append(f"{len(cluster.foreign_crds)} CRDs are Istio's and are left as they are: both meshes use them")
    return plan, notes


def _tell(notes: list[str]) -> None:
    for note in notes:
        print(f"Warning: {note}", file=sys.stderr)


def _print(plan: Plan, notes: list[str]) -> None:
    from control.install.manifest import objects, text

    _tell(notes)
    sys.stdout.write(text(objects(plan)))
