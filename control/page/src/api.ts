// What control's API answers, and the one way to ask it. In: paths under /api. Out: typed JSON, or Refused with one line to show.
// Times are Unix seconds, durations milliseconds. Fields that an older control leaves out are optional here.

export interface Session {
  name: string;
  role: "view" | "edit" | "admin";
  expires: number | null;
}

export interface GraphNode {
  id: string;
  kind: "workload" | "service" | "external";
  name: string;
  namespace: string;
  app?: string;
  version?: string;
}

export interface Edge {
  from: string;
  to: string;
  requests: number;
  rps: number;
  errors: number;
  errorShare: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  mtls: boolean | null;
  mtlsShare?: number | null;
  protocol: string;
  breaker: boolean;
  ejected: number;
  bytesIn: number;
  bytesOut: number;
}

export interface Graph {
  at: number;
  window: number;
  nodes: GraphNode[];
  edges: Edge[];
}

export interface Series {
  step: number;
  times: number[];
  rps: (number | null)[];
  errors: (number | null)[];
  p50: (number | null)[];
  p95: (number | null)[];
  p99: (number | null)[];
  codes: Record<string, (number | null)[]>;
}

export interface Row extends GraphNode {
  rps?: number | null;
  errorShare?: number | null;
  p50?: number | null;
  p95?: number | null;
  p99?: number | null;
  mtls?: string | boolean | null;
  policies?: (string | Ref)[];
  sync?: string | null;
  pods?: number;
  ready?: number;
  host?: string;
  endpoints?: number;
  ports?: { port: number; name: string; protocol: string }[];
}

export interface Ref {
  kind: string;
  namespace: string;
  name: string;
}

export interface Caller {
  action: string;
  policy?: string;
  who?: string;
  what?: string;
}

export interface NodeDetail extends Row {
  inbound?: Edge[];
  outbound?: Edge[];
  config?: (string | Ref)[];
  callers?: { summary?: string; rules?: Caller[] } | null;
}

export interface TraceRow {
  traceId: string;
  start: number;
  duration: number;
  root: { service: string; operation: string };
  services: string[];
  spans: number;
  errors: number;
  method?: string;
  url?: string;
  code?: number;
}

export interface Span {
  spanId: string;
  parentId: string | null;
  service: string;
  operation: string;
  kind: string;
  start: number;
  duration: number;
  status: string;
  tags: Record<string, string>;
  events?: { time: number; name: string; tags?: Record<string, string> }[];
  /** Of the workload whose proxy told of it. */
  node?: string;
}

export type Problem = string | { level?: string; path?: string; message: string };

export interface Finding {
  code: string;
  level: string;
  message: string;
}

export interface Resource extends Ref {
  apiVersion: string;
  validation: Problem[];
  findings: Finding[];
  /** What it is about. */
  nodes?: string[];
  yaml: string;
}

/** A row of `meshctl proxy-status`. */
export interface Proxy {
  name: string;
  namespace: string;
  role?: string;
  status: string;
  node?: string;
  problem?: string;
  problems?: string[];
  connectedSince?: number;
  version?: string;
  kinds?: Record<string, { status: string; sent: string; acked: string }>;
  lastNack?: { kind: string; name: string; error: string }[];
}

export interface Checked {
  ok: boolean;
  problems?: Problem[];
  diff?: string;
  warnings?: string[];
  findings?: Finding[];
}

/** The API said no, or nobody answered (status 0). */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", redirect: "error", ...init });
  } catch (failure) {
    if ((failure as Error).name === "AbortError") throw failure;
    throw new Refused(0, "control does not answer. Is the mesh running?");
  }
  if (answer.ok) return answer;
  let said = "";
  try {
    const body = (await answer.json()) as { message?: string; error?: string };
    said = body.message ?? body.error ?? "";
  } catch {
    // not JSON: the status must do
  }
  throw new Refused(answer.status, said || `control answered ${answer.status} ${answer.statusText}`.trim());
}

export async function get<T>(path: string, params: Params = {}, signal?: AbortSignal): Promise<T> {
  return (await ask(`/api/${path}${query(params)}`, signal ? { signal } : {})).json() as Promise<T>;
}

/** Whatever changes something: control wants the header, which a foreign page cannot send. */
export async function send(method: "POST" | "DELETE", path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { "x-mesh-dashboard": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  return ask(`/api/${path}`, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
}

export type Params = Record<string, string | number | undefined>;

export function query(params: Params): string {
  const all = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "") all.append(name, String(value));
  }
  const text = all.toString();
  return text ? `?${text}` : "";
}
