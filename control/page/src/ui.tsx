// Small parts that every view uses: notes, badges, tables that sort, panels. In: props. Out: elements. No state of the mesh.
import type { ComponentChildren, JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Answer, Route } from "./state";
import { href, live } from "./state";
import { health, share } from "./format";
import type { Problem, Ref } from "./api";

export type Icon = "lock" | "open" | "breaker" | "ejected" | "search" | "close" | "sun" | "moon" | "pause" | "play" | "help" | "mesh" | "list" | "fit";

const PATHS: Record<Icon, string> = {
  lock: "M5 7V5a3 3 0 0 1 6 0v2h1v7H4V7zm1.5 0h3V5a1.5 1.5 0 0 0-3 0z",
  open: "M5 7V4.5a3 3 0 0 1 5.8-1l-1.4.6A1.5 1.5 0 0 0 6.5 4.5V7H12v7H4V7z",
  breaker: "M9 1 3 9h4l-1 6 7-9H9z",
  ejected: "M8 2 14 13H2zM7.2 6v3.5h1.6V6zm0 4.5V12h1.6v-1.5z",
  search: "M7 2a5 5 0 0 1 4 8l3.5 3.5-1 1L10 11A5 5 0 1 1 7 2m0 1.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7",
  close: "m4 3 4 4 4-4 1 1-4 4 4 4-1 1-4-4-4 4-1-1 4-4-4-4z",
  sun: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6M7.3 1h1.4v2.5H7.3zM7.3 12.5h1.4V15H7.3zM1 7.3h2.5v1.4H1zM12.5 7.3H15v1.4h-2.5zM3 4l1-1 1.7 1.7-1 1zM10.3 11.3l1-1L13 12l-1 1zM11.3 5.7l-1-1L12 3l1 1zM3 12l1.7-1.7 1 1L4 13z",
  moon: "M6 2a6 6 0 1 0 8 8A6.5 6.5 0 0 1 6 2",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  play: "M4 2.5v11L13 8z",
  help: "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1m-.8 9.5v1.6h1.6v-1.6zM8 3.7c-1.7 0-2.8 1-2.9 2.6h1.5c.1-.8.6-1.3 1.4-1.3.8 0 1.3.5 1.3 1.1 0 1.2-2 1.2-2 3.4h1.5c0-1.5 2.1-1.6 2.1-3.5 0-1.4-1.2-2.3-2.9-2.3",
  mesh: "M3 1a2 2 0 0 1 1.9 1.4h6.2a2 2 0 1 1 1.7 2.6L10.5 11a2 2 0 1 1-3.3.6L3.4 5A2 2 0 1 1 3 1m2 2.8-.4.5 3.5 6.2h1L11.3 4.7l-.4-.9z",
  list: "M2 3h12v1.6H2zm0 4.2h12v1.6H2zm0 4.2h12V13H2z",
  fit: "M2 2h4v1.5H3.5V6H2zM10 2h4v4h-1.5V3.5H10zM2 10h1.5v2.5H6V14H2zM12.5 10H14v4h-4v-1.5h2.5z",
};

export function Glyph({ icon, title }: { icon: Icon; title?: string }) {
  return (
    <svg class={`glyph glyph-${icon}`} viewBox="0 0 16 16" aria-hidden={title ? undefined : "true"} role={title ? "img" : undefined} aria-label={title}>
      <path d={PATHS[icon]} />
    </svg>
  );
}

export const glyphPath = (icon: Icon): string => PATHS[icon];

export function Button({ icon, label, keys, ...rest }: { icon: Icon; label: string; keys?: string } & JSX.IntrinsicElements["button"]) {
  return (
    <button type="button" class="icon-button" aria-label={label} title={keys ? `${label} (${keys})` : label} {...rest}>
      <Glyph icon={icon} />
    </button>
  );
}

/** Nothing to show, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty" role="status">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** The place of an answer: loading, failed, or there. With old data a failure is a line above it. */
export function Shown<T>({ answer, children }: { answer: Answer<T>; children: (data: T) => ComponentChildren }) {
  if (answer.data === undefined) {
    if (!answer.error) return <div class="loading" role="status" aria-label="loading" />;
    return (
      <Empty title="This could not be read">
        <p>{answer.error}</p>
        <button type="button" class="button" onClick={answer.reload}>
          Try again
        </button>
      </Empty>
    );
  }
  return (
    <>
      {answer.error && !live.lost && (
        <p class="stale" role="alert">
          Not up to date: {answer.error}
        </p>
      )}
      {children(answer.data)}
    </>
  );
}

export function Badge({ tone, children }: { tone: "ok" | "warn" | "bad" | "idle" | "info"; children: ComponentChildren }) {
  return <span class={`badge tone-${tone}`}>{children}</span>;
}

export function Errors({ part }: { part: number | null | undefined }) {
  return <span class={`number text-${health(part)}`}>{share(part)}</span>;
}

export function Mtls({ mode, share: part }: { mode: string | boolean | null | undefined; share?: number | null | undefined }) {
  if (mode === false && part) return <Badge tone="warn">{share(part)} mTLS</Badge>;
  if (mode === true || mode === "STRICT") return <Badge tone="ok">{mode === true ? "mTLS" : "STRICT"}</Badge>;
  if (mode === false || mode === "DISABLE") return <Badge tone="warn">{mode === false ? "plaintext" : "DISABLE"}</Badge>;
  return mode ? <Badge tone="idle">{mode}</Badge> : <Badge tone="idle">unknown</Badge>;
}

export function syncTone(state: string | null | undefined): "ok" | "warn" | "bad" | "idle" {
  const said = (state ?? "").toUpperCase();
  if (said === "SYNCED") return "ok";
  if (said.includes("REJECT") || said.includes("ERROR") || said.includes("NACK")) return "bad";
  return said && said !== "NO SIDECAR" ? "warn" : "idle";
}

export function reference(ref: string | Ref): string {
  return typeof ref === "string" ? ref : [ref.kind, ref.namespace, ref.name].filter(Boolean).join("/");
}

export function RefLink({ of }: { of: string | Ref }) {
  const text = reference(of);
  return (
    <a href={href(["config", ...text.split("/")])} class="reference">
      {text}
    </a>
  );
}

export function said(problem: Problem): string {
  return typeof problem === "string" ? problem : problem.path ? `${problem.path}: ${problem.message}` : problem.message;
}

export interface Column<T> {
  name: string;
  title?: string;
  numeric?: boolean;
  value: (row: T) => string | number | null | undefined;
  cell?: (row: T) => ComponentChildren;
}

/** A table that sorts by a click on its heads. `link` makes the first cell lead somewhere. */
export function Table<T>(props: { caption: string; rows: T[]; columns: Column<T>[]; id: (row: T) => string; link?: (row: T) => string; sort?: string }) {
  const [order, setOrder] = useState(() => ({ by: props.sort ?? "", down: Boolean(props.columns.find((one) => one.name === props.sort)?.numeric) }));
  const rows = useMemo(() => {
    const column = props.columns.find((one) => one.name === order.by);
    if (!column) return props.rows;
    const sign = order.down ? -1 : 1;
    return [...props.rows].sort((a, b) => {
      const left = column.value(a);
      const right = column.value(b);
      if (left == null || right == null) return left == null ? (right == null ? 0 : 1) : -1;
      return sign * (typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right)));
    });
  }, [props.rows, props.columns, order]);
  return (
    <div class="table-frame" tabIndex={0} role="region" aria-label={props.caption}>
      <table>
        <caption class="hidden">{props.caption}</caption>
        <thead>
          <tr>
            {props.columns.map((column) => (
              <th key={column.name} scope="col" class={column.numeric ? "numeric" : ""} aria-sort={order.by === column.name ? (order.down ? "descending" : "ascending") : "none"}>
                <button type="button" title={column.title} onClick={() => setOrder({ by: column.name, down: order.by === column.name ? !order.down : Boolean(column.numeric) })}>
                  {column.name}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={props.id(row)}>
              {props.columns.map((column, at) => {
                const shown = column.cell ? column.cell(row) : (column.value(row) ?? "–");
                return (
                  <td key={column.name} class={column.numeric ? "numeric number" : ""}>
                    {at === 0 && props.link ? (
                      <a data-row href={props.link(row)}>
                        {shown}
                      </a>
                    ) : (
                      shown
                    )}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
    </label>
  );
}

export function number(route: Route, name: string, otherwise: number): number {
  const value = Number(route.params.get(name));
  return Number.isFinite(value) && value > 0 ? value : otherwise;
}

export function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class="number">{children}</dd>
    </div>
  );
}
