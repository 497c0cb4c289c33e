// Calls as a table: of the graph, or of one workload or service. In: edges. Out: elements.
import type { Edge } from "./api";
import { ms, rate, short } from "./format";
import { edgeId } from "./graph/canvas";
import { href } from "./state";
import { Badge, Errors, Mtls, Table, type Column } from "./ui";

const EDGES: Column<Edge>[] = [
  { name: "from", value: (edge) => edge.from, cell: (edge) => <Named id={edge.from} /> },
  { name: "to", value: (edge) => edge.to, cell: (edge) => <Named id={edge.to} /> },
  { name: "rate", numeric: true, value: (edge) => edge.rps, cell: (edge) => `${rate(edge.rps)}/s` },
  { name: "errors", numeric: true, value: (edge) => edge.errorShare, cell: (edge) => <Errors part={edge.errorShare} /> },
  { name: "p50", numeric: true, value: (edge) => edge.p50, cell: (edge) => ms(edge.p50) },
  { name: "p95", numeric: true, value: (edge) => edge.p95, cell: (edge) => ms(edge.p95) },
  { name: "p99", numeric: true, value: (edge) => edge.p99, cell: (edge) => ms(edge.p99) },
  { name: "security", value: (edge) => String(edge.mtls), cell: (edge) => <Mtls mode={edge.mtls} share={edge.mtlsShare} /> },
  { name: "state", value: (edge) => (edge.breaker ? 2 : 0) + (edge.ejected ? 1 : 0), cell: (edge) => <State edge={edge} /> },
];

function Named({ id }: { id: string }) {
  return (
    <>
      {short(id)} {!id.startsWith("workload/") && <span class="kind">{id.split("/")[0]}</span>}
    </>
  );
}

/** `side`: only that end of each edge, and the way to its page. */
export function EdgeTable({ edges, caption = "Calls", side }: { edges: Edge[]; caption?: string; side?: "from" | "to" }) {
  if (!edges.length) return <p class="note">None in this time window.</p>;
  const columns = side ? EDGES.filter((column) => column.name !== (side === "from" ? "to" : "from")) : EDGES;
  const link = (edge: Edge) => (side ? href(["node", ...edge[side].split("/")]) : href(["graph"], { at: edgeId(edge) }));
  return <Table caption={caption} rows={edges} columns={columns} id={edgeId} sort="rate" link={link} />;
}

export function State({ edge }: { edge: Edge }) {
  return (
    <>
      {edge.breaker && <Badge tone="bad">breaker open</Badge>}
      {edge.ejected > 0 && <Badge tone="warn">{edge.ejected} ejected</Badge>}
      {!edge.breaker && !edge.ejected && <span class="quiet">–</span>}
    </>
  );
}
