// Keyboard: one table of shortcuts, which is also what the help shows. In: key presses outside of fields. Out: moves, or the help dialog.
import { useEffect, useRef } from "preact/hooks";
import { href } from "./state";
import { Button } from "./ui";

export const SHORTCUTS: [string, string][] = [
  ["g", "Graph"],
  ["s", "Services"],
  ["w", "Workloads"],
  ["t", "Traces"],
  ["c", "Configuration"],
  ["/", "Find on this page (graph: Enter goes there)"],
  ["j k", "Next, previous row"],
  ["p", "Pause, go on"],
  ["d", "Dark or light"],
  ["+ - 0", "Graph: nearer, farther, all"],
  ["b", "Graph: as a table"],
  ["l", "Graph: p50 p95 p99 on the calls"],
  ["Esc", "Close what is open"],
  ["?", "This help"],
];

const VIEWS: Record<string, string> = { g: "graph", s: "services", w: "workloads", t: "traces", c: "config" };

export function useKeys(act: { pause: () => void; theme: () => void; help: () => void }): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const at = event.target as HTMLElement;
      if (at.closest("input,textarea,select")) {
        if (event.key === "Escape") at.blur();
        return;
      }
      if (at.closest("dialog")) return;
      const view = VIEWS[event.key];
      if (view) location.hash = href([view]);
      else if (event.key === "Escape") document.querySelector<HTMLElement>("[data-close]")?.click();
      else if (event.key === "p") act.pause();
      else if (event.key === "d") act.theme();
      else if (event.key === "?") act.help();
      else if (event.key === "/") {
        event.preventDefault();
        document.querySelector<HTMLInputElement>("[data-find]")?.focus();
      } else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
}

function step(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("[data-row]")];
  const at = rows.indexOf(document.activeElement as HTMLElement);
  rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
}

export function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="help" onClose={close} aria-labelledby="help-title" onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
      <header>
        <h2 id="help-title">Keyboard</h2>
        <Button icon="close" label="Close" onClick={() => dialog.current?.close()} />
      </header>
      <dl>
        {SHORTCUTS.map(([keys, does]) => (
          <div key={keys}>
            <dt>
              {keys.split(" ").map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
