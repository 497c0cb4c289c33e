// Numbers and times as people read them; narrow, and of steady width. Pure. Nothing known is "–".

export const NONE = "–";

export function rate(perSecond: number | null | undefined): string {
  if (perSecond == null) return NONE;
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "<0.01";
  return scaled(perSecond);
}

function scaled(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function share(part: number | null | undefined): string {
  if (part == null) return NONE;
  const percent = part * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.1) return "<0.1 %";
  return `${percent >= 10 ? percent.toFixed(0) : percent.toFixed(1)} %`;
}

export function ms(value: number | null | undefined): string {
  if (value == null) return NONE;
  if (value >= 60_000) return `${(value / 60_000).toFixed(1)} min`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  if (value >= 100) return `${value.toFixed(0)} ms`;
  if (value >= 1) return `${value.toFixed(1)} ms`;
  return value ? `${(value * 1000).toFixed(0)} µs` : "0";
}

/** On an axis: no more digits than needed. */
export function tick(text: string): string {
  return text.replace(/\.0+(?!\d)/, "");
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let left = value;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${at ? left.toFixed(1) : left} ${units[at]}`;
}

const pad = (value: number, width = 2): string => String(value).padStart(width, "0");

export function clock(seconds: number, precise = false): string {
  const at = new Date(seconds * 1000);
  const text = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  return precise ? `${text}.${pad(at.getMilliseconds(), 3)}` : text;
}

export function day(seconds: number): string {
  const at = new Date(seconds * 1000);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${clock(seconds)}`;
}

/** How bad an error share is, for colour and for words. */
export function health(errorShare: number | null | undefined): "ok" | "warn" | "bad" | "idle" {
  if (errorShare == null) return "idle";
  if (errorShare >= 0.05) return "bad";
  return errorShare > 0.001 ? "warn" : "ok";
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** "workload/ns/name" without its kind: what is left is what people call it. */
export function short(id: string): string {
  const parts = id.split("/");
  return parts[parts.length - 1] || id;
}

interface Traced {
  kind: string;
  name: string;
  namespace: string;
  app?: string;
  version?: string;
}

/** What the traces of a node are found by: spans are named by their workload's app, calls by the host that was called. */
export function traced(node: Traced): Record<string, string> {
  if (node.kind === "service") return { operation: node.name.includes(".") ? node.name : `${node.name}.${node.namespace}.svc` };
  if (node.kind === "external") return node.name.includes(" ") ? {} : { operation: node.name };
  return { service: `${node.app || node.name}.${node.namespace}`, ...(node.version ? { tag: `istio.canonical_revision=${node.version}` } : {}) };
}

/** Without the host: what is left is what people look for. */
export function pathOf(url: string): string {
  return url.replace(/^[a-z]+:\/\/[^/?#]*/i, "") || url;
}
