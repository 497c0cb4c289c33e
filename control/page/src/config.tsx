// Configuration: every resource with its validation and findings, one resource with its text and an edit (checked by control first,
// shown as a diff, applied only then), and each proxy's sync state. In: /api/config. Out: elements, POSTs to validate and apply.
import { useEffect, useState } from "preact/hooks";
import { Refused, send, type Checked, type Finding, type Problem, type Proxy, type Resource, type Session } from "./api";
import { day, plural, short } from "./format";
import { href, live, setParams, useQuery, type Answer, type Route } from "./state";
import { Badge, Empty, said, Shown, syncTone, Table, type Column } from "./ui";
import { Find } from "./nodes";

interface Config {
  resources: Resource[];
  problems?: { source: string; message: string }[];
  proxies: Proxy[];
}

interface Props {
  route: Route;
  namespace: string;
  session: Session;
}

const idOf = (one: { kind: string; namespace?: string; name: string }): string => [one.kind, one.namespace, one.name].filter(Boolean).join("/");

function level(one: Resource): { tone: "ok" | "warn" | "bad" | "info"; words: string } {
  const bad = one.validation.filter(invalid).length + one.findings.filter((finding) => finding.level.toLowerCase() === "error").length;
  if (bad) return { tone: "bad", words: plural(bad, "error") };
  const warnings = one.findings.filter((finding) => warns(finding.level)).length + one.validation.filter((problem) => !invalid(problem)).length;
  if (warnings) return { tone: "warn", words: plural(warnings, "warning") };
  return one.findings.length ? { tone: "info", words: plural(one.findings.length, "hint") } : { tone: "ok", words: "valid" };
}

const warns = (level: string | undefined): boolean => (level ?? "").toLowerCase().startsWith("warn");
const invalid = (problem: Problem): boolean => typeof problem === "string" || !warns(problem.level);

const RANK = { bad: 3, warn: 2, info: 1, ok: 0 };

const COLUMNS: Column<Resource>[] = [
  { name: "name", value: (one) => one.name },
  { name: "kind", value: (one) => one.kind },
  { name: "namespace", value: (one) => one.namespace },
  { name: "state", value: (one) => 3 - RANK[level(one).tone], cell: (one) => <Badge tone={level(one).tone}>{level(one).words}</Badge> },
  { name: "says", value: (one) => first(one), cell: (one) => (
      <span class="clip" title={first(one)}>
        {first(one)}
      </span>
    ) },
];

function first(one: Resource): string {
  const problem = one.validation[0];
  if (problem) return said(problem);
  const finding = one.findings[0];
  return finding ? `${finding.code}: ${finding.message}` : "";
}

export function ConfigView(props: Props) {
  const answer = useQuery<Config>("config", {}, 5000);
  const [, kind, ...rest] = props.route.path;
  if (kind === "new") return <Editor key="new" {...props} answer={answer} text={FRESH} title="New resource" />;
  if (kind) {
    const wanted = [kind, ...rest].join("/");
    return (
      <Shown answer={answer}>
        {(data) => {
          const one = data.resources.find((resource) => idOf(resource) === wanted);
          if (!one)
            return (
              <Empty title={`There is no ${wanted}`}>
                <p>It may have been deleted.</p>
                <a class="button" href={href(["config"])}>
                  All resources
                </a>
              </Empty>
            );
          return <Editor key={wanted} {...props} answer={answer} text={one.yaml} resource={one} title={wanted} />;
        }}
      </Shown>
    );
  }
  return <Lists {...props} answer={answer} />;
}

function Lists({ route, namespace, session, answer }: Props & { answer: Answer<Config> }) {
  const proxies = route.params.get("show") === "proxies";
  const find = (route.params.get("find") ?? "").toLowerCase();
  const wanted = (row: { namespace?: string; name: string; kind?: string }) =>
    (!namespace || row.namespace === namespace) && (!find || `${row.kind ?? ""}/${row.namespace ?? ""}/${row.name}`.toLowerCase().includes(find));
  return (
    <section class="view">
      <header class="bar">
        <h1 id="title">Configuration</h1>
        <Find route={route} what={proxies ? "Find proxies" : "Find resources"} />
        <span class="bar-end">
          <span class="choice" role="group" aria-label="Show">
            <button type="button" aria-pressed={!proxies} onClick={() => setParams({ show: undefined }, true)}>
              resources
            </button>
            <button type="button" aria-pressed={proxies} onClick={() => setParams({ show: "proxies" }, true)}>
              proxies
            </button>
          </span>
          {session.role !== "view" && (
            <a class="button" href={href(["config", "new"])}>
              New resource
            </a>
          )}
        </span>
      </header>
      <Shown answer={answer}>
        {(data) => {
          const resources = data.resources.filter(wanted);
          const rows = data.proxies.filter(wanted);
          if (proxies)
            return rows.length ? (
              <Table caption="Proxies" rows={rows} columns={PROXIES} id={(row) => `${row.namespace}/${row.name}`} sort="sync" link={(row) => href(["node", ...(row.node ?? `workload/${row.namespace}/${row.name}`).split("/")])} />
            ) : (
              <Empty title="No proxy is connected">
                <p>Sidecars show here when they take their configuration from this control.</p>
              </Empty>
            );
          const problems = data.problems ?? [];
          const told = problems.length > 0 && (
            <ul class="plain unmet">
              {problems.map((one, at) => (
                <li key={at}>
                  <Badge tone="warn">not as written</Badge> {one.source}: {one.message}
                </li>
              ))}
            </ul>
          );
          return resources.length ? (
            <>
              {told}
              <Table caption="Resources" rows={resources} columns={COLUMNS} id={idOf} sort="state" link={(one) => href(["config", ...idOf(one).split("/")])} />
            </>
          ) : (
            <Empty title="No resource matches">
              <p>
                Change the filter, or apply one: <code>meshctl apply -f FILE</code>.
              </p>
            </Empty>
          );
        }}
      </Shown>
    </section>
  );
}

/** Why a proxy does not run what it should, or what control could not do for it. */
function complaint(row: Proxy): string {
  const refused = (row.lastNack ?? []).map((nack) => `${nack.kind} ${nack.name}: ${nack.error}`);
  return [row.problem ?? "", ...refused, ...(row.problems ?? [])].filter(Boolean).join(" · ");
}

function behind(row: Proxy): string {
  const kinds = Object.entries(row.kinds ?? {}).filter(([, kind]) => !["SYNCED", "NOT SENT", ""].includes(kind.status));
  return kinds.map(([name, kind]) => `${name} ${kind.status.toLowerCase()}`).join(", ");
}

const PROXIES: Column<Proxy>[] = [
  { name: "proxy", value: (row) => row.name },
  { name: "namespace", value: (row) => row.namespace },
  { name: "role", value: (row) => row.role ?? "" },
  { name: "sync", value: (row) => `${"bad warn idle ok".indexOf(syncTone(row.status))}`.padStart(2, "0"), cell: (row) => <Badge tone={syncTone(row.status)}>{row.status || "–"}</Badge> },
  { name: "behind", value: behind },
  { name: "version", value: (row) => row.version ?? "", cell: (row) => <code>{(row.version ?? "").slice(0, 12)}</code> },
  { name: "since", value: (row) => row.connectedSince ?? null, cell: (row) => <span class="number">{row.connectedSince ? day(row.connectedSince) : "–"}</span> },
  { name: "says", value: complaint, cell: (row) => <span class="clip" title={complaint(row)}>{complaint(row)}</span> },
];

const FRESH = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: example
  namespace: default
spec:
  hosts: [example]
  http:
    - route:
        - destination: {host: example}
`;

function Editor(props: Props & { answer: Answer<Config>; text: string; title: string; resource?: Resource }) {
  const { resource, session } = props;
  const [draft, setDraft] = useState<string | null>(resource ? null : props.text);
  const [checked, setChecked] = useState<(Checked & { of: string }) | null>(null);
  const [busy, setBusy] = useState(false);
  const [note, setNote] = useState("");
  const editing = draft !== null;
  const mayApply = editing && checked?.ok === true && checked.of === draft && !busy;

  useEffect(() => {
    if (!editing || draft === props.text) return;
    const leave = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener("beforeunload", leave);
    return () => removeEventListener("beforeunload", leave);
  }, [editing, draft, props.text]);

  const ask = async (path: "config/validate" | "config/apply"): Promise<Checked | null> => {
    setBusy(true);
    setNote("");
    try {
      const answer = await send("POST", path, { yaml: draft });
      return answer.status === 204 ? { ok: true } : ((await answer.json()) as Checked);
    } catch (failure) {
      if (failure instanceof Refused && failure.status === 401) live.signedOut();
      return { ok: false, problems: [(failure as Error).message] };
    } finally {
      setBusy(false);
    }
  };
  const check = async () => {
    const found = await ask("config/validate");
    if (found) setChecked({ ...found, of: draft ?? "" });
  };
  const apply = async () => {
    const done = await ask("config/apply");
    if (!done) return;
    if (done.ok === false) {
      setChecked({ ...done, of: draft ?? "" });
      return;
    }
    setDraft(resource ? null : draft);
    setChecked(null);
    setNote("Applied. Proxies take it within a second or so; their state is under proxies.");
    props.answer.reload();
  };

  return (
    <section class="view">
      <header class="bar">
        <h1 id="title">{props.title}</h1>
        {resource && <Badge tone={level(resource).tone}>{level(resource).words}</Badge>}
        <span class="bar-end">
          {editing ? (
            <>
              <button type="button" class="button" title="A dry run (Ctrl Enter)" disabled={busy} onClick={() => void check()}>
                Check
              </button>
              <button type="button" class="button primary" disabled={!mayApply} title={mayApply ? "" : "Check the text first"} onClick={() => void apply()}>
                Apply
              </button>
              {resource && (
                <button
                  type="button"
                  class="button"
                  onClick={() => {
                    setDraft(null);
                    setChecked(null);
                  }}
                >
                  Discard
                </button>
              )}
            </>
          ) : session.role === "view" ? (
            <span class="quiet">Your role is view: editing needs edit.</span>
          ) : (
            <button type="button" class="button" onClick={() => setDraft(props.text)}>
              Edit
            </button>
          )}
          <a class="button" href={href(["config"])}>
            All resources
          </a>
        </span>
      </header>
      <div class="page">
        <div aria-live="polite">
          {note && <p class="note good">{note}</p>}
          {checked && <Verdict checked={checked} stale={checked.of !== draft} />}
        </div>
        {resource && !editing && <Findings of={resource} />}
        {resource && !editing && (resource.nodes ?? []).length > 0 && (
          <p class="links">
            <span class="quiet">Applies to</span>
            {resource.nodes!.map((id) => (
              <a key={id} href={href(["node", ...id.split("/")])}>
                {short(id)} <span class="kind">{id.split("/")[0]}</span>
              </a>
            ))}
          </p>
        )}
        {editing ? (
          <label class="field">
            <span>YAML</span>
            <textarea class="code" spellcheck={false} rows={Math.min(40, Math.max(14, (draft ?? "").split("\n").length + 1))} value={draft ?? ""} onInput={(event) => setDraft(event.currentTarget.value)} onKeyDown={(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && void check()} />
          </label>
        ) : (
          <pre class="code" tabIndex={0} role="region" aria-label="YAML">
            {props.text}
          </pre>
        )}
      </div>
    </section>
  );
}

function Findings({ of }: { of: Resource }) {
  if (!of.validation.length && !of.findings.length) return null;
  return (
    <ul class="plain findings">
      {of.validation.map((problem, at) => (
        <li key={`v${at}`}>
          <Badge tone={invalid(problem) ? "bad" : "warn"}>{invalid(problem) ? "invalid" : "warning"}</Badge> {said(problem)}
        </li>
      ))}
      {of.findings.map((finding, at) => (
        <li key={`f${at}`}>
          <Found finding={finding} />
        </li>
      ))}
    </ul>
  );
}

function Found({ finding }: { finding: Finding }) {
  const tone = finding.level.toLowerCase() === "error" ? "bad" : warns(finding.level) ? "warn" : "info";
  return (
    <>
      <Badge tone={tone}>{finding.code}</Badge> {finding.message}
    </>
  );
}

function Verdict({ checked, stale }: { checked: Checked; stale: boolean }) {
  const problems: Problem[] = checked.problems ?? [];
  return (
    <div class={`verdict ${checked.ok ? "good" : "refused"}`} data-verdict={checked.ok ? "ok" : "refused"}>
      <p>
        <b>{checked.ok ? "Control would accept this." : "Refused; nothing was changed."}</b>
        {stale && " The text has changed since: check it again."}
      </p>
      {problems.length > 0 && (
        <ul class="plain">
          {problems.map((problem, at) => (
            <li key={at}>{said(problem)}</li>
          ))}
        </ul>
      )}
      {[...(checked.warnings ?? [])].map((line) => (
        <p key={line}>
          <Badge tone="warn">warning</Badge> {line}
        </p>
      ))}
      {(checked.findings ?? []).map((finding, at) => (
        <p key={at}>
          <Found finding={finding} />
        </p>
      ))}
      {checked.ok && (checked.diff ? <Diff of={checked.diff} /> : <p class="note">It says the same as what is there: nothing would change.</p>)}
    </div>
  );
}

function Diff({ of }: { of: string }) {
  return (
    <pre class="code diff" tabIndex={0} role="region" aria-label="What would change">
      {of.split("\n").map((line, at) => (
        <span key={at} class={/^(\+\+\+|---|@@)/.test(line) ? "head" : line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : ""}>
          {line}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
