// The drawing: boxes, arrows, labels; pan, zoom, focus. In: the graph, its layout, what is chosen. Out: SVG and "this was chosen".
// The view moves by one transform, so panning redraws nothing.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Edge, GraphNode } from "../api";
import { health, ms, rate, share } from "../format";
import { glyphPath } from "../ui";
import { BOX, curve, type Laid, type Point } from "./shape";

export interface Hands {
  zoom: (by: number) => void;
  fit: () => void;
  show: (id: string) => void;
}

interface Props {
  nodes: GraphNode[];
  edges: Edge[];
  laid: Laid;
  chosen: string;
  matches: (node: GraphNode) => boolean;
  latency: boolean;
  choose: (what: string) => void;
  hands: (hands: Hands) => void;
}

const READABLE = 0.9; // of the scale at which text has its own size
const KIND = { workload: "workload", service: "service", external: "outside the mesh" };

export function edgeId(edge: Edge): string {
  return `${edge.from}>${edge.to}`;
}

export function Canvas(props: Props) {
  const svg = useRef<SVGSVGElement>(null);
  const world = useRef<SVGGElement>(null);
  const view = useRef({ x: 0, y: 0, scale: 1, touched: false });
  const { laid } = props;
  const chosen = useRef(props.chosen);
  chosen.current = props.chosen;

  const put = () => {
    const { x, y, scale } = view.current;
    world.current?.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    svg.current?.classList.toggle("far", scale < 0.55);
    svg.current?.classList.toggle("afar", scale < 0.28);
  };
  const fit = () => {
    const box = svg.current?.getBoundingClientRect();
    if (!box?.width || !laid.width) return;
    const scale = Math.min(1.25, Math.max(0.03, Math.min(box.width / laid.width, box.height / laid.height)));
    view.current = { x: (box.width - laid.width * scale) / 2, y: (box.height - laid.height * scale) / 2, scale, touched: false };
    put();
  };
  const centre = (at: Point, scale: number, touched: boolean) => {
    const box = svg.current?.getBoundingClientRect();
    if (!box) return;
    view.current = { x: box.width / 2 - at[0] * scale, y: box.height / 2 - at[1] * scale, scale, touched };
    put();
  };
  /** All of it; or, when something is chosen, that, large enough to be read. */
  const settle = () => {
    fit();
    const at = laid.nodes[chosen.current] ?? laid.edges[chosen.current]?.label;
    if (at && view.current.scale < READABLE) centre(at, READABLE, false);
  };
  const zoom = (by: number, at?: Point) => {
    const box = svg.current?.getBoundingClientRect();
    if (!box) return;
    const [px, py] = at ?? [box.width / 2, box.height / 2];
    const { x, y, scale } = view.current;
    const next = Math.min(4, Math.max(0.03, scale * by));
    view.current = { x: px - ((px - x) * next) / scale, y: py - ((py - y) * next) / scale, scale: next, touched: true };
    put();
  };

  const show = (id: string) => {
    const at = laid.nodes[id];
    if (at) centre(at, Math.max(READABLE, view.current.scale), true);
  };

  useLayoutEffect(() => {
    if (!view.current.touched) settle();
    else put();
    props.hands({ zoom, fit, show });
  }, [laid]);

  useEffect(() => {
    const at = svg.current;
    if (!at) return;
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      const box = at.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), [event.clientX - box.left, event.clientY - box.top]);
    };
    const watch = new ResizeObserver(() => {
      if (!view.current.touched) settle();
    });
    at.addEventListener("wheel", wheel, { passive: false });
    watch.observe(at);
    return () => {
      at.removeEventListener("wheel", wheel);
      watch.disconnect();
    };
  }, [laid]);

  const grab = (event: PointerEvent) => {
    if (event.button !== 0 || (event.target as Element).closest("[data-choose]")) return;
    const at = event.currentTarget as SVGSVGElement;
    const from: Point = [event.clientX - view.current.x, event.clientY - view.current.y];
    at.setPointerCapture(event.pointerId);
    const move = (now: PointerEvent) => {
      view.current = { ...view.current, x: now.clientX - from[0], y: now.clientY - from[1], touched: true };
      put();
    };
    const drop = () => {
      at.removeEventListener("pointermove", move);
      at.removeEventListener("pointerup", drop);
      at.removeEventListener("pointercancel", drop);
    };
    at.addEventListener("pointermove", move);
    at.addEventListener("pointerup", drop);
    at.addEventListener("pointercancel", drop);
  };

  const pressed = (what: string) => (event: KeyboardEvent) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    props.choose(what);
  };
  // A box that the keyboard reaches must be in sight.
  const reached = (at: Point) => () => {
    const box = svg.current?.getBoundingClientRect();
    if (!box) return;
    const { x, y, scale } = view.current;
    const [sx, sy] = [x + at[0] * scale, y + at[1] * scale];
    if (sx > 0 && sy > 0 && sx < box.width && sy < box.height) return;
    centre(at, scale, true);
  };

  const busiest = Math.max(1, ...props.edges.map((edge) => edge.rps));
  const worst = new Map<string, number>();
  for (const edge of props.edges) if (edge.requests) worst.set(edge.to, Math.max(worst.get(edge.to) ?? 0, edge.errorShare));
  const parts = props.chosen.split(">");
  // What was chosen stands out with what it touches.
  const touches = (edge: Edge): boolean => (parts.length > 1 ? edgeId(edge) === props.chosen : parts.includes(edge.from) || parts.includes(edge.to));
  // Hundreds of stops help nobody: of many edges only those of what is chosen (the table has all).
  const few = props.edges.length <= 40;
  const near = laid.nodes[parts[0]!] ? new Set([...parts, ...props.edges.filter(touches).flatMap((edge) => [edge.from, edge.to])]) : undefined;
  const seen = new Set(props.nodes.filter((node) => props.matches(node) && (near?.has(node.id) ?? true)).map((node) => node.id));
  return (
    <svg ref={svg} class={`graph${props.latency ? " with-latency" : ""}`} onPointerDown={grab} role="group" aria-label={`Graph: ${props.nodes.length} nodes, ${props.edges.length} calls`}>
      <defs>
        {["ok", "warn", "bad", "idle"].map((tone) => (
          <marker key={tone} id={`arrow-${tone}`} class={`arrow tone-${tone}`} viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">
            <path d="M0 0 8 4 0 8z" />
          </marker>
        ))}
      </defs>
      <g ref={world}>
        {props.edges.map((edge) => {
          const at = laid.edges[edgeId(edge)];
          if (!at) return null;
          const tone = edge.requests ? health(edge.errorShare) : "idle";
          const faint = near ? !touches(edge) : !(seen.has(edge.from) || seen.has(edge.to));
          const id = edgeId(edge);
          return (
            <g
              key={id}
              class={`edge tone-${tone}${faint ? " faint" : ""}${props.chosen === id ? " chosen" : ""}`}
              data-choose={id}
              role="button"
              tabIndex={few || (near && !faint) ? 0 : -1}
              aria-label={edgeWords(edge)}
              aria-pressed={props.chosen === id}
              onClick={() => props.choose(id)}
              onKeyDown={pressed(id)}
              onFocus={reached(at.label)}
            >
              <path class="reach" d={curve(at.points)} />
              <path class="line" d={curve(at.points)} stroke-width={1.2 + 2.8 * Math.sqrt(edge.rps / busiest)} marker-end={`url(#arrow-${tone})`} />
              <EdgeLabel edge={edge} at={at.label} latency={props.latency} />
            </g>
          );
        })}
        {props.nodes.map((node) => {
          const at = laid.nodes[node.id];
          if (!at) return null;
          const chosen = parts.includes(node.id);
          return (
            <g
              key={node.id}
              class={`node kind-${node.kind} tone-${health(worst.get(node.id))}${seen.has(node.id) ? "" : " faint"}${chosen ? " chosen" : ""}`}
              transform={`translate(${at[0] - BOX.width / 2} ${at[1] - BOX.height / 2})`}
              data-choose={node.id}
              role="button"
              tabIndex={0}
              aria-label={`${KIND[node.kind]} ${node.name}${node.namespace ? ` in ${node.namespace}` : ""}`}
              aria-pressed={props.chosen === node.id}
              onClick={() => props.choose(node.id)}
              onKeyDown={pressed(node.id)}
              onFocus={reached(at)}
            >
              <rect width={BOX.width} height={BOX.height} rx={node.kind === "service" ? BOX.height / 2 : 8} />
              <text class={node.name.length > 17 ? "name long" : "name"} x={BOX.width / 2} y={21} text-anchor="middle">
                {clipped(node.name, 23)}
              </text>
              <text class="under" x={BOX.width / 2} y={37} text-anchor="middle">
                {clipped(node.kind === "external" ? (node.name.includes(" ") ? "no sidecar" : "outside the mesh") : [node.namespace, node.kind].filter(Boolean).join(" · "), 28)}
              </text>
              <title>{node.id}</title>
            </g>
          );
        })}
      </g>
    </svg>
  );
}

function clipped(text: string, to: number): string {
  return text.length > to ? `${text.slice(0, to - 1)}…` : text;
}

function EdgeLabel({ edge, at, latency }: { edge: Edge; at: Point; latency: boolean }) {
  const marks: ["lock" | "open" | "breaker" | "ejected", string][] = [];
  if (edge.mtls != null) marks.push(edge.mtls ? ["lock", "mutual TLS"] : ["open", security(edge)]);
  if (edge.breaker) marks.push(["breaker", "circuit breaker open"]);
  if (edge.ejected) marks.push(["ejected", `${edge.ejected} ejected`]);
  const first = `${rate(edge.rps)}/s${edge.errors ? ` · ${share(edge.errorShare)} err` : ""}`;
  const second = latency ? [edge.p50, edge.p95, edge.p99].map(ms).join(" ").replace(/ ms(?= \d)/g, "") : `p95 ${ms(edge.p95)}`;
  const width = Math.max(first.length * 6.3 + marks.length * 14, second.length * 5.6) + 14;
  return (
    <g class="label" transform={`translate(${at[0]} ${at[1]})`}>
      <rect x={-width / 2} y={-17} width={width} height={34} rx={6} />
      <text class="first" x={-width / 2 + 7 + marks.length * 14} y={-3}>
        {first}
      </text>
      <text class="second" x={0} y={11} text-anchor="middle">
        {second}
      </text>
      {marks.map(([icon, words], index) => (
        <path key={icon} class={`mark mark-${icon}`} transform={`translate(${-width / 2 + 6 + index * 14} -14) scale(.75)`} d={glyphPath(icon)}>
          <title>{words}</title>
        </path>
      ))}
    </g>
  );
}

function security(edge: Edge): string {
  return edge.mtls ? "mutual TLS" : edge.mtlsShare ? `${share(edge.mtlsShare)} over mutual TLS, the rest in plaintext` : "plaintext";
}

export function edgeWords(edge: Edge): string {
  const name = (id: string) => id.split("/").slice(-1)[0] ?? id;
  const parts = [`${name(edge.from)} calls ${name(edge.to)}`, `${rate(edge.rps)} per second`, `${share(edge.errorShare)} errors`, `p95 ${ms(edge.p95)}`];
  if (edge.mtls != null) parts.push(security(edge));
  if (edge.breaker) parts.push("circuit breaker open");
  if (edge.ejected) parts.push(`${edge.ejected} ejected`);
  return parts.join(", ");
}
