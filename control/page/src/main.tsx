// The page's entry: signs in, draws the frame, chooses the view by the address. In: the single-use code in the fragment, which leaves the
// address before anything else happens. Out: the page. Nothing here is trusted by control; roles are checked there.
import "uplot/dist/uPlot.min.css"; // first: the styles below change it
import "./style/base.css";
import "./style/frame.css";
import "./style/parts.css";
import "./style/graph.css";
import "./style/views.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, Refused, send, type GraphNode, type Session } from "./api";
import { href, live, recall, remember, setParams, useQuery, useRoute, type Route } from "./state";
import { clock } from "./format";
import { Button, Empty, Glyph, number } from "./ui";
import { Help, useKeys } from "./keys";
import { GraphView } from "./graph/view";
import { NodeList, NodePage } from "./nodes";
import { TracesView } from "./traces";
import { TracePage } from "./waterfall";
import { ConfigView } from "./config";

const code = /^#code=([^&]+)/.exec(location.hash)?.[1];
if (code) history.replaceState(null, "", "#/graph");

const VIEWS: [string, string][] = [
  ["graph", "Graph"],
  ["services", "Services"],
  ["workloads", "Workloads"],
  ["traces", "Traces"],
  ["config", "Configuration"],
];

const WINDOWS: [number, string][] = [
  [30, "30 s"],
  [60, "1 min"],
  [300, "5 min"],
  [900, "15 min"],
  [3600, "1 h"],
];

type Door = { state: "asking" } | { state: "in"; session: Session } | { state: "out"; why: string };

let signingIn: Promise<Session> | undefined;

/** A code is good once; without one an earlier session may still be. */
async function enter(): Promise<Session> {
  if (code) await send("POST", "session", { code: decodeURIComponent(code) });
  return get<Session>("session");
}

function theme(): string {
  return recall("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function App() {
  const [door, setDoor] = useState<Door>({ state: "asking" });
  const [shade, setShade] = useState(theme);
  document.documentElement.dataset.theme = shade;

  useEffect(() => {
    live.signedOut = () => setDoor({ state: "out", why: "Your session has ended." });
    signingIn ??= enter();
    signingIn.then(
      (session) => setDoor({ state: "in", session }),
      (failure: unknown) => {
        const status = failure instanceof Refused ? failure.status : 0;
        const why = status === 401 || status === 403 ? (code ? "That link was used already, or is older than a minute." : "You are not signed in.") : (failure as Error).message;
        setDoor({ state: "out", why });
      },
    );
    const system = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setShade(theme());
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);

  const turn = () => {
    const next = shade === "dark" ? "light" : "dark";
    remember("theme", next);
    setShade(next);
  };
  if (door.state === "asking") return <div class="loading" role="status" aria-label="signing in" />;
  if (door.state === "out")
    return (
      <main class="door">
        <Empty title={door.why}>
          <p>Open the page by a fresh link: each is good once, for a minute.</p>
          <p>
            <code>meshctl dashboard</code>
          </p>
        </Empty>
      </main>
    );
  return <Frame session={door.session} shade={shade} turn={turn} leave={(why) => setDoor({ state: "out", why })} />;
}

function Frame(props: { session: Session; shade: string; turn: () => void; leave: (why: string) => void }) {
  const route = useRoute();
  const [help, setHelp] = useState(false);
  const [paused, setPaused] = useState(live.paused);
  const view = route.path[0] ?? "graph";
  const namespace = route.params.get("namespace") ?? "";
  const window = number(route, "window", 60);
  const [lost, setLost] = useState(live.lost);
  useEffect(() => {
    live.changed = () => setLost(live.lost);
  }, []);
  const pause = () => {
    live.paused = !live.paused;
    setPaused(live.paused);
  };
  useKeys({ pause, theme: props.turn, help: () => setHelp(true) });
  useEffect(() => {
    const name = VIEWS.find(([id]) => id === view)?.[1] ?? route.path[route.path.length - 1] ?? "";
    document.title = `${name} · Mesh`;
  }, [route]);
  const leave = async () => {
    await send("DELETE", "session").catch(() => undefined);
    props.leave("You are signed out.");
  };
  const at = view === "node" ? (route.path[1] === "service" ? "services" : "workloads") : view;
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => (event.preventDefault(), document.getElementById("content")?.focus())}>
        To the content
      </a>
      <header class="top">
        <a class="brand" href={href(["graph"])}>
          <Glyph icon="mesh" /> Mesh
        </a>
        <nav aria-label="Views">
          {VIEWS.map(([id, name]) => (
            <a key={id} href={href([id])} aria-current={at === id ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <span class="picks">
          <Namespace chosen={namespace} unused={view === "traces" || view === "node"} />
          <label class={`pick${view === "traces" || view === "config" ? " unused" : ""}`}>
            <span class="hidden">Time window</span>
            <select
              value={window}
              onChange={(event) => setParams({ window: event.currentTarget.value }, true)}
            >
              {WINDOWS.map(([seconds, words]) => (
                <option key={seconds} value={seconds} selected={seconds === window}>
                  last {words}
                </option>
              ))}
            </select>
          </label>
        </span>
        <span class="top-end">
          <span class={`live${lost ? " is-lost" : paused ? " is-paused" : ""}`} role="status">
            {lost ? "offline" : paused ? "paused" : "live"}
          </span>
          <Button icon={paused ? "play" : "pause"} label={paused ? "Go on" : "Pause"} keys="p" onClick={pause} />
          <Button icon={props.shade === "dark" ? "sun" : "moon"} label={props.shade === "dark" ? "Light" : "Dark"} keys="d" onClick={props.turn} />
          <Button icon="help" label="Keyboard help" keys="?" onClick={() => setHelp(true)} />
          <button type="button" class="who" title={`Signed in as ${props.session.name} (${props.session.role}). Click to sign out.`} onClick={() => void leave()}>
            {props.session.name} <span class="quiet">{props.session.role}</span>
            <span class="hidden">sign out</span>
          </button>
        </span>
      </header>
      <main id="content" tabIndex={-1}>
        <View route={route} view={view} namespace={namespace} window={window} theme={props.shade} session={props.session} />
      </main>
      {lost > 0 && (
        <p class="lost" role="alert">
          Control has not answered since {clock(lost)}. What you see is from before; the page goes on by itself when control is back.
        </p>
      )}
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

function View(props: { route: Route; view: string; namespace: string; window: number; theme: string; session: Session }) {
  const { route, view, namespace } = props;
  const second = route.path[1];
  if (view === "graph") return <GraphView route={route} theme={props.theme} namespace={namespace} window={props.window} />;
  if (view === "services" || view === "workloads") return <NodeList key={view} route={route} kind={view} namespace={namespace} window={props.window} />;
  if (view === "node" && second) {
    const id = route.path.slice(1).join("/");
    return <NodePage key={id} route={route} id={id} window={props.window} theme={props.theme} />;
  }
  if (view === "traces") return second ? <TracePage key={second} route={route} id={second} /> : <TracesView route={route} theme={props.theme} />;
  if (view === "config") return <ConfigView route={route} namespace={namespace} session={props.session} />;
  return (
    <Empty title="There is no such page">
      <a class="button" href={href(["graph"])}>
        To the graph
      </a>
    </Empty>
  );
}

function Namespace({ chosen, unused }: { chosen: string; unused: boolean }) {
  const services = useQuery<{ services: GraphNode[] }>("services", {}, 15_000).data?.services ?? [];
  const workloads = useQuery<{ workloads: GraphNode[] }>("workloads", {}, 15_000).data?.workloads ?? [];
  const names = [...new Set([...services, ...workloads].map((node) => node.namespace).filter(Boolean))].sort();
  if (chosen && !names.includes(chosen)) names.push(chosen);
  return (
    <label class={`pick${unused ? " unused" : ""}`}>
      <span class="hidden">Namespace</span>
      <select value={chosen} onChange={(event) => setParams({ namespace: event.currentTarget.value }, true)}>
        <option value="" selected={!chosen}>
          all namespaces
        </option>
        {names.map((name) => (
          <option key={name} value={name} selected={name === chosen}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
