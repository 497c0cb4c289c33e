// Plots over time: rate and errors, durations, codes, traces. In: a series of the API. Out: uPlot canvases in the theme's colours; a drag
// over a plot picks a time, which the caller turns into a search for traces. Under the strict CSP: uPlot styles by CSSOM only.
import uPlot from "uplot";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Series, TraceRow } from "./api";
import { useQuery } from "./state";
import { clock, ms, rate, tick } from "./format";
import { Shown } from "./ui";

type Line = { label: string; colour: string; values: (number | null)[]; fill?: boolean; dash?: number[] };
type Pick = (from: number, to: number) => void;

/** Plots look back further than the numbers: a minute has no shape. */
export const history = (window: number): number => Math.max(window, 900);

const HEIGHT = 160;
const TIMES: uPlot.Axis.Values = [
  [3600, "{HH}:{mm}", null, null, null, null, null, null, 0],
  [60, "{HH}:{mm}", null, null, null, null, null, null, 0],
  [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 0],
];

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888";
}

/** A value between two gaps has no line: it is drawn as a point. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  const found: number[] = [];
  for (let at = 0; at < values.length; at += 1) if (values[at] != null && values[at - 1] == null && values[at + 1] == null) found.push(at);
  return found;
}

/** What all plots have: axes, a drag that picks a time, a width that follows the page. */
function drawn(at: HTMLElement, options: Partial<uPlot.Options> & { series: uPlot.Series[] }, format: (value: number) => string, data: uPlot.AlignedData, picked: { current: Pick | undefined }): { plot: uPlot; end: () => void } {
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const width = () => Math.max(at.clientWidth, 120);
  const setSelect = (self: uPlot) => {
    if (self.select.width < 4) return;
    const from = self.posToVal(self.select.left, "x");
    const to = self.posToVal(self.select.left + self.select.width, "x");
    self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    picked.current?.(from, to);
  };
  const plot = new uPlot(
    {
      ...options,
      width: width(),
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      axes: [
        { ...axis, size: 24, values: TIMES, space: 60 },
        { ...axis, size: 52, grid: { ...axis.grid, filter: (self, splits) => splits.map((at) => (self.scales.y?.distr === 3 && Math.log10(at) % 1 ? null : at)) }, values: (_plot, ticks) => ticks.map((value) => (value == null ? "" : tick(format(value)))) },
      ],
      hooks: { ...options.hooks, setSelect: [setSelect] },
    },
    data,
    at,
  );
  const watch = new ResizeObserver(() => plot.setSize({ width: width(), height: HEIGHT }));
  watch.observe(at);
  return {
    plot,
    end: () => {
      watch.disconnect();
      plot.destroy();
    },
  };
}

function Plot(props: { title: string; times: number[]; lines: Line[]; format: (value: number | null) => string; pick?: Pick; theme: string }) {
  const [hovered, setHovered] = useState<number | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const picked = useRef(props.pick);
  picked.current = props.pick;
  const shape = `${props.theme}|${props.lines.map((line) => line.label + line.colour).join()}`;
  const data = [props.times, ...props.lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const at = frame.current;
    if (!at) return;
    const made = drawn(
      at,
      {
        // Plots beside each other show the same moment.
        cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 }, sync: { key: "mesh", setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } } },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        series: [
          {},
          ...props.lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: 1.6,
            spanGaps: false,
            points: { show: true, size: 5, filter: alone },
            ...(line.dash ? { dash: line.dash } : {}),
            ...(line.fill ? { fill: `${colour(line.colour)}26` } : {}),
          })),
        ],
        hooks: { setCursor: [(self) => setHovered(self.cursor.left != null && self.cursor.left >= 0 ? (self.cursor.idx ?? null) : null)] },
      },
      props.format,
      data,
      picked,
    );
    plot.current = made.plot;
    return () => {
      made.end();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => plot.current?.setData(data), [props.times, props.lines]);

  const last = (line: Line): string => props.format([...line.values].reverse().find((value) => value != null) ?? null);
  const shown = (line: Line): string => (hovered === null ? last(line) : props.format(line.values[hovered] ?? null));
  const at = hovered === null ? undefined : props.times[hovered];
  return (
    <figure class="plot">
      <figcaption>
        <b>{props.title}</b>
        <span class="quiet number">{at === undefined ? "now" : clock(at)}</span>
        <span class="plot-legend">
          {props.lines.map((line) => (
            <span key={line.label}>
              <i class={line.dash ? "dashed" : ""} style={{ borderTopColor: `var(${line.colour})` }} />
              {line.label} <b class="number">{shown(line)}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div class="plot-frame" ref={frame} role="img" aria-label={`${props.title}: ${props.lines.map((line) => `${line.label} ${last(line)}`).join(", ")}`} />
    </figure>
  );
}

/** Traces as dots over time, the failed ones red: what is slow stands out. A click opens one, a drag narrows the time. */
export function Dots({ rows, theme, pick, open }: { rows: TraceRow[]; theme: string; pick: Pick; open: (row: TraceRow) => void }) {
  const frame = useRef<HTMLDivElement>(null);
  const picked = useRef<Pick | undefined>(pick);
  picked.current = pick;
  const [hovered, setHovered] = useState<TraceRow>();
  useEffect(() => {
    const at = frame.current;
    if (!at) return;
    const sorted = [...rows].sort((a, b) => a.start - b.start);
    const took = (row: TraceRow) => Math.max(row.duration, 0.001);
    const data = [sorted.map((row) => row.start), sorted.map((row) => (row.errors ? null : took(row))), sorted.map((row) => (row.errors ? took(row) : null))] as uPlot.AlignedData;
    const dots = (name: string): uPlot.Series => ({ stroke: colour(name), width: 0, paths: () => null, points: { show: true, size: 7, width: 0, fill: `${colour(name)}b0` } });
    const made = drawn(
      at,
      {
        cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 10 } },
        scales: { y: { distr: 3 } },
        series: [{}, dots("--accent"), dots("--bad")],
        hooks: { setCursor: [(self) => setHovered(self.cursor.idx == null || self.cursor.left! < 0 ? undefined : sorted[self.cursor.idx])] },
      },
      ms,
      data,
      picked,
    );
    return made.end;
  }, [rows, theme]);
  return (
    <figure class="plot dots">
      <figcaption>
        <b>Duration</b>
        <span class="quiet number">{hovered ? `${hovered.method ?? ""} ${ms(hovered.duration)} at ${clock(hovered.start)}: click to open` : "click a dot to open it, drag to narrow the time"}</span>
      </figcaption>
      <div class="plot-frame" ref={frame} role="img" aria-label="Durations of the traces below over time" onClick={() => hovered && open(hovered)} />
    </figure>
  );
}

const CODES = ["--code-2", "--code-3", "--code-4", "--code-5", "--muted"];

const DASHES = [[6, 3], [2, 3], [9, 3, 2, 3]];

/** A colour per class; within one the strokes differ. */
function codeLine([code, values]: [string, (number | null)[]], index: number, all: [string, unknown][]): Line {
  const before = all.slice(0, index).filter(([other]) => other[0] === code[0]).length;
  const dash = before ? DASHES[(before - 1) % DASHES.length] : undefined;
  return { label: code === "0" ? "none" : code, colour: CODES["2345".indexOf(code[0] ?? "")] ?? "--muted", values, ...(dash ? { dash } : {}) };
}

/** Rate and errors, durations and codes of a node or an edge. */
export function SeriesPlots(props: { of: { node: string } | { edge: string }; direction?: string; window: number; theme: string; pick?: Pick }) {
  const step = Math.max(5, Math.ceil(props.window / 240 / 5) * 5);
  const answer = useQuery<Series>("series", { ...props.of, direction: props.direction, window: props.window, step }, 5000);
  return (
    <div class="plots">
      <Shown answer={answer}>
        {(series) =>
          series.times.length === 0 ? (
            <p class="note">No history yet: sidecars report every 5 s, so look again in a moment.</p>
          ) : (
            <Drawn series={series} theme={props.theme} pick={props.pick} />
          )
        }
      </Shown>
    </div>
  );
}

function Drawn({ series, theme, pick }: { series: Series; theme: string; pick?: Pick | undefined }) {
  const shared = { times: series.times, theme, ...(pick ? { pick } : {}) };
  const codes = Object.entries(series.codes ?? {}).sort(([a], [b]) => a.localeCompare(b));
  return (
    <>
      <Plot
        {...shared}
        title="Requests per second"
        format={rate}
        lines={[
          { label: "all", colour: "--accent", values: series.rps, fill: true },
          { label: "errors", colour: "--bad", values: series.errors, fill: true },
        ]}
      />
      <Plot
        {...shared}
        title="Duration"
        format={ms}
        lines={[
          { label: "p50", colour: "--p50", values: series.p50 },
          { label: "p95", colour: "--p95", values: series.p95 },
          { label: "p99", colour: "--p99", values: series.p99 },
        ]}
      />
      {codes.length > 0 && <Plot {...shared} title="Answers per second, by code" format={rate} lines={codes.map(codeLine)} />}
    </>
  );
}
