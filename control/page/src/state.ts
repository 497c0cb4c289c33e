// What the views share: the route in the address, live queries, and the few choices that are remembered. In: location.hash, the API.
// Out: hooks. A query keeps its last answer while it asks again, so nothing jumps.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { get, query, Refused, type Params } from "./api";

export interface Route {
  path: string[];
  params: URLSearchParams;
}

export function readRoute(hash: string): Route {
  const text = hash.replace(/^#\/?/, "");
  const cut = text.indexOf("?");
  const path = (cut < 0 ? text : text.slice(0, cut)).split("/").filter(Boolean);
  return { path: path.map(decode), params: new URLSearchParams(cut < 0 ? "" : text.slice(cut + 1)) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a hand-made address: show what it says
  }
}

/** What goes along from view to view, so that every address shows to others what it shows here. */
const ALONG = ["namespace", "window"];

export function href(path: string[], params: Params = {}): string {
  const here = readRoute(location.hash).params;
  const along = Object.fromEntries(ALONG.map((name) => [name, here.get(name) ?? undefined]));
  return address(path, new URLSearchParams(query({ ...along, ...params })));
}

function address(path: string[], params: URLSearchParams): string {
  const text = params.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export function useRoute(): Route {
  const [route, set] = useState(() => readRoute(location.hash));
  useEffect(() => {
    const moved = () => set(readRoute(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return route;
}

/** Changes parameters of the address, in place or (`push`) as a step that "back" undoes; undefined takes one away. */
export function setParams(changes: Params, push = false): void {
  const route = readRoute(location.hash);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined || value === "") route.params.delete(name);
    else route.params.set(name, String(value));
  }
  const target = address(route.path, route.params);
  if (target === location.hash) return;
  if (push) location.hash = target;
  else {
    history.replaceState(null, "", target);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}

export interface Live {
  paused: boolean;
  /** Since when (Unix seconds) control has not answered; 0: it answers. */
  lost: number;
  signedOut: () => void;
  changed: () => void;
}

export const live: Live = { paused: false, lost: 0, signedOut: () => undefined, changed: () => undefined };

const AGAIN = 3000; // ms: until control is asked again when it did not answer

function heard(answered: boolean): void {
  if (answered === !live.lost) return;
  live.lost = answered ? 0 : Date.now() / 1000;
  live.changed();
}

export interface Answer<T> {
  data: T | undefined;
  error: string;
  loading: boolean;
  /** What is shown answers an earlier question; the answer to this one is on its way. */
  stale: boolean;
  reload: () => void;
}

/** Asks `path` now and every `every` milliseconds (0: once); null asks nothing. */
export function useQuery<T>(path: string | null, params: Params = {}, every = 0): Answer<T> {
  const key = path === null ? null : path + JSON.stringify(params);
  const [held, set] = useState<{ key: string | null; data?: T; error: string; loading: boolean }>({ key, error: "", loading: true });
  const [round, again] = useState(0);
  const wanted = useRef(params);
  wanted.current = params;

  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    let timer = 0;
    const once = async () => {
      let wait = every;
      try {
        const data = await get<T>(path, wanted.current, stop.signal);
        heard(true);
        if (!stop.signal.aborted) set({ key, data, error: "", loading: false });
      } catch (failure) {
        if (stop.signal.aborted) return;
        const status = failure instanceof Refused ? failure.status : -1;
        if (status === 401) live.signedOut();
        heard(status !== 0);
        if (!status) wait = AGAIN;
        const error = failure instanceof Error ? failure.message : String(failure);
        set((before) => (before.key === key ? { ...before, error, loading: false } : { key, error, loading: false }));
      }
      if (wait && !stop.signal.aborted) timer = setTimeout(next, wait);
    };
    const next = () => {
      if (live.paused || document.hidden) timer = setTimeout(next, 1000);
      else void once();
    };
    set((before) => (before.key === key ? before : { ...before, error: "", loading: true }));
    void once();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, every, round]);

  const reload = useCallback(() => again((count) => count + 1), []);
  return { data: held.data, error: held.error, loading: held.loading, stale: held.key !== key, reload };
}

/** A choice that outlives the visit. No secret goes here. */
export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`mesh.${name}`, value);
  } catch {
    // storage may be off; then it is for this visit only
  }
}

export function recall(name: string): string {
  try {
    return localStorage.getItem(`mesh.${name}`) ?? "";
  } catch {
    return "";
  }
}
