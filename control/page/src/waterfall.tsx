// One trace: its spans as a waterfall over time, and the chosen span's tags and events. In: /api/traces/ID. Out: elements.
import { useMemo } from "preact/hooks";
import type { Span } from "./api";
import { clock, day, ms, pathOf, plural, short } from "./format";
import { href, setParams, useQuery, type Route } from "./state";
import { Badge, Button, Empty, Fact, RefLink, Shown } from "./ui";
import { tone } from "./traces";

interface Line {
  span: Span;
  depth: number;
}

/** Parents before children, by start; a span whose parent is missing is a root of its own. */
export function ordered(spans: Span[]): Line[] {
  const known = new Set(spans.map((span) => span.spanId));
  const children = new Map<string, Span[]>();
  for (const span of spans) {
    const parent = span.parentId && known.has(span.parentId) && span.parentId !== span.spanId ? span.parentId : "";
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const lines: Line[] = [];
  const seen = new Set<string>();
  const stack: Line[] = [];
  const push = (parent: string, depth: number) => {
    const below = [...(children.get(parent) ?? [])].sort((a, b) => b.start - a.start);
    for (const span of below) stack.push({ span, depth });
  };
  push("", 0);
  while (stack.length) {
    const line = stack.pop()!;
    if (seen.has(line.span.spanId)) continue;
    seen.add(line.span.spanId);
    lines.push(line);
    push(line.span.spanId, line.depth + 1);
  }
  return lines;
}

const HUES = 8;

/** What a span says went wrong, or how it ended: "503 UO". */
function outcome(span: Span): string {
  const flags = span.tags.response_flags ?? "";
  return [span.tags["http.status_code"] || span.tags["grpc.status_code"], flags === "-" ? "" : flags].filter(Boolean).join(" ");
}

const failed = (span: Span): boolean => span.status.toLowerCase() === "error";

export function TracePage({ route, id }: { route: Route; id: string }) {
  const answer = useQuery<{ spans: Span[] }>(`traces/${encodeURIComponent(id)}`);
  return (
    <section class="view">
      <header class="bar">
        <h1 id="title">
          Trace <code>{id}</code>
        </h1>
        <span class="bar-end">
          <a class="button" href={href(["traces"])}>
            All traces
          </a>
        </span>
      </header>
      <Shown answer={answer}>
        {(data) =>
          data.spans.length ? (
            <Waterfall spans={data.spans} chosen={route.params.get("span") ?? ""} />
          ) : (
            <Empty title="This trace has no spans">
              <p>It may be older than what control keeps, or its spans are still on the way: look again in a few seconds.</p>
            </Empty>
          )
        }
      </Shown>
    </section>
  );
}

function Waterfall({ spans, chosen }: { spans: Span[]; chosen: string }) {
  const lines = useMemo(() => ordered(spans), [spans]);
  const start = Math.min(...spans.map((span) => span.start));
  const end = Math.max(...spans.map((span) => span.start + span.duration / 1000));
  const whole = Math.max((end - start) * 1000, 0.001);
  const services = [...new Set(lines.map((line) => line.span.service))];
  const hue = (one: Span): string => `hue-${services.indexOf(one.service) % HUES}`;
  const errors = spans.filter(failed).length;
  const root = lines[0]?.span;
  const span = spans.find((one) => one.spanId === chosen);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return (
    <div class={`split${span ? " with-side" : ""}`}>
      <div class="stage scrolls" tabIndex={0} role="region" aria-label="Spans">
        <dl class="facts wide">
          {root && <Fact name="Request">{root.tags["http.url"] ? `${root.tags["http.method"] ?? ""} ${pathOf(root.tags["http.url"])}` : root.operation}</Fact>}
          <Fact name="Answer">{root && <Ended span={root} />}</Fact>
          <Fact name="Began">{new Date(start * 1000).toDateString() === new Date().toDateString() ? clock(start, true) : day(start)}</Fact>
          <Fact name="Took">{ms(whole)}</Fact>
          <Fact name="Spans">{spans.length}</Fact>
          <Fact name="Services">{services.length}</Fact>
          <Fact name="Errors">{errors ? <Badge tone="bad">{errors}</Badge> : "0"}</Fact>
        </dl>
        <div class="waterfall">
          <div class="waterfall-head" aria-hidden="true">
            <span>service, operation</span>
            <span class="ticks">
              {ticks.map((tick) => (
                <i key={tick} style={{ left: `${tick * 100}%` }} class="number">
                  {ms(tick * whole)}
                </i>
              ))}
            </span>
            <span>took</span>
          </div>
          <ol>
            {lines.map(({ span: one, depth }) => {
              const left = ((one.start - start) * 100_000) / whole;
              const width = (one.duration * 100) / whole;
              return (
                <li key={one.spanId}>
                  <button
                    type="button"
                    data-row
                    aria-pressed={one.spanId === chosen}
                    aria-label={`${one.service} ${one.operation}, ${ms(one.duration)}${failed(one) ? ", failed" : ""}`}
                    onClick={() => setParams({ span: one.spanId === chosen ? undefined : one.spanId }, true)}
                  >
                    <span class="span-name" style={{ paddingLeft: `${Math.min(depth, 20) * 14}px` }}>
                      <i class={`dot ${hue(one)}`} />
                      {failed(one) && <Ended span={one} />}
                      <b>{one.service.split(".")[0]}</b> <span class="quiet">{one.operation}</span>
                    </span>
                    <span class="span-track">
                      <i class={`span-bar ${hue(one)}${failed(one) ? " failed" : ""}`} style={{ left: `${Math.min(left, 99.5)}%`, width: `${Math.max(width, 0.3)}%` }} />
                    </span>
                    <span class="number quiet">{ms(one.duration)}</span>
                  </button>
                </li>
              );
            })}
          </ol>
        </div>
      </div>
      {span && <SpanSide span={span} begin={start} />}
    </div>
  );
}

function Ended({ span }: { span: Span }) {
  const code = Number(span.tags["http.status_code"]) || 0;
  return <Badge tone={failed(span) ? "bad" : tone(code)}>{outcome(span) || (failed(span) ? "error" : "ok")}</Badge>;
}

function SpanSide({ span, begin }: { span: Span; begin: number }) {
  // A service of the mesh: rating.default.svc.cluster.local:8080/*
  const called = /^([^.]+)\.([^.]+)\.svc\./.exec(span.operation);
  const tags = Object.entries(span.tags ?? {}).sort(([a], [b]) => a.localeCompare(b));
  return (
    <aside class="side" aria-label="The chosen span">
      <header>
        <h2>{span.operation}</h2>
        <Button icon="close" label="Close" keys="Esc" data-close onClick={() => setParams({ span: undefined }, true)} />
      </header>
      <p class="quiet under-title">
        {span.service} · {span.kind.toLowerCase()}
      </p>
      <dl class="facts">
        <Fact name="Took">{ms(span.duration)}</Fact>
        <Fact name="After">{ms((span.start - begin) * 1000)}</Fact>
        <Fact name="At">{clock(span.start, true)}</Fact>
        <Fact name="Ended">
          <Ended span={span} />
        </Fact>
      </dl>
      <p class="links">
        {span.node && <a href={href(["node", ...span.node.split("/")])}>All about {short(span.node)}</a>}
        {called && <a href={href(["node", "service", called[2]!, called[1]!])}>All about {called[1]}</a>}
        <a href={href(["traces"], { service: span.service })}>Traces</a>
        {called && <RefLink of={`Service/${called[2]}/${called[1]}`} />}
      </p>
      <h3>{plural(tags.length, "tag")}</h3>
      <dl class="tags">
        {tags.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <a href={href(["traces"], { tag: `${name}=${value}` })} title="Traces with this tag">
                {String(value)}
              </a>
            </dd>
          </div>
        ))}
      </dl>
      {(span.events ?? []).length > 0 && (
        <>
          <h3>Events</h3>
          <ul class="plain">
            {span.events!.map((event, at) => (
              <li key={at}>
                <span class="number">{ms((event.time - begin) * 1000)}</span> {event.name}{" "}
                <span class="quiet">
                  {Object.entries(event.tags ?? {})
                    .map((pair) => pair.join("="))
                    .join(" ")}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
    </aside>
  );
}
