"use strict";
/* Small SVG charts: lines with bands, points, stacked bars, heat maps. Zoom by dragging (or + and -),
   hover or arrow keys read values, legend buttons switch series. No library, no network. */
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560, HEIGHT = 300, MARGIN = { left: 62, right: 14, top: 12, bottom: 42 };

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

function html(name, attributes, parent, text) {
  const made = document.createElement(name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e3) return Math.round(value).toLocaleString("en");
  if (size >= 1e-3 || size === 0) return String(parseFloat(value.toPrecision(4)));
  return value.toExponential(2);
}

function ticks(low, high, log, count) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of Math.log10(high / low) > 2.5 ? [1] : [1, 2, 5]) {
        const t = m * Math.pow(10, e);
        if (t >= low * 0.999 && t <= high * 1.001) found.push(t);
      }
    return found.length > 2 ? found : ticks(low, high, false, count);
  }
  const raw = (high - low) / count, base = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map(m => m * base).find(s => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) found.push(Math.abs(t) < step * 1e-9 ? 0 : t);
  return found;
}

class Scale {
  constructor(low, high, from, to, log) {
    this.log = log; this.from = from; this.to = to;
    if (!(high > low)) { high = low + (log ? low : Math.abs(low) || 1); }
    this.low = low; this.high = high;
  }
  at(v) {
    const f = this.log ? Math.log(v / this.low) / Math.log(this.high / this.low) : (v - this.low) / (this.high - this.low);
    return this.from + f * (this.to - this.from);
  }
  back(p) {
    const f = (p - this.from) / (this.to - this.from);
    return this.log ? this.low * Math.pow(this.high / this.low, f) : this.low + f * (this.high - this.low);
  }
}

class Chart {
  constructor(spec, parent) {
    this.spec = spec;
    this.hidden = new Set();
    this.zoomed = null;
    this.cursor = -1;
    this.root = html("section", { class: "chart" + (spec.wide ? " wide" : ""), id: spec.id }, parent);
    html("h3", {}, this.root, spec.title);
    if (spec.help) html("p", { class: "help" }, this.root, spec.help);
    this.width = spec.wide ? 2 * WIDTH : WIDTH;
    this.height = this.heightOf();
    this.svg = element("svg", { viewBox: `0 0 ${this.width} ${this.height}`, tabindex: 0, role: "img", "aria-label": `${spec.title}. Arrow keys read values, plus and minus zoom, 0 resets.` }, this.root);
    this.tip = html("div", { class: "tip", role: "status", "aria-live": "polite" }, this.root);
    this.resetButton = html("button", { class: "reset", type: "button" }, this.root, "reset zoom");
    this.resetButton.addEventListener("click", () => this.zoom(null));
    this.legend();
    this.listen();
    this.draw();
  }
  heightOf() {
    if (this.spec.kind === "bars") return 50 + 46 * this.spec.bars.length;
    if (this.spec.kind === "heat") return Math.min(90 + 16 * this.spec.rows.length, 420);
    return this.spec.height || HEIGHT;
  }
  get series() { return this.spec.series || []; }
  get shown() { return this.series.filter(s => !this.hidden.has(s.name)); }
  legend() {
    if (this.spec.kind === "heat" || (this.series.length < 2 && this.spec.kind !== "bars")) return;
    const box = html("div", { class: "legend" }, this.root);
    for (const s of this.series) {
      const button = html("button", { type: "button", "aria-pressed": "true" }, box);
      html("span", { class: "swatch", style: `background:${s.colour}` }, button);
      button.appendChild(document.createTextNode(s.name));
      button.addEventListener("click", () => {
        this.hidden.has(s.name) ? this.hidden.delete(s.name) : this.hidden.add(s.name);
        button.setAttribute("aria-pressed", String(!this.hidden.has(s.name)));
        this.draw();
      });
    }
  }
  zoom(range) {
    this.zoomed = range;
    this.resetButton.style.display = range ? "block" : "none";
    this.tip.style.display = "none";
    this.draw();
  }
  extent(axis) {
    const log = this.spec[axis].log;
    let low = Infinity, high = -Infinity;
    const take = v => { if (v !== null && v !== undefined && (!log || v > 0)) { if (v < low) low = v; if (v > high) high = v; } };
    for (const s of this.shown) {
      for (let i = 0; i < s.x.length; i++) {
        if (axis === "y" && this.zoomed && !this.zoomed.y && (s.x[i] < this.zoomed.x[0] || s.x[i] > this.zoomed.x[1])) continue;
        take(s[axis][i]);
        if (axis === "y" && s.high) { take(s.low[i]); take(s.high[i]); }
      }
    }
    for (const m of this.spec.marks || []) take(m[axis]);
    const fixed = this.spec[axis];
    if (!log && !fixed.free) low = Math.min(low, 0);
    if (fixed.min !== undefined) low = fixed.min;
    if (fixed.max !== undefined) high = fixed.max;
    if (!isFinite(low)) { low = log ? 1 : 0; high = log ? 10 : 1; }
    if (log) return [low / 1.1, high * 1.1];
    return [low, fixed.max !== undefined ? high : high + 0.04 * (high - low)];
  }
  draw() {
    this.svg.replaceChildren();
    if (this.spec.kind === "bars") return this.drawBars();
    if (this.spec.kind === "heat") return this.drawHeat();
    const z = this.zoomed, x = z ? z.x : this.extent("x"), y = z && z.y ? z.y : this.extent("y");
    this.x = new Scale(x[0], x[1], MARGIN.left, this.width - MARGIN.right, this.spec.x.log);
    this.y = new Scale(y[0], y[1], this.height - MARGIN.bottom, MARGIN.top, this.spec.y.log);
    this.axes();
    const clip = `clip-${this.spec.id}`;
    const path = element("clipPath", { id: clip }, element("defs", {}, this.svg));
    element("rect", { x: MARGIN.left, y: MARGIN.top - 4, width: this.width - MARGIN.left - MARGIN.right, height: this.height - MARGIN.top - MARGIN.bottom + 4 }, path);
    this.plot = element("g", { "clip-path": `url(#${clip})`, class: "plot" }, this.svg);
    this.box();
    for (const s of this.shown) s.style === "points" ? this.points(s) : this.line(s);
    this.marks();
  }
  axes() {
    const left = MARGIN.left, right = this.width - MARGIN.right, bottom = this.height - MARGIN.bottom;
    for (const t of ticks(this.x.low, this.x.high, this.x.log, this.width / 90)) {
      const p = this.x.at(t);
      element("line", { class: "grid", x1: p, x2: p, y1: MARGIN.top, y2: bottom }, this.svg);
      element("text", { x: p, y: bottom + 15, "text-anchor": "middle" }, this.svg, number(t));
    }
    for (const t of ticks(this.y.low, this.y.high, this.y.log, this.height / 55)) {
      const p = this.y.at(t);
      element("line", { class: "grid", x1: left, x2: right, y1: p, y2: p }, this.svg);
      element("text", { x: left - 6, y: p + 4, "text-anchor": "end" }, this.svg, number(t));
    }
    element("path", { class: "axis", d: `M${left},${MARGIN.top}V${bottom}H${right}` }, this.svg);
    element("text", { x: (left + right) / 2, y: this.height - 8, "text-anchor": "middle" }, this.svg, this.spec.x.label);
    const middle = (MARGIN.top + bottom) / 2;
    element("text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, this.svg, this.spec.y.label);
  }
  defined(s, i) { return s.y[i] !== null && (!this.x.log || s.x[i] > 0) && (!this.y.log || s.y[i] > 0); }
  line(s) {
    if (s.high) {
      let forth = "", back = "";
      const onAxis = v => this.y.log && !(v > 0) ? this.y.low : v;
      for (let i = 0; i < s.x.length; i++) {
        forth += `${forth ? "L" : "M"}${this.x.at(s.x[i]).toFixed(1)},${this.y.at(onAxis(s.high[i])).toFixed(1)}`;
        back = `L${this.x.at(s.x[i]).toFixed(1)},${this.y.at(onAxis(s.low[i])).toFixed(1)}` + back;
      }
      element("path", { d: forth + back + "Z", fill: s.colour, opacity: 0.2 }, this.plot);
    }
    let d = "", pen = false;
    for (let i = 0; i < s.x.length; i++) {
      if (!this.defined(s, i)) { pen = false; continue; }
      d += `${pen ? "L" : "M"}${this.x.at(s.x[i]).toFixed(1)},${this.y.at(s.y[i]).toFixed(1)}`;
      pen = true;
    }
    element("path", { d, fill: "none", stroke: s.colour, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": s.dash || "none", class: "series" }, this.plot);
    if (s.x.length <= 40 && !s.dash) this.points(s, 3.2);
  }
  points(s, radius) {
    const group = element("g", { fill: s.colour, opacity: radius ? 1 : 0.65, class: "series" }, this.plot);
    for (let i = 0; i < s.x.length; i++) if (this.defined(s, i)) element("circle", { cx: this.x.at(s.x[i]).toFixed(1), cy: this.y.at(s.y[i]).toFixed(1), r: radius || s.radius || 2 }, group);
  }
  box() {
    const b = this.spec.box;
    if (!b) return;
    const right = b.x === null ? this.width - MARGIN.right : this.x.at(b.x), top = b.y === null ? MARGIN.top : this.y.at(b.y);
    element("rect", { x: MARGIN.left, y: top, width: Math.max(0, right - MARGIN.left), height: Math.max(0, this.height - MARGIN.bottom - top), fill: "var(--good)", opacity: 0.12 }, this.plot);
  }
  marks() {
    for (const m of this.spec.marks || []) {
      const along = m.x !== undefined ? { x1: this.x.at(m.x), x2: this.x.at(m.x), y1: MARGIN.top, y2: this.height - MARGIN.bottom } : { x1: MARGIN.left, x2: this.width - MARGIN.right, y1: this.y.at(m.y), y2: this.y.at(m.y) };
      element("line", { ...along, stroke: m.colour || "var(--soft)", "stroke-dasharray": "5 4" }, this.plot);
      element("text", m.x !== undefined ? this.beside(along.x1, m.low ? this.height - MARGIN.bottom - 7 : MARGIN.top + 10 + 13 * (m.row || 0)) : { x: MARGIN.left + 4, y: along.y1 - 4 }, this.plot, m.label);
    }
  }
  beside(x, y) {
    return x > 0.8 * this.width ? { x: x - 4, y, "text-anchor": "end" } : { x: x + 4, y };
  }
  drawBars() {
    const { bars, unit } = this.spec, left = 118, right = this.width - 70;
    const widths = bars.map(b => b.parts.reduce((sum, v, k) => sum + (this.hidden.has(this.series[k].name) ? 0 : v), 0));
    const scale = new Scale(0, Math.max(...widths) || 1, left, right, false);
    for (const t of ticks(0, scale.high, false, 6)) {
      element("line", { class: "grid", x1: scale.at(t), x2: scale.at(t), y1: 6, y2: this.height - 30 }, this.svg);
      element("text", { x: scale.at(t), y: this.height - 14, "text-anchor": "middle" }, this.svg, number(t));
    }
    bars.forEach((bar, row) => {
      const y = 10 + 46 * row;
      let x = 0;
      element("text", { x: left - 8, y: y + 20, "text-anchor": "end" }, this.svg, bar.name);
      bar.parts.forEach((value, k) => {
        const s = this.series[k];
        if (this.hidden.has(s.name) || !value) return;
        const rect = element("rect", { x: scale.at(x), y, width: Math.max(scale.at(x + value) - scale.at(x), 0.3), height: 30, fill: s.colour, class: "series" }, this.svg);
        const share = `${(100 * value / widths[row]).toFixed(1)} %`;
        element("title", {}, rect, `${s.name}: ${number(value)} ${unit} (${share})`);
        rect.addEventListener("mousemove", e => this.say(`${bar.name}, ${s.name}\n${number(value)} ${unit}, ${share}`, e));
        x += value;
      });
      element("text", { x: scale.at(x) + 6, y: y + 20 }, this.svg, (this.spec.totals || [])[row] || `${number(widths[row])} ${unit}`);
    });
  }
  drawHeat() {
    const { rows, values, counts, xlabel, unit, max } = this.spec, left = 118, right = this.width - MARGIN.right;
    const top = 8, bottom = this.height - 40, h = (bottom - top) / rows.length;
    if (counts.every(n => n === counts[0])) for (const t of ticks(0, counts[0], false, 8)) {
      if (t < counts[0]) element("text", { x: left + (right - left) * (t + 0.5) / counts[0], y: bottom + 13, "text-anchor": "middle" }, this.svg, number(t));
    }
    rows.forEach((name, r) => {
      const k = values[r].length, w = (right - left) / k, each = Math.floor(counts[r] / k), more = counts[r] % k;
      const span = c => { const a = c * each + Math.min(c, more), b = a + each - (c < more ? 0 : 1); return b > a ? `${a} to ${b}, most` : `${a}`; };
      if (rows.length <= 40 || r % 10 === 0) element("text", { x: left - 8, y: top + h * (r + 0.5) + 4, "text-anchor": "end" }, this.svg, name);
      values[r].forEach((v, c) => {
        const share = Math.min(v / max, 1);
        const rect = element("rect", { x: left + w * c, y: top + h * r, width: w + 0.3, height: rows.length > 20 ? h + 0.3 : h - 1, "shape-rendering": "crispEdges", fill: `hsl(${28 - 16 * share} 92% ${93 - 60 * share}%)`, class: "series" }, this.svg);
        rect.addEventListener("mousemove", e => this.say(`${name}, ${span(c)}\n${number(v)} ${unit}`, e));
      });
    });
    element("text", { x: (left + right) / 2, y: this.height - 10, "text-anchor": "middle" }, this.svg, `${xlabel}; darkest: ${number(max)} ${unit}${values.some(row => row.some(v => v > 1.001 * max)) ? " or more" : ""}`);
  }
  place(event) {
    const r = this.svg.getBoundingClientRect();
    return [(event.clientX - r.left) * this.width / r.width, (event.clientY - r.top) * this.height / r.height];
  }
  listen() {
    this.svg.addEventListener("mouseleave", () => { this.tip.style.display = "none"; });
    this.svg.addEventListener("keydown", e => this.key(e));
    if (this.spec.kind === "bars" || this.spec.kind === "heat") return;
    let start = null, shade = null;
    this.svg.addEventListener("pointerdown", e => { start = this.place(e); this.svg.setPointerCapture(e.pointerId); });
    this.svg.addEventListener("pointermove", e => {
      const p = this.place(e);
      if (!start) return this.hover(p, e);
      if (!shade) shade = element("rect", { class: "drag" }, this.svg);
      const both = this.spec.kind === "scatter";
      const area = { x: Math.min(p[0], start[0]), width: Math.abs(p[0] - start[0]), y: both ? Math.min(p[1], start[1]) : MARGIN.top, height: both ? Math.abs(p[1] - start[1]) : this.height - MARGIN.top - MARGIN.bottom };
      for (const key in area) shade.setAttribute(key, area[key]);
    });
    this.svg.addEventListener("pointerup", e => {
      const p = this.place(e), from = start;
      start = null; shade = null;
      if (!from || Math.abs(p[0] - from[0]) < 6) return this.draw();
      const sorted = (a, b) => a < b ? [a, b] : [b, a];
      const range = { x: sorted(this.x.back(from[0]), this.x.back(p[0])) };
      if (this.spec.kind === "scatter" && Math.abs(p[1] - from[1]) > 6) range.y = sorted(this.y.back(from[1]), this.y.back(p[1]));
      this.zoom(range);
    });
    this.svg.addEventListener("dblclick", () => this.zoom(null));
  }
  hover(p, event) {
    let best = null, least = 900;
    for (const s of this.shown) for (let i = 0; i < s.x.length; i++) {
      if (!this.defined(s, i)) continue;
      const dx = this.x.at(s.x[i]) - p[0], dy = (this.y.at(s.y[i]) - p[1]) * (this.spec.kind === "scatter" ? 1 : 0.3), d = dx * dx + dy * dy;
      if (d < least) { least = d; best = [s, i]; }
    }
    if (!best) { this.tip.style.display = "none"; return; }
    this.say(this.words(best[0], best[1]), event);
  }
  words(s, i) {
    const range = s.high && s.high[i] > s.low[i] ? ` (${number(s.low[i])} to ${number(s.high[i])})` : "";
    return `${s.name}${s.text ? ": " + s.text[i] : ""}\n${this.spec.x.label}: ${number(s.x[i])}\n${this.spec.y.label}: ${number(s.y[i])}${range}`;
  }
  say(text, event) {
    this.tip.textContent = text;
    this.tip.style.display = "block";
    const r = this.root.getBoundingClientRect();
    const x = event ? event.clientX - r.left : 80, y = event ? event.clientY - r.top : 60;
    this.tip.style.left = Math.max(4, x > r.width / 2 ? x - this.tip.offsetWidth - 12 : x + 14) + "px";
    this.tip.style.top = y + 14 + "px";
  }
  key(e) {
    if (this.spec.kind === "bars" || this.spec.kind === "heat" || !this.shown.length) return;
    const s = this.shown[0];
    if (e.key === "ArrowRight" || e.key === "ArrowLeft") {
      this.cursor = Math.max(0, Math.min(s.x.length - 1, this.cursor + (e.key === "ArrowRight" ? 1 : -1)));
      this.say(this.shown.map(t => this.words(t, Math.min(this.cursor, t.x.length - 1))).join("\n\n"));
    } else if (e.key === "+" || e.key === "-") {
      const from = MARGIN.left, to = this.width - MARGIN.right, grow = (e.key === "+" ? -0.15 : 0.3) * (to - from);
      this.zoom({ x: [this.x.back(from - grow), this.x.back(to + grow)] });
    } else if (e.key === "0" || e.key === "Escape") this.zoom(null);
    else return;
    e.preventDefault();
  }
}
