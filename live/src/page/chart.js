// The stacked chart: a band for each instance, their sum, and marks for joins, expiries and returns.

const NS = "http://www.w3.org/2000/svg";
const LANES = 3;
const LANE = 17;
const MARGIN = { top: LANES * LANE + 8, right: 84, bottom: 24, left: 48 };

export const KINDS = {
  joined: { icon: "+", text: "joined" },
  left: { icon: "→", text: "left" },
  expired: { icon: "✕", text: "expired" },
  returned: { icon: "↺", text: "returned" },
  restarted: { icon: "↻", text: "restarted" },
};

export const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
export const time = (ms) => clock.format(ms);
const short = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

function node(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The least of 1, 2, 5, 10, ... times a power of ten that gives at most four steps to `most`. */
function niceStep(most) {
  const rough = Math.max(most, 4) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}

/** Stretches of samples without one that got no answer. */
function runs(samples) {
  const found = [];
  let run = [];
  for (const sample of samples) {
    if (sample.total !== null) run.push(sample);
    else if (run.length) found.push(run), (run = []);
  }
  if (run.length) found.push(run);
  return found;
}

/** How far back the chart reaches, and what is where. */
export function scales(svg, { samples, windowMs }) {
  const { width, height } = svg.getBoundingClientRect();
  const now = samples.at(-1).at_ms;
  // A short history does not shrink to a corner.
  const from = Math.max(now - windowMs, Math.min(samples[0].at_ms, now - 30_000));
  const step = niceStep(Math.max(...samples.map((sample) => sample.total ?? 0)));
  const most = Math.max(...samples.map((sample) => sample.total ?? 0), 1);
  const top = Math.ceil(most / step) * step;
  const [left, right] = [MARGIN.left, Math.max(width - MARGIN.right, MARGIN.left + 10)];
  const [floor, ceiling] = [height - MARGIN.bottom, MARGIN.top];
  const x = (ms) => left + ((ms - from) / (now - from)) * (right - left);
  const y = (value) => floor - (Math.max(value, 0) / top) * (floor - ceiling);
  const at = (px) => from + ((px - left) / (right - left)) * (now - from);
  return { width, height, from, now, step, top, left, right, floor, ceiling, x, y, at };
}

/** Draws `samples`, with the bands in the order of `series`, into `svg`; keeps its title and text. */
export function draw(svg, chart) {
  const kept = svg.querySelectorAll(":scope > title, :scope > desc");
  const to = scales(svg, chart);
  svg.setAttribute("viewBox", `0 0 ${to.width} ${to.height}`);
  svg.replaceChildren(...kept, ...axes(to), ...bands(to, chart), ...marks(to, chart.samples), ...hover(to, chart));
}

function axes(to) {
  const drawn = [];
  for (let value = 0; value <= to.top; value += to.step) {
    const y = to.y(value);
    drawn.push(node("line", { class: value ? "grid" : "axis", x1: to.left, x2: to.right, y1: y, y2: y }));
    drawn.push(node("text", { x: to.left - 8, y: y + 4, "text-anchor": "end" }, number.format(value)));
  }
  const seconds = [10, 15, 30, 60].find((step) => (to.now - to.from) / 1000 / step <= 8) ?? 120;
  const first = Math.ceil(to.from / 1000 / seconds) * seconds * 1000;
  for (let ms = first; ms <= to.now; ms += seconds * 1000) {
    drawn.push(node("text", { x: to.x(ms), y: to.floor + 18, "text-anchor": "middle" }, time(ms)));
  }
  return drawn;
}

function bands(to, { samples, series }) {
  const areas = [];
  const sums = [];
  const labels = [];
  for (const run of runs(samples)) {
    const base = run.map(() => 0);
    for (const { name, color } of series) {
      const values = run.map((sample) => Math.max(sample.slices[name] ?? 0, 0));
      const above = base.map((value, i) => value + values[i]);
      // Each polygon starts at the sample before a stretch with connections and ends at the one after.
      for (let from = 0; from < run.length; from += 1) {
        if (values[from] === 0) continue;
        let until = from;
        while (until + 1 < run.length && values[until + 1] > 0) until += 1;
        const [first, last] = [Math.max(from - 1, 0), Math.min(until + 1, run.length - 1)];
        const indexes = Array.from({ length: last - first + 1 }, (_, i) => first + i);
        const point = (values) => (i) => `${to.x(run[i].at_ms).toFixed(1)},${to.y(values[i]).toFixed(1)}`;
        const points = [...indexes.map(point(above)), ...indexes.reverse().map(point(base))];
        areas.push(node("polygon", { class: `band s${color}`, points: points.join(" "), "data-instance": name }));
        from = until;
      }
      const end = run.length - 1;
      if (run[end] === samples.at(-1) && to.y(base[end]) - to.y(above[end]) >= 12) {
        const y = (to.y(base[end]) + to.y(above[end])) / 2 + 4;
        labels.push(node("text", { class: "label", x: to.right + 8, y }, short(name, 10)));
      }
      above.forEach((value, i) => (base[i] = value));
    }
    const points = run.map((sample, i) => `${to.x(sample.at_ms).toFixed(1)},${to.y(base[i]).toFixed(1)}`);
    sums.push(node("polyline", { class: "sum", points: points.join(" ") }));
  }
  return [...gaps(to, samples), ...areas, ...sums, ...labels];
}

/** Where the store did not answer. */
function gaps(to, samples) {
  const drawn = [];
  samples.forEach((sample, i) => {
    if (sample.total !== null) return;
    const x = to.x(samples[Math.max(i - 1, 0)].at_ms);
    const end = to.x(sample.at_ms);
    drawn.push(node("rect", { class: "gap", x, y: to.ceiling, width: Math.max(end - x, 1), height: to.floor - to.ceiling }));
  });
  return drawn;
}

/** Marks, with their labels in lanes so that labels of close events do not overlap. */
function marks(to, samples) {
  const ends = Array(LANES).fill(-Infinity);
  return samples.filter(({ at_ms }) => at_ms >= to.from).flatMap(({ at_ms, events }) =>
    events.map(({ kind, instance }) => {
      const { icon, text } = KINDS[kind];
      const label = `${short(instance, 14)} ${text}`;
      const x = to.x(at_ms);
      const width = 24 + label.length * 6.8;
      const flipped = x + width > to.width - 4;
      const from = flipped ? x - width : x;
      const free = ends.findIndex((end) => end < from);
      const lane = free === -1 ? ends.indexOf(Math.min(...ends)) : free;
      ends[lane] = from + width;
      const y = (lane + 1) * LANE;
      const mark = node("g", { class: `mark ${kind}`, "data-event": kind, "data-instance": instance });
      const words = node("text", { x: flipped ? x - 5 : x + 5, y: y - 3, "text-anchor": flipped ? "end" : "start" });
      words.append(node("tspan", { class: "icon" }, icon), ` ${label}`);
      mark.append(
        node("title", {}, `${instance} ${text} at ${time(at_ms)}`),
        node("line", { x1: x, x2: x, y1: y - LANE + 4, y2: to.floor }),
        words,
      );
      return mark;
    }),
  );
}

function hover(to, { hovered }) {
  if (!hovered) return [];
  const x = to.x(hovered.at_ms);
  return [node("line", { class: "hover", x1: x, x2: x, y1: to.ceiling, y2: to.floor })];
}
