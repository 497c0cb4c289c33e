// Bundles the page: src/ -> the directory named first (dist/). In: node_modules beside this file. Out: index.html, app.js, app.css,
// layout.js (a worker), icon.svg, licences.txt. Assumes `npm ci` has run. Nothing here reaches the network.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const out = process.argv[2] ?? "dist";
await mkdir(out, { recursive: true });
const result = await build({
  entryPoints: { app: "src/main.tsx", layout: "src/graph/layout.worker.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

// MIT asks that the licence goes where the code goes: of what was bundled, and of what that has bundled itself.
const names = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) names.add(found[1]);
}
for (const name of names) {
  const facts = JSON.parse(await readFile(join("node_modules", name, "package.json"), "utf8"));
  for (const needed of Object.keys(facts.dependencies ?? {})) names.add(needed);
}
let text = "This page contains:\n";
for (const name of [...names].sort()) {
  const at = join("node_modules", name);
  const facts = JSON.parse(await readFile(join(at, "package.json"), "utf8"));
  const file = (await readdir(at)).find((entry) => /^licen[cs]e/i.test(entry));
  text += `\n${name} ${facts.version} (${facts.license})\n\n${file ? (await readFile(join(at, file), "utf8")).trim() : ""}\n`;
}
await writeFile(join(out, "licences.txt"), text);
for (const name of ["index.html", "icon.svg"]) await copyFile(join("src", name), join(out, name));
