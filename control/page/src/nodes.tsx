// Services and workloads: a table of golden signals, and the page of one: plots, who it calls and is called by, what applies, who may call.
// In: /api/services, /api/workloads, /api/node, /api/series. Out: elements.
import type { NodeDetail, Row } from "./api";
import { ms, plural, rate, short, traced } from "./format";
import { href, setParams, useQuery, type Route } from "./state";
import { Badge, Empty, Errors, Fact, Glyph, Mtls, reference, RefLink, Shown, syncTone, Table, type Column } from "./ui";
import { EdgeTable } from "./calls";
import { history, SeriesPlots } from "./plot";

const COLUMNS: Column<Row>[] = [
  { name: "name", value: (row) => row.name },
  { name: "namespace", value: (row) => row.namespace },
  { name: "rate", numeric: true, value: (row) => row.rps, cell: (row) => `${rate(row.rps)}/s` },
  { name: "errors", numeric: true, value: (row) => row.errorShare, cell: (row) => <Errors part={row.errorShare} /> },
  { name: "p50", numeric: true, value: (row) => row.p50, cell: (row) => ms(row.p50) },
  { name: "p95", numeric: true, value: (row) => row.p95, cell: (row) => ms(row.p95) },
  { name: "p99", numeric: true, value: (row) => row.p99, cell: (row) => ms(row.p99) },
  { name: "mTLS", value: (row) => String(row.mtls ?? ""), cell: (row) => <Mtls mode={row.mtls} /> },
  { name: "policies", numeric: true, value: (row) => row.policies?.length ?? 0, cell: (row) => <Policies of={row} /> },
  { name: "sync", value: (row) => row.sync ?? "", cell: (row) => <Badge tone={syncTone(row.sync)}>{row.sync ?? "–"}</Badge> },
];

const ENDPOINTS: Column<Row> = { name: "endpoints", numeric: true, value: (row) => row.endpoints, cell: (row) => <Enough of={row.endpoints} /> };
const PODS: Column<Row> = { name: "ready", numeric: true, value: (row) => row.ready, cell: (row) => <Ready of={row} /> };
const SERVICES = [...COLUMNS.filter((column) => column.name !== "sync"), ENDPOINTS];
const WORKLOADS = [...COLUMNS.slice(0, -1), PODS, ...COLUMNS.slice(-1)];

function Enough({ of }: { of: number | undefined }) {
  return of ? <>{of}</> : <Badge tone="warn">none</Badge>;
}

function Ready({ of }: { of: Row }) {
  const all = of.ready === of.pods;
  return <span class={all ? "" : "text-warn"}>{of.pods == null ? "–" : `${of.ready ?? 0} of ${of.pods}`}</span>;
}

function Policies({ of }: { of: Row }) {
  const count = of.policies?.length ?? 0;
  return <span title={of.policies?.map(reference).join("\n")}>{count || "–"}</span>;
}

export function NodeList({ route, kind, namespace, window }: { route: Route; kind: "services" | "workloads"; namespace: string; window: number }) {
  const answer = useQuery<Record<string, Row[]>>(kind, { window }, 5000);
  const find = (route.params.get("find") ?? "").toLowerCase();
  const title = kind === "services" ? "Services" : "Workloads";
  return (
    <section class="view">
      <header class="bar">
        <h1 id="title">{title}</h1>
        <Find route={route} what={`Find ${kind}`} />
      </header>
      <Shown answer={answer}>
        {(data) => {
          const all = data[kind] ?? [];
          const rows = all.filter((row) => (!namespace || row.namespace === namespace) && (!find || row.id.toLowerCase().includes(find)));
          if (!all.length)
            return (
              <Empty title={`No ${kind} yet`}>
                <p>
                  Apply one: <code>meshctl apply -f service.yml</code>.
                </p>
              </Empty>
            );
          if (!rows.length)
            return (
              <Empty title={`None of ${plural(all.length, kind.slice(0, -1))} matches`}>
                <p>Change the filter or choose all namespaces.</p>
              </Empty>
            );
          return <Table caption={title} rows={rows} columns={kind === "services" ? SERVICES : WORKLOADS} id={(row) => row.id} sort="rate" link={(row) => href(["node", ...row.id.split("/")])} />;
        }}
      </Shown>
    </section>
  );
}

export function Find({ route, what }: { route: Route; what: string }) {
  return (
    <label class="find">
      <Glyph icon="search" />
      <span class="hidden">{what}</span>
      <input type="search" data-find placeholder={what} value={route.params.get("find") ?? ""} onInput={(event) => setParams({ find: event.currentTarget.value })} />
    </label>
  );
}

export function NodePage({ route, id, window, theme }: { route: Route; id: string; window: number; theme: string }) {
  const answer = useQuery<NodeDetail>("node", { id, window }, 5000);
  const direction = route.params.get("direction") === "outbound" ? "outbound" : "inbound";
  const [kind = "", ...rest] = id.split("/");
  const search = traced(answer.data ?? { kind, name: short(id), namespace: rest.slice(0, -1).join("/") });
  const pick = (from: number, to: number) => {
    location.hash = href(["traces"], { ...search, from: from.toFixed(0), to: to.toFixed(0) });
  };
  return (
    <section class="view">
      <header class="bar">
        <h1 id="title">{short(id)}</h1>
        <span class="quiet">{[...rest.slice(0, -1), kind].join(" · ")}</span>
        <span class="bar-end">
          <span class="choice" role="group" aria-label="Direction">
            {["inbound", "outbound"].map((one) => (
              <button key={one} type="button" aria-pressed={direction === one} onClick={() => setParams({ direction: one }, true)}>
                {one}
              </button>
            ))}
          </span>
          <a class="button" href={href(["traces"], search)}>
            Traces
          </a>
          <a class="button" href={href(["graph"], { at: id })}>
            In the graph
          </a>
        </span>
      </header>
      <div class="page">
        <Shown answer={answer}>
          {(node) => (
            <>
              <Signals node={node} />
              <SeriesPlots of={{ node: id }} direction={direction} window={history(window)} theme={theme} pick={pick} />
              <p class="note">The last {history(window) / 60} minutes, {direction}. Drag over a plot to see the traces of that time.</p>
              <About node={node} direction={direction} />
            </>
          )}
        </Shown>
      </div>
    </section>
  );
}

function Signals({ node }: { node: NodeDetail }) {
  return (
    <dl class="facts wide">
      <Fact name="Rate">{rate(node.rps)}/s</Fact>
      <Fact name="Errors">
        <Errors part={node.errorShare} />
      </Fact>
      <Fact name="p50">{ms(node.p50)}</Fact>
      <Fact name="p95">{ms(node.p95)}</Fact>
      <Fact name="p99">{ms(node.p99)}</Fact>
      <Fact name="mTLS">
        <Mtls mode={node.mtls} />
      </Fact>
      {node.sync != null && (
        <Fact name="Configuration">
          <Badge tone={syncTone(node.sync)}>{node.sync}</Badge>
        </Fact>
      )}
      {node.pods != null && (
        <Fact name="Pods ready">
          <Ready of={node} />
        </Fact>
      )}
      {node.endpoints != null && (
        <Fact name="Endpoints">
          <Enough of={node.endpoints} />
        </Fact>
      )}
      {(node.ports ?? []).length > 0 && <Fact name="Ports">{node.ports!.map((one) => `${one.port} ${one.protocol}`.trim()).join(", ")}</Fact>}
    </dl>
  );
}

function About({ node, direction }: { node: NodeDetail; direction: "inbound" | "outbound" }) {
  const config = node.config ?? [];
  return (
    <>
      <h2>{direction === "inbound" ? "Called by" : "Calls"}</h2>
      {direction === "inbound" ? <EdgeTable edges={node.inbound ?? []} caption="Called by" side="from" /> : <EdgeTable edges={node.outbound ?? []} caption="Calls" side="to" />}
      <div class="columns">
        <div>
          <h2>Who may call</h2>
          <Callers node={node} />
        </div>
        <div>
          <h2>Configuration that applies</h2>
          {config.length ? (
            <ul class="plain">
              {config.map((ref) => (
                <li key={reference(ref)}>
                  <RefLink of={ref} />
                </li>
              ))}
            </ul>
          ) : (
            <p class="note">None: the mesh's defaults.</p>
          )}
        </div>
      </div>
    </>
  );
}

function Callers({ node }: { node: NodeDetail }) {
  const callers = node.callers;
  if (!callers) return <p class="note">Not known. Ask: meshctl x authz check {node.name}</p>;
  return (
    <>
      {callers.summary && <p>{callers.summary}</p>}
      {(callers.rules ?? []).length > 0 && (
        <ul class="plain rules">
          {callers.rules!.map((rule, at) => (
            <li key={at}>
              <Badge tone={rule.action === "DENY" ? "bad" : rule.action === "ALLOW" ? "ok" : "info"}>{rule.action}</Badge> {rule.who || "anyone"}
              {rule.what ? ` — ${rule.what}` : ""} {rule.policy && <RefLink of={rule.policy} />}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
