"""All that is known of a failed request (``meshctl why``): sidecars' memories, traces, access logs, the present state.

In: the API, what is asked for. Out: one JSON-able dict: ``request``, ``hops``, ``where``, ``why``, ``config``, ``now``, ``do``,
``evidence``. ``CliError`` when nobody knows the request; it says where was looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from control.cli.errors import CliError
from control.cli.why_hops import Hop, origin, reason_of, related, tree, walk
from control.cli.why_story import State, fate, story
from control.client.api import ApiError
from meshproxy.message.reason import Reason

if TYPE_CHECKING:
    from control.client.api import Api

__all__ = ["Finder"]

_LOGS = 20  # pods whose logs are looked through
_TAIL = 2000  # lines of each
_SHOWN = 6  # lines of logs


class Finder:
    def __init__(self, api: Api) -> None:
        self._api = api

    def find(self, query: dict[str, Any], which: str) -> dict[str, Any]:
        """``query``: of ``/mesh/v1/failures``. Raises ``CliError``."""
        answer = self._failures(query)
        if not answer["failures"]:
            self._unknown(query, which, answer)
        picked = answer["failures"][0]
        hops = answer["failures"]
        if "id" not in query or "pod" in query or "namespace" in query:
            id_ = picked["request_id"]
            hops = self._failures({"id": id_})["failures"] if id_ else [picked]
        roots, guessed = tree(hops), frozenset[int]()
        root = self._root(roots, picked)
        begun = origin(root)
        if begun.inbound and reason_of(begun.about) is None and begun.about["status"] >= 500:
            # An app that does not hand the request's id on: what it called meanwhile, and what became of that.
            near = self._failures({"namespace": begun.pod[0], "pod": begun.pod[1]})["failures"]
            if also := related(begun.about, near):
                more = [*also, *(one for other in also for one in self._same(other, also))]
                guessed = frozenset(map(id, more))
                root = self._root(tree([*hops, *more], guessed), picked)
                begun = origin(root)
        above = next((hop for hop, _ in walk([root]) if begun in hop.children), None)
        told = story(begun, above, self._state(begun, above))
        ids = {hop.about["request_id"] for hop, _ in walk([root])} - {""}
        return {
            "request": _request(root.about),
            "hops": [
                {**hop.about, "depth": depth, "begunHere": hop is begun, "guessed": hop.guessed, "fate": fate(hop, hop is begun)}
                for hop, depth in walk([root])
            ],
            "where": told.where,
            "why": told.why,
            "config": told.config,
            "now": told.now,
            "do": told.do,
            "evidence": self._evidence(root, sorted(ids), answer),
        }

    def _failures(self, query: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._api.request("GET", "/mesh/v1/failures", params=query)
        return found

    def _same(self, one: dict[str, Any], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The other hops of the same request."""
        if not one["request_id"]:
            return []
        keys = {(other["namespace"], other["pod"], other["at"]) for other in known}
        found = self._failures({"id": one["request_id"]})["failures"]
        return [other for other in found if (other["namespace"], other["pod"], other["at"]) not in keys]

    @staticmethod
    def _root(roots: list[Hop], picked: dict[str, Any]) -> Hop:
        """The way that the picked failure is on; an app may send several requests with one id."""
        key = (picked["namespace"], picked["pod"], picked["at"])
        for root in roots:
            if any((*hop.pod, hop.about["at"]) == key for hop, _ in walk([root])):
                return root
        return roots[0]

    # -- the present

    def _state(self, begun: Hop, above: Hop | None) -> State:
        try:
            told = self._explained(begun)
            caller = self._explained(above) if above is not None and begun.inbound else None
            clusters = self._ask(begun.pod, "clusters", {})
            rows = self._api.request("GET", "/mesh/v1/proxies")["proxies"]
        except ApiError as refused:
            return State(problem=str(refused))
        cluster = next((one for one in clusters if one["name"] == begun.about["cluster"]), None)
        proxy = next((one for one in rows if (one["namespace"], one["name"]) == begun.pod), None)
        return State(told, caller, cluster, proxy, before=self._before(begun))

    def _before(self, begun: Hop) -> list[dict[str, Any]]:
        """Earlier failures at the same destination: for them endpoints were ejected."""
        if reason_of(begun.about) is not Reason.NO_HEALTHY_UPSTREAM:
            return []
        found = self._failures({"namespace": begun.pod[0], "pod": begun.pod[1]})["failures"]
        return [one for one in found if one["cluster"] == begun.about["cluster"] and one["at"] <= begun.began]

    def _explained(self, hop: Hop) -> dict[str, Any] | None:
        """What would become of the same request now; without its headers, which nobody keeps."""
        about = hop.about
        if not about["method"] or not about["authority"] or not about["path"].startswith("/"):
            return None
        args: dict[str, Any] = {
            "method": about["method"], "authority": about["authority"], "path": about["path"], "headers": {},
            "listener": about["listener"],
        }  # fmt: skip
        if hop.about["direction"] != "outbound" and about["remote"]:
            args["source"] = about["remote"]
        if hop.inbound and (principal := about["caller"].get("principal", "")):
            args["principal"] = principal
        try:
            found: dict[str, Any] = self._ask(hop.pod, "explain", args)
        except ApiError as refused:
            if refused.code == 422:  # the listener has gone, or the request is none that can be explained
                return None
            raise
        return found

    def _ask(self, pod: tuple[str, str], verb: str, args: dict[str, Any]) -> Any:
        path = f"/mesh/v1/proxies/{quote(pod[0])}/{quote(pod[1])}/query"
        return self._api.request("POST", path, body={"verb": verb, "args": args})

    # -- traces and logs

    def _evidence(self, root: Hop, ids: list[str], answer: dict[str, Any]) -> dict[str, Any]:
        traces = sorted({hop.about["trace_id"] for hop, _ in walk([root])} - {""})
        kept = [one for one in traces if self._kept(one)]
        first = root.about["caller"]  # whose sidecar may have logged what it does not remember: another try that succeeded
        callers = [(first["namespace"], first["pod"])] if first.get("pod") and first.get("namespace") else []
        pods = list(dict.fromkeys([*callers, *(hop.pod for hop, _ in walk([root]))]))
        return {
            "asked": answer["asked"],
            "unanswered": answer["unanswered"],
            "traces": kept,
            "sampled": bool(traces),
            "log": self._log(ids, pods)[:_SHOWN],
        }

    def _kept(self, trace: str) -> bool:
        try:
            self._api.request("GET", f"/mesh/v1/traces/{quote(trace)}")
        except ApiError:
            return False
        return True

    def _log(self, ids: list[str], pods: list[tuple[str, str]]) -> list[dict[str, str]]:
        """Lines of sidecars' logs with one of these ids, whatever their format."""
        found = []
        for namespace, pod in pods[:_LOGS] if ids else ():
            path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
            try:
                with self._api.stream(path, params={"container": "istio-proxy", "tailLines": _TAIL}) as lines:
                    found += [
                        {"namespace": namespace, "pod": pod, "line": line} for line in lines if any(one in line for one in ids)
                    ]
            except ApiError:  # no log is kept there
                continue
        return found

    def _unknown(self, query: dict[str, Any], which: str, answer: dict[str, Any]) -> None:
        """Raises ``CliError``: where was looked, and what that means."""
        asked = answer["asked"]
        silent = f"; {len(answer['unanswered'])} did not answer" if answer["unanswered"] else ""
        looked = f"{asked} sidecar{'' if asked == 1 else 's'}{silent}"
        if "id" not in query:
            what = {"failed": "failed", "": "failed"}.get(query["status"], f"was answered {query['status']}")
            late = f" in the last {float(query['since']):g} s" if "since" in query else ""
            raise CliError(f"no request that {what}{late} is remembered by {looked}; each keeps its last 256 since it started")
        logged, traced = [], []
        if len(which) >= 8:
            rows = self._api.request("GET", "/mesh/v1/proxies")["proxies"]
            logged = self._log([which], [(one["namespace"], one["name"]) for one in rows])
            traced = self._traced(which)
        if logged or traced:
            says = f"`meshctl trace {traced[0]}` shows it" if traced else f"{logged[0]['pod']} logged: {logged[0]['line']}"
            raise CliError(f"{which}: {looked} remember no failure of it; {says}")
        raise CliError(
            f"{which}: nobody knows this request: looked into what {looked} remember of failures, their access logs and the "
            f"traces; a request that succeeded leaves nothing where it is neither logged nor sampled"
        )

    def _traced(self, which: str) -> list[str]:
        found = self._api.request("GET", f"/mesh/v1/traces?tag={quote(f'guid:x-request-id={which}', safe='')}&limit=1")["traces"]
        return [one["traceId"] for one in found]


def _request(about: dict[str, Any]) -> dict[str, Any]:
    names = ("at", "ms", "method", "authority", "path", "status", "request_id", "trace_id", "remote", "caller")
    return {name: about[name] for name in names}
