// Queries Prometheus for the data of dashboards and lets Chromium draw them. README.md explains how to use it.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
/** Height in pixels of a line of Grafana's grid, including the gap below it. */
const LINE = 38;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
    out: { type: 'string', default: 'out' },
    theme: { type: 'string', multiple: true, default: ['light', 'dark'] },
    set: { type: 'string', multiple: true, default: [] },
    end: { type: 'string', default: String(Math.floor(Date.now() / 1000)) },
    minutes: { type: 'string', default: '60' },
    width: { type: 'string', default: '1600' },
  },
});

async function ask(path, parameters) {
  const answer = await fetch(`${options.prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') throw new Error(`Prometheus: ${body.error}`);
  return body.data;
}

/** Values of a dashboard's variables: those set; otherwise all, or the first if only one can be chosen. */
async function variables(dashboard) {
  const set = Object.fromEntries(options.set.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
  const values = {};
  for (const variable of dashboard.templating.list) {
    const name = variable.name;
    if (set[name] !== undefined) values[name] = set[name];
    else if (variable.includeAll) values[name] = '.*';
    else if (variable.type === 'custom') values[name] = variable.options[0].value;
    else if (variable.type === 'query') {
      const [, selector, label] = variable.query.query.match(/^label_values\((.*), (\w+)\)$/s);
      const found = await ask('query', { query: fill(`count by (${label}) (${selector})`, values, 0, 0), time: options.end });
      values[name] = found.result[0]?.metric[label] ?? '';
    }
  }
  return values;
}

function fill(expression, values, step, range) {
  const all = { ...values, __rate_interval: `${Math.max(4 * step, 20)}s`, __interval: `${step}s`, __range: `${range}s` };
  // Longer names first, since a name may be the prefix of another.
  const names = Object.keys(all).sort((a, b) => b.length - a.length);
  return names.reduce((text, name) => text.replaceAll(`$${name}`, all[name]), expression);
}

async function data(dashboard, values) {
  const range = Number(options.minutes) * 60;
  const end = Number(options.end);
  const step = Math.max(5, Math.ceil(range / 200));
  const found = {};
  for (const panel of dashboard.panels) {
    found[panel.id] = [];
    for (const target of panel.targets ?? []) {
      const query = fill(target.expr, values, step, range);
      const answer = target.instant
        ? await ask('query', { query, time: String(end) })
        : await ask('query_range', { query, start: String(end - range), end: String(end), step: String(step) });
      found[panel.id].push({ target, step, result: answer.result });
    }
  }
  return { found, from: (end - range) * 1000, to: end * 1000, values };
}

/** Plugin for a CommonJS package, of which esbuild (like Node) takes the whole module as the default export. */
const scrollbars = {
  name: 'scrollbars',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^react-custom-scrollbars-2$/ }, (args) =>
      args.namespace === 'scrollbars' ? undefined : { path: args.path, namespace: 'scrollbars', pluginData: args.resolveDir });
    onLoad({ filter: /./, namespace: 'scrollbars' }, (args) =>
      ({ contents: `export { Scrollbars, Scrollbars as default } from '${args.path}'`, resolveDir: args.pluginData }));
  },
};

async function main() {
  const work = mkdtempSync(join(tmpdir(), 'render-'));
  mkdirSync(options.out, { recursive: true });
  const bundle = join(work, 'page.js');
  await build({
    entryPoints: [join(here, 'page.jsx')], outfile: bundle, bundle: true, format: 'iife', jsx: 'automatic', minify: true,
    define: { 'process.env.NODE_ENV': '"production"' }, loader: { '.svg': 'dataurl', '.ttf': 'empty' }, logLevel: 'error', plugins: [scrollbars],
  });
  const files = positionals.length > 0 ? positionals
    : readdirSync(join(here, '..')).filter((name) => name.endsWith('.json')).map((name) => join(here, '..', name));
  for (const file of files) {
    const dashboard = JSON.parse(readFileSync(file, 'utf8'));
    const filled = await data(dashboard, await variables(dashboard));
    const lines = Math.max(...dashboard.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
    for (const theme of options.theme) {
      const page = join(work, `${theme}.html`);
      const given = JSON.stringify({ dashboard, theme, width: Number(options.width), line: LINE, ...filled }).replaceAll('<', '\\u003c');
      writeFileSync(page, `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><body style="margin:0"><div id="root"></div>
<script>window.given = ${given}</script><script src="page.js"></script>`);
      const picture = resolve(options.out, `${basename(file, '.json')}-${theme}.png`);
      execFileSync(process.env.CHROMIUM ?? 'chromium', [
        '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync', '--hide-scrollbars', '--enable-logging=stderr', `--user-data-dir=${join(work, 'profile')}`,
        '--virtual-time-budget=15000', `--window-size=${options.width},${lines * LINE + 70}`, `--screenshot=${picture}`,
        pathToFileURL(page).href,
      ], { stdio: ['ignore', 'ignore', process.env.VERBOSE ? 'inherit' : 'ignore'] });
      console.log(picture);
    }
  }
  rmSync(work, { recursive: true, force: true });
}

await main();
