"use strict";
/* Builds the page from the JSON in #data: figures, charts, tables, the request explorer. */
const DATA = JSON.parse(document.getElementById("data").textContent);
const MAIN = document.querySelector("main");

function section(id, title, help) {
  const made = html("section", { id }, MAIN);
  html("h2", {}, made, title);
  if (help) html("p", { class: "help" }, made, help);
  html("a", { href: "#" + id }, document.querySelector("nav"), title);
  return made;
}

function figures() {
  const cards = html("div", { class: "cards" }, section("figures", "Headline figures", DATA.figures_help));
  for (const f of DATA.figures) {
    const card = html("div", { class: "card" }, cards);
    html("div", { class: "name" }, card, f.name);
    const value = html("div", { class: "value" }, card, number(f.value) + " ");
    if (f.value !== null) html("span", { class: "unit" }, value, f.unit);
    if (f.low !== null && f.low !== undefined) html("div", { class: "range" }, card, `95 %: ${number(f.low)} to ${number(f.high)}`);
    if (f.note) html("div", { class: "range" }, card, f.note);
  }
}

function notes() {
  if (!DATA.notes.length) return;
  const list = html("ul", { class: "notes" }, MAIN);
  for (const note of DATA.notes) html("li", note.grave ? { class: "grave" } : {}, list, note.text);
}

function charts() {
  for (const group of DATA.charts) {
    const grid = html("div", { class: "charts" }, section(group.id, group.title, group.help));
    for (const spec of group.charts) new Chart(spec, grid);
  }
}

/* A table whose heads sort: numbers as numbers, missing last; rows beyond `printed` stay off paper. */
function table(spec, parent, onPick) {
  const box = html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": spec.title }, parent);
  const made = html("table", { id: spec.id }, box), head = html("tr", {}, html("thead", {}, made)), body = html("tbody", {}, made);
  const rows = spec.rows.map(cells => {
    const row = html("tr", onPick ? { class: "pick", tabindex: 0, "aria-selected": "false" } : {});
    cells.forEach((cell, c) => html("td", typeof cell === "string" ? { class: "text" } : {}, row, number(cell)));
    if (onPick) {
      row.addEventListener("click", () => onPick(cells, row));
      row.addEventListener("keydown", e => {
        if (e.key === "Enter" || e.key === " ") { e.preventDefault(); onPick(cells, row); }
        const next = e.key === "ArrowDown" ? row.nextElementSibling : e.key === "ArrowUp" ? row.previousElementSibling : null;
        if (next) { e.preventDefault(); next.focus(); onPick(next.cells_, next); }
      });
    }
    row.cells_ = cells;
    return row;
  });
  function fill() {
    rows.forEach((row, i) => { row.classList.toggle("later", i >= 40); body.appendChild(row); });
  }
  spec.columns.forEach((name, c) => {
    const th = html("th", { scope: "col", "aria-sort": "none" }, head), button = html("button", { type: "button" }, th, name);
    if (spec.rows.length && typeof spec.rows[0][c] === "string") th.classList.add("text");
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") !== "descending";
      for (const other of head.children) other.setAttribute("aria-sort", "none");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => {
        const u = a.cells_[c], v = b.cells_[c];
        if (u === null || v === null) return (u === null) - (v === null);
        const d = typeof u === "number" && typeof v === "number" ? u - v : String(u).localeCompare(String(v), "en", { numeric: true });
        return down ? -d : d;
      };
      rows.sort(order);
      fill();
    });
  });
  fill();
  return rows;
}

function tables() {
  for (const spec of DATA.tables) table(spec, section("section-" + spec.id, spec.title, spec.help));
}

function explorer() {
  const e = DATA.explorer;
  if (!e) return;
  const grid = html("div", { class: "explorer" }, section("requests", "Slowest requests", e.help));
  const left = html("div", {}, grid), detail = html("div", { class: "detail", "aria-live": "polite", id: "detail" }, grid);
  const byId = new Map(e.parts.map(p => [p.id, p.seconds]));
  function show(cells, row) {
    for (const other of left.querySelectorAll("tr[aria-selected='true']")) other.setAttribute("aria-selected", "false");
    row.setAttribute("aria-selected", "true");
    const seconds = byId.get(cells[0]), total = seconds.reduce((a, b) => a + b, 0);
    detail.replaceChildren();
    html("h3", {}, detail, `Request ${cells[0]}: where its ${number(total)} s went`);
    const bar = html("div", { class: "bar" }, detail), list = html("dl", {}, detail);
    seconds.forEach((s, k) => {
      if (!s) return;
      html("span", { style: `background:${e.colours[k]};width:${100 * s / total}%`, title: `${e.names[k]}: ${number(s)} s` }, bar);
      html("dt", {}, list).append(html("span", { class: "swatch", style: `background:${e.colours[k]}` }), " " + e.names[k]);
      html("dd", {}, list, `${number(s)} s`);
      html("dd", {}, list, `${(100 * s / total).toFixed(1)} %`);
    });
    html("p", { class: "help" }, detail, `simpod trace-view RESULT -o slow.json.gz --request ${cells[0]} shows it in Perfetto.`);
  }
  const rows = table({ id: "slowest", title: "Slowest requests", columns: e.columns, rows: e.rows }, left, show);
  if (rows.length) show(rows[0].cells_, rows[0]);
}

function provenance() {
  const part = section("provenance", "Provenance");
  const made = html("table", {}, html("div", { class: "scroll" }, part));
  for (const [key, value] of DATA.provenance) {
    const row = html("tr", {}, made);
    html("td", {}, row, key);
    html("td", { class: "text" }, row, value);
  }
  if (!DATA.experiment) return;
  const more = html("details", {}, part);
  html("summary", {}, more, "What was asked for, in full");
  html("pre", {}, more, DATA.experiment);
}

function theme() {
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  const set = dark => document.documentElement.setAttribute("data-theme", dark ? "dark" : "light");
  set(wanted.matches);
  wanted.addEventListener("change", e => set(e.matches));
  document.getElementById("theme").addEventListener("click", () => set(document.documentElement.getAttribute("data-theme") !== "dark"));
}

theme();
notes();
figures();
charts();
tables();
explorer();
provenance();
document.body.setAttribute("data-ready", "yes");
