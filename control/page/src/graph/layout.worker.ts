// The layout of the graph, off the page's thread: 200 nodes take long enough to be felt. In: nodes and edges by id. Out: where they go.
// Quiet but for the worker's own messages.
import { Graph, layout } from "@dagrejs/dagre";
import { BOX, LABEL, type Laid, type Wanted } from "./shape";

const here = self as unknown as { onmessage: (event: MessageEvent<Wanted>) => void; postMessage: (laid: Laid) => void };

here.onmessage = (event) => {
  const { round, nodes, edges } = event.data;
  const graph = new Graph();
  const crowded = nodes.length > 60;
  graph.setGraph({ rankdir: "LR", nodesep: crowded ? 16 : 34, ranksep: crowded ? 60 : 76, edgesep: 12, marginx: 24, marginy: 24, ranker: crowded ? "longest-path" : "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of nodes) graph.setNode(id, { width: BOX.width, height: BOX.height });
  for (const [from, to] of edges) graph.setEdge(from, to, crowded ? { width: 1, height: 1 } : { width: LABEL.width, height: LABEL.height, labelpos: "c" });
  layout(graph);
  const laid: Laid = { round, width: graph.graph().width ?? 0, height: graph.graph().height ?? 0, nodes: {}, edges: {} };
  for (const id of nodes) {
    const at = graph.node(id);
    laid.nodes[id] = [at.x ?? 0, at.y ?? 0];
  }
  for (const [from, to] of edges) {
    const edge = graph.edge(from, to);
    const points = (edge.points ?? []).map((point: { x: number; y: number }): [number, number] => [point.x, point.y]);
    const middle = points[Math.floor(points.length / 2)] ?? [0, 0];
    laid.edges[`${from}>${to}`] = { points, label: [edge.x ?? middle[0], edge.y ?? middle[1]] };
  }
  here.postMessage(laid);
};
