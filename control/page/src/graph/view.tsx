// The graph view: asks for the graph, has it laid out when its shape changes (not when numbers do), and shows what was chosen beside it.
// In: namespace, window, filter from the address. Out: the drawing, or the same as a table.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Graph, GraphNode } from "../api";
import { bytes, ms, plural, rate, short, traced } from "../format";
import { href, setParams, useQuery, type Route } from "../state";
import { Button, Empty, Errors, Fact, Glyph, Mtls, Shown } from "../ui";
import { EdgeTable, State } from "../calls";
import { history, SeriesPlots } from "../plot";
import { Canvas, edgeId, type Hands } from "./canvas";
import type { Laid, Wanted } from "./shape";

interface Shared {
  route: Route;
  theme: string;
  namespace: string;
  window: number;
}

/** Lays out in a worker; the drawing before stays until the next is ready. */
function useLayout(graph: Graph | undefined): Laid | undefined {
  const [laid, set] = useState<Laid>();
  const worker = useRef<Worker | undefined>(undefined);
  const round = useRef(0);
  const tall = useTall();
  const shape = useMemo(() => (graph ? JSON.stringify([graph.nodes.map((node) => node.id).sort(), graph.edges.map(edgeId).sort()]) : ""), [graph]);
  useEffect(() => () => worker.current?.terminate(), []);
  useEffect(() => {
    if (!graph?.nodes.length) return;
    if (!worker.current) {
      worker.current = new Worker("layout.js", { type: "module" });
      worker.current.onmessage = (event: MessageEvent<Laid>) => {
        if (event.data.round === round.current) set(event.data);
      };
    }
    round.current += 1;
    const known = new Set(graph.nodes.map((node) => node.id));
    const edges = graph.edges.filter((edge) => known.has(edge.from) && known.has(edge.to)).map((edge): [string, string] => [edge.from, edge.to]);
    const wanted: Wanted = { round: round.current, tall, nodes: [...known].sort(), edges: edges.sort((a, b) => `${a}`.localeCompare(`${b}`)) };
    worker.current.postMessage(wanted);
  }, [shape, tall]);
  return laid;
}

/** A screen that is higher than wide gets a graph that goes downwards. */
function useTall(): boolean {
  const [media] = useState(() => matchMedia("(max-aspect-ratio: 4/5)"));
  const [tall, set] = useState(media.matches);
  useEffect(() => {
    const turned = () => set(media.matches);
    media.addEventListener("change", turned);
    return () => media.removeEventListener("change", turned);
  }, []);
  return tall;
}

export function GraphView(props: Shared) {
  const { route, namespace, window } = props;
  const answer = useQuery<Graph>("graph", { window, namespace: namespace || undefined }, 5000);
  const chosen = route.params.get("at") ?? "";
  const table = route.params.get("as") === "table";
  const latency = route.params.get("labels") === "latency";
  const filter = (route.params.get("find") ?? "").toLowerCase();
  const hands = useRef<Hands | undefined>(undefined);
  const laid = useLayout(answer.data);
  const matches = (node: GraphNode) => !filter || node.id.toLowerCase().includes(filter) || (node.app ?? "").toLowerCase().includes(filter);

  const go = (event: KeyboardEvent) => {
    const first = answer.data?.nodes.find(matches);
    if (event.key === "Enter" && filter && first) hands.current?.show(first.id);
  };

  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if ((event.target as Element).closest("input,textarea,select") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") hands.current?.zoom(1.25);
      else if (event.key === "-") hands.current?.zoom(0.8);
      else if (event.key === "0") hands.current?.fit();
      else if (event.key === "l") setParams({ labels: latency ? undefined : "latency" });
      else if (event.key === "b") setParams({ as: table ? undefined : "table" }, true);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [latency, table]);

  return (
    <section class="view graph-view">
      <header class="bar">
        <h1 id="title">Graph</h1>
        <label class="find">
          <Glyph icon="search" />
          <span class="hidden">Find a node</span>
          <input type="search" data-find placeholder="Find a node" value={route.params.get("find") ?? ""} onInput={(event) => setParams({ find: event.currentTarget.value })} onKeyDown={go} />
        </label>
        <span class="summary number">{answer.data && summary(answer.data)}</span>
        <span class="bar-end">
          <label class="check">
            <input type="checkbox" checked={latency} onChange={() => setParams({ labels: latency ? undefined : "latency" })} /> p50 p95 p99
          </label>
          <Button icon={table ? "mesh" : "list"} label={table ? "As a drawing" : "As a table"} keys="b" aria-pressed={table} onClick={() => setParams({ as: table ? undefined : "table" }, true)} />
          <button type="button" class="icon-button" title="Zoom out (-)" aria-label="Zoom out" disabled={table} onClick={() => hands.current?.zoom(0.8)}>
            −
          </button>
          <button type="button" class="icon-button" title="Zoom in (+)" aria-label="Zoom in" disabled={table} onClick={() => hands.current?.zoom(1.25)}>
            +
          </button>
          <Button icon="fit" label="Show all" keys="0" disabled={table} onClick={() => hands.current?.fit()} />
        </span>
      </header>
      <div class={`split${chosen ? " with-side" : ""}`}>
        <div class="stage">
          <Shown answer={answer}>
            {(graph) =>
              !graph.nodes.length ? (
                <Quiet namespace={namespace} />
              ) : table ? (
                <EdgeTable edges={graph.edges.filter((edge) => !filter || edgeId(edge).toLowerCase().includes(filter))} />
              ) : laid ? (
                <Canvas
                  nodes={graph.nodes}
                  edges={graph.edges}
                  laid={laid}
                  chosen={chosen}
                  matches={matches}
                  latency={latency}
                  choose={(at) => setParams({ at: at === chosen ? undefined : at }, true)}
                  hands={(now) => (hands.current = now)}
                />
              ) : (
                <div class="loading" role="status" aria-label="laying out" />
              )
            }
          </Shown>
          {!table && Boolean(answer.data?.nodes.length) && <Legend />}
        </div>
        {chosen && answer.data && <Side {...props} graph={answer.data} chosen={chosen} />}
      </div>
    </section>
  );
}

function summary(graph: Graph): string {
  // What goes on from a service to a workload was counted when it came to the service.
  const services = new Set(graph.nodes.filter((node) => node.kind === "service").map((node) => node.id));
  const all = graph.edges.reduce((sum, edge) => sum + (services.has(edge.from) ? 0 : edge.rps), 0);
  return `${plural(graph.nodes.length, "node")} · ${plural(graph.edges.length, "edge")} · ${rate(all)} requests/s`;
}

function Quiet({ namespace }: { namespace: string }) {
  return (
    <Empty title={namespace ? `Nothing moves in ${namespace}` : "Nothing moves yet"}>
      <p>The graph is drawn from real requests. Send some through the mesh, or look at a longer time window.</p>
      <p>
        In the demo: <code>curl 127.0.0.1:8080/book/1</code>. Sidecars report every five seconds.
      </p>
    </Empty>
  );
}

function Legend() {
  return (
    <ul class="legend" aria-label="Legend">
      <li class="tone-ok">healthy</li>
      <li class="tone-warn">some errors</li>
      <li class="tone-bad">5 % errors or more</li>
      <li>
        <Glyph icon="lock" /> mutual TLS
      </li>
      <li>
        <Glyph icon="open" /> plaintext
      </li>
      <li>
        <Glyph icon="breaker" /> breaker open
      </li>
      <li>
        <Glyph icon="ejected" /> outlier ejected
      </li>
    </ul>
  );
}

/** The numbers of the chosen edge or node. */
function Side(props: Shared & { graph: Graph; chosen: string }) {
  const { graph, chosen } = props;
  const edge = graph.edges.find((one) => edgeId(one) === chosen);
  const node = graph.nodes.find((one) => one.id === chosen);
  const ends = chosen.split(">");
  // A call's spans are its caller's, to the host that was called; behind a service they are the answering workload's.
  const search = Object.assign({}, ...[...ends].reverse().map((id) => graph.nodes.find((one) => one.id === id)).map((one) => (one ? traced(one) : {}))) as Record<string, string>;
  const pick = (from: number, to: number) => {
    location.hash = href(["traces"], { ...search, from: from.toFixed(0), to: to.toFixed(0) });
  };
  return (
    <aside class="side" aria-label="Numbers of what was chosen">
      <header>
        <h2>{edge ? `${short(edge.from)} → ${short(edge.to)}` : (node?.name ?? short(chosen))}</h2>
        <Button icon="close" label="Close" keys="Esc" data-close onClick={() => setParams({ at: undefined }, true)} />
      </header>
      {edge && (
        <dl class="facts">
          <Fact name="Rate">{rate(edge.rps)}/s</Fact>
          <Fact name="Errors">
            <Errors part={edge.errorShare} />
          </Fact>
          <Fact name="p50">{ms(edge.p50)}</Fact>
          <Fact name="p95">{ms(edge.p95)}</Fact>
          <Fact name="p99">{ms(edge.p99)}</Fact>
          <Fact name="Requests">{edge.requests}</Fact>
          <Fact name="Failed">{edge.errors}</Fact>
          <Fact name="Security">
            <Mtls mode={edge.mtls} share={edge.mtlsShare} />
          </Fact>
          <Fact name="Protocol">{edge.protocol || "–"}</Fact>
          <Fact name="State">
            <State edge={edge} />
          </Fact>
          <Fact name="Sent">{bytes(edge.bytesOut)}</Fact>
          <Fact name="Received">{bytes(edge.bytesIn)}</Fact>
        </dl>
      )}
      {!edge && !node && <p class="note">Not in the graph of this time window.</p>}
      <p class="links">
        {ends.map((id) => (
          <a key={id} href={href(["node", ...id.split("/")])}>
            All about {short(id)}
          </a>
        ))}
        <a href={href(["traces"], search)}>Traces</a>
      </p>
      <SeriesPlots key={chosen} of={edge ? { edge: chosen } : { node: chosen }} window={history(props.window)} theme={props.theme} pick={pick} {...(edge ? {} : { direction: "inbound" })} />
      <p class="note">Drag over a plot to see the traces of that time.</p>
    </aside>
  );
}
