// Follows the event stream of the process that served this page, and shows what it sends.

import { KINDS, draw, number, scales, time } from "./chart.js";

const COLORS = 7; // Colors of the palette. Further instances share a grey one.
const by = (id) => document.getElementById(id);
const svg = by("chart");

let about = null;
let samples = [];
let events = [];
let hoveredMs = null;
let heardAt = 0;
const colors = new Map();

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function connect() {
  const stream = new EventSource("/events");
  stream.onmessage = ({ data }) => take(JSON.parse(data));
  stream.onerror = () => {
    status("lost", `${about?.name ?? "the process"} does not answer; trying again`);
    // The browser reconnects by itself, except after an answer that is no event stream.
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 1000);
  };
}

function take(update) {
  heardAt = performance.now();
  if (update.about) {
    about = update.about;
    samples = [];
    events = [];
    colors.clear();
    by("log").replaceChildren();
    for (const part of ["name", "store", "prefix"]) by(part).textContent = about[part];
    by("lease").textContent = `${about.lease_ms / 1000} s`;
  }
  samples.push(...update.samples);
  const now = samples.at(-1)?.at_ms ?? 0;
  samples = samples.filter(({ at_ms }) => at_ms >= now - about.window_ms);
  for (const { at_ms, events: fresh } of update.samples) {
    for (const event of fresh) log({ at_ms, ...event });
  }
  events = events.filter(({ at_ms }) => at_ms >= now - about.window_ms);
  show();
}

function log(event) {
  events.push(event);
  const { icon, text } = KINDS[event.kind];
  const line = element("li", event.kind);
  line.dataset.event = event.kind;
  line.dataset.instance = event.instance;
  const sign = element("span", "icon", icon);
  sign.ariaHidden = "true";
  const words = { expired: `${text}: it is counted no longer`, left: `${text} in good order` };
  line.append(element("time", "", time(event.at_ms)), sign, `${event.instance} ${words[event.kind] ?? text}`);
  by("log").prepend(line);
  while (by("log").children.length > 100) by("log").lastChild.remove();
}

function show() {
  by("quiet").hidden = events.length > 0;
  const last = samples.at(-1);
  if (!last) return status("connecting", "waiting for the first poll");
  if (last.total === null) status("unreachable", `the store is unreachable: ${last.error}`);
  else status("live", "live");
  // During an outage: the last numbers before it.
  const known = samples.findLast(({ total }) => total !== null);
  by("total").classList.toggle("stale", last.total === null);
  by("total").textContent = known ? number.format(known.total) : "–";
  document.title = known ? `${number.format(known.total)} open connections` : "Open connections";
  if (!known) return;
  const living = Object.keys(known.slices);
  by("living").textContent = `in ${living.length} living instance${living.length === 1 ? "" : "s"}`;
  const series = seriesOf(samples);
  by("instances").replaceChildren(...series.map((one) => card(one, known, last.at_ms)));
  by("chart-text").textContent =
    `${known.total} now: ${living.map((name) => `${name} ${known.slices[name]}`).join(", ")}.`;
  draw(svg, chart());
  tip();
}

/** All instances of the window, in the order in which they were first seen, each with a color that it keeps. */
function seriesOf(samples) {
  const names = new Set(samples.flatMap(({ slices }) => Object.keys(slices)));
  for (const name of colors.keys()) if (!names.has(name)) colors.delete(name);
  for (const name of names) {
    if (colors.has(name)) continue;
    const taken = new Set(colors.values());
    const free = Array.from({ length: COLORS }, (_, color) => color).find((color) => !taken.has(color));
    colors.set(name, free ?? COLORS);
  }
  return [...colors].map(([name, color]) => ({ name, color }));
}

function chart() {
  const nearest = (best, sample) =>
    Math.abs(sample.at_ms - hoveredMs) < Math.abs(best.at_ms - hoveredMs) ? sample : best;
  const hovered = hoveredMs === null ? null : samples.reduce(nearest);
  return { samples, series: seriesOf(samples), windowMs: about.window_ms, hovered };
}

function card({ name, color }, known, now) {
  const value = known.slices[name];
  const gone = value === undefined && events.findLast(({ instance }) => instance === name);
  const made = element("li", gone ? `gone ${gone.kind}` : "");
  made.dataset.instance = name;
  const label = element("span", "name", name);
  label.title = name;
  const state = gone
    ? `${KINDS[gone.kind].text} ${Math.round((now - gone.at_ms) / 1000)} s ago`
    : name === about.name ? "this instance" : "living";
  made.append(
    element("span", `swatch s${color}`),
    label,
    element("span", "value", value === undefined ? "–" : number.format(value)),
    element("span", "state", state),
  );
  return made;
}

function status(state, text) {
  const shown = by("status");
  // Only changes: screen readers announce each assignment.
  if (shown.textContent !== text) shown.textContent = text;
  shown.dataset.state = state;
  for (const button of [by("open"), by("close")]) button.disabled = state !== "live";
}

function tip() {
  const box = by("tip");
  const { hovered, series } = chart();
  box.hidden = !hovered;
  if (!hovered) return;
  const row = (color, name, value) => {
    const made = element("div");
    made.append(element("span", color === null ? "" : `swatch s${color}`), element("span", "", name), element("span", "", value));
    return made;
  };
  const there = series.filter(({ name }) => name in hovered.slices).reverse();
  box.replaceChildren(
    row(null, time(hovered.at_ms), hovered.total === null ? "no answer" : number.format(hovered.total)),
    ...there.map(({ name, color }) => row(color, name, number.format(hovered.slices[name]))),
  );
  const to = scales(svg, chart());
  const x = to.x(hovered.at_ms) + 8;
  box.style.left = `${x > to.width / 2 ? x - box.offsetWidth - 14 : x + 14}px`;
}

async function change(method) {
  const problem = by("problem");
  try {
    const answer = await fetch("/connections?n=10", { method });
    problem.hidden = answer.ok;
    if (!answer.ok) problem.textContent = (await answer.json()).error;
  } catch (error) {
    problem.textContent = `not done: ${error.message}`;
    problem.hidden = false;
  }
}

by("open").onclick = () => change("POST");
by("close").onclick = () => change("DELETE");
svg.onpointermove = ({ clientX }) => {
  if (samples.length < 2) return;
  hoveredMs = scales(svg, chart()).at(clientX - svg.getBoundingClientRect().left);
  show();
};
svg.onpointerleave = () => {
  hoveredMs = null;
  if (samples.length) show();
};
new ResizeObserver(() => samples.length && show()).observe(svg);
// A process that hangs keeps its stream open but sends nothing.
setInterval(() => {
  const silent = performance.now() - heardAt;
  if (about && by("status").dataset.state === "live" && silent > 3 * about.poll_ms + 3000) {
    status("lost", `no news from ${about.name}`);
  }
}, 1000);
connect();
