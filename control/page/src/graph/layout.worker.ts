// The layout of the graph, off the page's thread: 200 nodes take long enough to be felt. In: nodes and edges by id. Out: where they go.
// Quiet but for the worker's own messages.
import { Graph, layout } from "@dagrejs/dagre";
import { BOX, LABEL, type Laid, type Wanted } from "./shape";

const SCREEN = 1.2; // how much wider than high a large graph should be, at the least
const here = self as unknown as { onmessage: (event: MessageEvent<Wanted>) => void; postMessage: (laid: Laid) => void };

here.onmessage = (event) => {
  const { round, tall, nodes, edges } = event.data;
  const graph = new Graph();
  const crowded = nodes.length > 60;
  graph.setGraph({ rankdir: tall ? "TB" : "LR", nodesep: crowded ? 16 : 34, ranksep: crowded ? 60 : 44, edgesep: 12, marginx: 24, marginy: 24, acyclicer: "greedy", ranker: crowded ? "tight-tree" : "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of nodes) graph.setNode(id, { width: BOX.width, height: BOX.height });
  for (const [from, to] of edges) graph.setEdge(from, to, crowded ? { width: 1, height: 1 } : { width: LABEL.width, height: LABEL.height, labelpos: "c" });
  layout(graph);
  const { width = 0, height = 0 } = graph.graph();
  // Many nodes on few ranks make a tall strip; screens are wide.
  const wide = tall ? 1 : Math.min(12, Math.max(1, (height * SCREEN) / (width || 1)));
  const laid: Laid = { round, width: width * wide, height, nodes: {}, edges: {} };
  for (const id of nodes) {
    const at = graph.node(id);
    laid.nodes[id] = [(at.x ?? 0) * wide, at.y ?? 0];
  }
  for (const [from, to] of edges) {
    const edge = graph.edge(from, to);
    const points = (edge.points ?? []).map((point: { x: number; y: number }): [number, number] => [point.x * wide, point.y]);
    // Both ends stay on their boxes, which are no wider than before.
    for (const [at, id] of [
      [0, from],
      [points.length - 1, to],
    ] as const) {
      const point = points[at];
      const middle = graph.node(id).x ?? 0;
      if (point) point[0] = middle * wide + (point[0] / wide - middle);
    }
    const middle = points[Math.floor(points.length / 2)] ?? [0, 0];
    laid.edges[`${from}>${to}`] = { points, label: edge.x === undefined ? middle : [edge.x * wide, edge.y ?? 0] };
  }
  here.postMessage(laid);
};
