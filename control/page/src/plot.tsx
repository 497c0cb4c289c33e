// Plots over time: rate and errors, durations, codes. In: a series of the API. Out: uPlot canvases in the theme's colours; a drag over a
// plot picks a time, which the caller turns into a search for traces. Under the strict CSP: uPlot styles by CSSOM only.
import uPlot from "uplot";
import { useEffect, useRef } from "preact/hooks";
import type { Series } from "./api";
import { useQuery } from "./state";
import { ms, rate } from "./format";
import { Shown } from "./ui";

type Line = { label: string; colour: string; values: (number | null)[]; fill?: boolean };

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

function Plot(props: { title: string; times: number[]; lines: Line[]; format: (value: number | null) => string; pick?: (from: number, to: number) => void; theme: string }) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const picked = useRef(props.pick);
  picked.current = props.pick;
  const shape = `${props.theme}|${props.lines.map((line) => line.label + line.colour).join()}`;
  const data = [props.times, ...props.lines.map((line) => line.values)] as uPlot.AlignedData;

  useEffect(() => {
    const at = frame.current;
    if (!at) return;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const made = new uPlot(
      {
        width: Math.max(at.clientWidth, 120),
        height: 150,
        cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
        legend: { live: true },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, size: 28, values: [[3600, "{HH}:{mm}", null, null, null, null, null, null, 0], [60, "{HH}:{mm}", null, null, null, null, null, null, 0], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 0]], space: 60 },
          { ...axis, size: 58, values: (_plot, ticks) => ticks.map((tick) => props.format(tick)) },
        ],
        series: [
          { label: "time", value: "{HH}:{mm}:{ss}" },
          ...props.lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: 1.6,
            spanGaps: false,
            points: { show: true, size: 5, filter: alone },
            ...(line.fill ? { fill: `${colour(line.colour)}26` } : {}),
            value: (_plot: uPlot, value: number | null) => (value == null ? "–" : props.format(value)),
          })),
        ],
        hooks: {
          setSelect: [
            (self) => {
              if (self.select.width < 4) return;
              const from = self.posToVal(self.select.left, "x");
              const to = self.posToVal(self.select.left + self.select.width, "x");
              self.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              picked.current?.(from, to);
            },
          ],
        },
      },
      data,
      at,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: Math.max(at.clientWidth, 120), height: 150 }));
    watch.observe(at);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => plot.current?.setData(data), [props.times, props.lines]);

  const last = (line: Line): string => props.format([...line.values].reverse().find((value) => value != null) ?? null);
  return (
    <figure class="plot">
      <figcaption>{props.title}</figcaption>
      <div class="plot-frame" ref={frame} role="img" aria-label={`${props.title}: ${props.lines.map((line) => `${line.label} ${last(line)}`).join(", ")}`} />
    </figure>
  );
}

const CODES = ["--code-2", "--code-3", "--code-4", "--code-5", "--muted"];

function codeColour(code: string): string {
  return CODES["2345".indexOf(code[0] ?? "")] ?? "--muted";
}

/** Rate and errors, durations and codes of a node or an edge. */
export function SeriesPlots(props: { of: { node: string } | { edge: string }; direction?: string; window: number; theme: string; pick?: (from: number, to: number) => void }) {
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

function Drawn({ series, theme, pick }: { series: Series; theme: string; pick?: ((from: number, to: number) => void) | undefined }) {
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
      {codes.length > 0 && <Plot {...shared} title="Answers per second, by code" format={rate} lines={codes.map(([code, values]) => ({ label: code, colour: codeColour(code), values }))} />}
    </>
  );
}
