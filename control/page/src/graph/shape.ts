// What the page and its layout worker tell each other, and the sizes both draw by. Pure.

export const BOX = { width: 176, height: 50 };
export const LABEL = { width: 122, height: 36 };

export interface Wanted {
  round: number;
  /** From top to bottom, not from left to right. */
  tall: boolean;
  nodes: string[];
  edges: [string, string][];
}

export type Point = [number, number];

export interface Laid {
  round: number;
  width: number;
  height: number;
  nodes: Record<string, Point>;
  edges: Record<string, { points: Point[]; label: Point }>;
}

/** A smooth path through the layout's points: straight to the halves, curved at the corners. */
export function curve(points: Point[]): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let path = `M${first[0]} ${first[1]}`;
  for (let at = 0; at < rest.length - 1; at += 1) {
    const here = rest[at]!;
    const next = rest[at + 1]!;
    path += `Q${here[0]} ${here[1]} ${(here[0] + next[0]) / 2} ${(here[1] + next[1]) / 2}`;
  }
  const last = rest[rest.length - 1];
  return last ? `${path}L${last[0]} ${last[1]}` : path;
}
