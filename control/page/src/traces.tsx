// Traces: a search form, a list that stays quick with 10,000 rows (only those in sight are drawn), and the way to one of them.
// In: the search in the address. Out: elements.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { TraceRow } from "./api";
import { clock, day, ms, pathOf, plural } from "./format";
import { Dots } from "./plot";
import { href, setParams, useQuery, type Route } from "./state";
import { Badge, Empty, Field, Shown } from "./ui";

const FIELDS = ["service", "operation", "minDuration", "maxDuration", "status", "tag", "from", "to", "limit"] as const;
type Order = "start" | "duration" | "spans";
const ORDERS: [Order, string][] = [
  ["start", "newest"],
  ["duration", "slowest"],
  ["spans", "largest"],
];

export function TracesView({ route, theme }: { route: Route; theme: string }) {
  const search = Object.fromEntries(FIELDS.map((name) => [name, route.params.get(name) ?? undefined]));
  const within = Number(route.params.get("within"));
  const since = useMemo(() => (within > 0 ? (Date.now() / 1000 - within).toFixed(0) : undefined), [route.params.toString()]);
  const answer = useQuery<{ traces: TraceRow[] }>("traces", { limit: "100", from: since, ...strip(search) });
  const order = ORDERS.find(([one]) => one === route.params.get("order"))?.[0] ?? "start";
  const rows = useMemo(() => [...(answer.data?.traces ?? [])].sort((a, b) => b[order] - a[order]), [answer.data, order]);
  const pick = (from: number, to: number) => setParams({ from: Math.floor(from), to: Math.ceil(to), within: undefined }, true);
  const open = (row: TraceRow) => {
    location.hash = href(["traces", row.traceId]);
  };
  return (
    <section class="view" aria-busy={answer.stale || answer.loading}>
      <header class="bar">
        <h1 id="title">Traces</h1>
        <span class="summary number">{answer.data && plural(rows.length, "trace")}</span>
        <span class="bar-end">
          <span class="choice" role="group" aria-label="Order">
            {ORDERS.map(([one, words]) => (
              <button key={one} type="button" aria-pressed={order === one} onClick={() => setParams({ order: one === "start" ? undefined : one })}>
                {words}
              </button>
            ))}
          </span>
        </span>
      </header>
      <Search route={route} again={answer.reload} />
      <Shown answer={answer}>
        {() =>
          rows.length ? (
            <>
              <Dots rows={rows} theme={theme} pick={pick} open={open} />
              <List rows={rows} />
            </>
          ) : (
            <Empty title="No trace matches">
              <p>Widen the time or the durations. Only sampled requests have traces: 1 in 100 unless a Telemetry resource or the mesh says otherwise (the demo samples all).</p>
              <a class="button" href={href(["traces"])}>
                Clear the search
              </a>
            </Empty>
          )
        }
      </Shown>
    </section>
  );
}

function strip(search: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(Object.entries(search).filter((pair): pair is [string, string] => Boolean(pair[1])));
}

function Search({ route, again }: { route: Route; again: () => void }) {
  const value = (name: string) => route.params.get(name) ?? "";
  const services = useQuery<{ services: string[] }>("trace-services").data?.services ?? [];
  const from = Number(value("from"));
  const to = Number(value("to"));
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget as HTMLFormElement);
    const changes: Record<string, string | undefined> = {};
    for (const name of [...FIELDS, "within"]) if (data.has(name)) changes[name] = String(data.get(name) ?? "").trim();
    if (changes.within) changes.from = changes.to = undefined;
    const same = Object.entries(changes).every(([name, text]) => value(name) === text);
    if (same) again();
    else setParams(changes, true);
  };
  // The key makes the form anew when the address changes, so it always says what was searched for.
  return (
    <form class="search" key={route.params.toString()} onSubmit={submit} aria-label="Search traces">
      <Field label="Service">
        <input name="service" data-find list="trace-services" defaultValue={value("service")} placeholder="any" />
        <datalist id="trace-services">
          {services.map((name) => (
            <option key={name} value={name} />
          ))}
        </datalist>
      </Field>
      <Field label="Operation">
        <input name="operation" defaultValue={value("operation")} placeholder="any" />
      </Field>
      <Field label="Longer than (ms)">
        <input name="minDuration" type="number" min="0" step="any" defaultValue={value("minDuration")} />
      </Field>
      <Field label="Shorter than (ms)">
        <input name="maxDuration" type="number" min="0" step="any" defaultValue={value("maxDuration")} />
      </Field>
      <Field label="Status">
        <select name="status" defaultValue={value("status")}>
          {[
            ["", "any"],
            ["error", "failed"],
            ["ok", "fine"],
            ["4xx", "4xx"],
            ["5xx", "5xx"],
            ["503", "503"],
          ].map(([id, label]) => (
            <option key={id} value={id} selected={value("status") === id}>
              {label}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Tag">
        <input name="tag" defaultValue={value("tag")} placeholder="key=value" pattern="[^=]+=.*" title="key=value" />
      </Field>
      <Field label="Within">
        <select name="within">
          {[
            ["", "any time"],
            ["300", "5 min"],
            ["900", "15 min"],
            ["3600", "1 h"],
          ].map(([id, label]) => (
            <option key={id} value={id} selected={value("within") === id}>
              {label}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Show">
        <select name="limit">
          {["100", "300", "1000"].map((one) => (
            <option key={one} value={one} selected={(value("limit") || "100") === one}>
              {one}
            </option>
          ))}
        </select>
      </Field>
      <button type="submit" class="button primary">
        Search
      </button>
      {(from > 0 || to > 0) && (
        <span class="chip">
          {from > 0 ? day(from) : "…"} – {to > 0 ? day(to) : "now"}
          <button type="button" onClick={() => setParams({ from: undefined, to: undefined }, true)}>
            any time
          </button>
        </span>
      )}
    </form>
  );
}

export function tone(code: number): "ok" | "warn" | "bad" | "idle" {
  return code >= 500 ? "bad" : code >= 400 ? "warn" : code >= 200 ? "ok" : "idle";
}

const HEIGHT = 54; // views.css says the same

/** Only the rows in sight are in the document. */
function List({ rows }: { rows: TraceRow[] }) {
  const frame = useRef<HTMLDivElement>(null);
  const [range, setRange] = useState({ from: 0, to: 40 });
  const look = () => {
    const at = frame.current;
    if (!at) return;
    const from = Math.max(0, Math.floor(at.scrollTop / HEIGHT) - 10);
    const to = Math.ceil((at.scrollTop + at.clientHeight) / HEIGHT) + 10;
    setRange((before) => (before.from === from && before.to === to ? before : { from, to }));
  };
  useEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    if (frame.current) watch.observe(frame.current);
    return () => watch.disconnect();
  }, [rows]);
  const longest = useMemo(() => rows.reduce((most, row) => Math.max(most, row.duration), 0) || 1, [rows]);
  return (
    <div class="rows-frame" ref={frame} onScroll={look} role="list" aria-label="Traces" tabIndex={0}>
      <div class="rows-space" role="presentation" style={{ height: `${rows.length * HEIGHT}px` }}>
        {rows.slice(range.from, range.to).map((row, index) => {
          const at = range.from + index;
          return (
            <div key={row.traceId} role="listitem" aria-setsize={rows.length} aria-posinset={at + 1} class="trace-row" style={{ top: `${at * HEIGHT}px` }}>
              <a data-row href={href(["traces", row.traceId])}>
                <span class="trace-name">
                  <b>{row.url ? `${row.method ?? ""} ${pathOf(row.url)}` : row.root.operation}</b>
                  <span class="quiet">{row.services.map((name) => name.split(".")[0]).join(" → ") || row.root.service}</span>
                </span>
                <span class="trace-state">
                  {Boolean(row.code) && <Badge tone={tone(row.code!)}>{row.code}</Badge>}
                  {row.errors > 0 && <Badge tone="bad">{plural(row.errors, "error")}</Badge>}
                </span>
                <span class="trace-bar" aria-hidden="true">
                  <i class={row.errors ? "tone-bad" : "tone-ok"} style={{ width: `${Math.max(1, (100 * row.duration) / longest)}%` }} />
                </span>
                <span class="number">{ms(row.duration)}</span>
                <span class="number quiet">{plural(row.spans, "span")}</span>
                <span class="number quiet" title={day(row.start)}>
                  {new Date(row.start * 1000).toDateString() === new Date().toDateString() ? clock(row.start) : day(row.start)}
                </span>
              </a>
            </div>
          );
        })}
      </div>
    </div>
  );
}
