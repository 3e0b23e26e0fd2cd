// Asks the server once a second how it is, and draws it.
"use strict";

const KEPT = 180; // seconds in the charts
const history = [];

const whole = (value) => Math.round(value).toLocaleString();
const duration = (seconds) => (seconds < 3600
  ? `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`
  : `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h ${Math.floor(seconds / 60) % 60} min`);
const perSecond = (now, before, name) => (
  before ? Math.max(0, now.stats[name] - before.stats[name]) / (now.uptime - before.uptime) : 0);
const mean = (now, before, sum, count) => {
  const events = before ? now.totals[count] - before.totals[count] : 0;
  return events > 0 ? 1000 * (now.totals[sum] - before.totals[sum]) / events : null;
};

function tiles(now, before) {
  const { stats } = now;
  const asked = stats.prefix_cache_queries;
  const host = before && stats.num_steps > before.stats.num_steps
    ? (stats.host_seconds - before.stats.host_seconds) / (stats.step_seconds - before.stats.step_seconds) : null;
  const shown = [
    [whole(perSecond(now, before, "generation_tokens")), "tokens per second"],
    [whole(stats.num_running), `running of ${now.model.max_num_seqs}`],
    [whole(stats.num_waiting), "waiting"],
    [stats.num_pages ? `${whole(100 * (1 - stats.num_free_pages / stats.num_pages))} %` : "–", "of the cache in use"],
    [asked ? `${whole(100 * stats.prefix_cache_hits / asked)} %` : "–", "of prompts found cached"],
    [host === null ? "–" : `${whole(100 * host)} %`, "of a step is the host's"],
    [whole(stats.num_preemptions), "preemptions"],
    [whole(stats.num_compiles_after_warmup), "unexpected compiles"],
  ];
  $("tiles").replaceChildren(...shown.map(([value, name]) => {
    const tile = make("div", "card tile");
    tile.append(make("b", "", value), make("span", "", name));
    return tile;
  }));
}

// Each line has a scale of its own, for what matters is how it moves; above it is its highest point.
function chart(svg, first, second) {
  svg.setAttribute("viewBox", `0 0 ${KEPT} 100`);
  const highest = (values) => Math.max(0, ...values.filter((value) => value !== null));
  const line = (values, className) => {
    const top = Math.max(1e-9, highest(values)) * 1.02;
    let path = "", pen = "M";
    values.forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${KEPT - values.length + i} ${100 - 100 * value / top}`;
      pen = "L";
    });
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("d", path);
    if (className) element.setAttribute("class", className);
    return element;
  };
  const ground = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of [["x1", 0], ["x2", KEPT], ["y1", 99.5], ["y2", 99.5]]) ground.setAttribute(name, value);
  svg.replaceChildren(ground, line(second, "second"), line(first, ""));
  const digits = (value) => value.toLocaleString(undefined, { maximumFractionDigits: value < 100 ? 1 : 0 });
  const peak = (values, what) => make("span", "", highest(values) ? `${what} ${digits(highest(values))}` : "");
  svg.previousElementSibling.replaceChildren(peak(first, "peak"), peak(second, "dashed: peak"));
}

function charts() {
  const pairs = history.map((now, i) => [now, history[i - 1]]);
  const rate = (name) => pairs.map(([now, before]) => perSecond(now, before, name));
  const generated = rate("generation_tokens"), prompt = rate("prompt_tokens");
  const gap = pairs.map(([n, b]) => mean(n, b, "gap_seconds", "gaps"));
  const first = pairs.map(([n, b]) => mean(n, b, "first_token_seconds", "first_tokens"));
  chart($("throughput"), generated, prompt);
  chart($("latency"), gap, first);
  for (const [id, values, digits] of [["generated", generated, 0], ["prompt", prompt, 0], ["gap", gap, 1], ["first", first, 0]]) {
    const value = values.findLast((each) => each !== null);
    $(id).textContent = value === undefined ? "–" : value.toLocaleString(undefined, { maximumFractionDigits: digits });
  }
}

const KINDS = [["owned", "--used"], ["shared", "--shared"], ["idle", "--idle"], ["free", "--line"]];
const SQUARE = 11; // pixels; smaller where there are more squares than fit

// One square a page, or one for as many as the server put together: then the kinds are layers.
function pages({ pages: map, model }) {
  $("cache").hidden = !model.num_pages;
  if (!map) return;
  const { num_pages: total, pages_per_cell: each } = map;
  const size = (cell) => Math.min(each, total - cell * each);
  const free = map.owned.map((_, cell) => size(cell) - map.owned[cell] - map.shared[cell] - map.idle[cell]);
  const layers = { ...map, free };
  const sums = KINDS.map(([kind]) => layers[kind].reduce((sum, count) => sum + count, 0));
  KINDS.forEach(([kind], i) => { $(`${kind}-pages`).textContent = whole(sums[i]); });
  $("cache-size").textContent = `${whole(total)} pages of ${model.page_size} tokens`
    + (each > 1 ? `, a square is ${each} pages` : "");
  $("pages").setAttribute("aria-label", `Of ${total} pages of the cache `
    + `${sums[0]} are in use, ${sums[1]} are shared, ${sums[2]} are cached, ${sums[3]} are free`);
  paint($("pages"), layers, size);
}

function paint(canvas, layers, size) {
  const cells = layers.owned.length, ratio = devicePixelRatio;
  const columns = Math.max(16, Math.floor(canvas.clientWidth / SQUARE));
  const side = canvas.clientWidth * ratio / columns, gap = 1.5 * ratio;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = Math.ceil(cells / columns) * side;
  const style = getComputedStyle(document.documentElement);
  const colours = KINDS.map(([, name]) => style.getPropertyValue(name));
  const draw = canvas.getContext("2d");
  for (let cell = 0; cell < cells; cell++) {
    const x = (cell % columns) * side;
    let y = (Math.floor(cell / columns) + 1) * side - gap; // from the bottom up
    KINDS.forEach(([kind], i) => {
      const height = (side - gap) * layers[kind][cell] / size(cell);
      draw.fillStyle = colours[i];
      draw.fillRect(x, y - height, side - gap, height);
      y -= height;
    });
  }
}

const SHOWN = 200; // requests; more are counted

// Rows stay while their requests do, and so does the keyboard's focus on their buttons.
function requests(now) {
  const body = $("requests");
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const wanted = now.requests.slice(0, SHOWN).map((request) => {
    const row = rows.get(request.id) || requestRow(request.id);
    const values = [request.prompt_tokens, request.generated_tokens].map(whole);
    [...values, request.seconds.toFixed(1)].forEach((text, i) => { row.cells[i + 1].textContent = text; });
    return row;
  });
  const beyond = now.requests.length - wanted.length;
  if (!wanted.length || beyond) wanted.push(noteRow(beyond ? `And ${whole(beyond)} more.` : "None right now."));
  const focused = document.activeElement?.closest("#requests tr");
  const place = focused ? focused.sectionRowIndex : 0;
  for (const row of [...body.rows]) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, i) => { if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] || null); });
  if (focused && !focused.isConnected) { // the next one's button, or the heading of them all
    (body.rows[Math.min(place, body.rows.length - 1)].querySelector("button") || $("requests-title")).focus();
  }
}

function requestRow(id) {
  const row = make("tr"), cell = make("td"), stop = make("button", "", "Abort");
  row.dataset.id = id;
  stop.setAttribute("aria-label", `Abort ${id}`);
  stop.addEventListener("click", async () => {
    if (stop.getAttribute("aria-disabled")) return; // a disabled button would lose the focus
    stop.setAttribute("aria-disabled", "true");
    try {
      await ask("/admin/abort", { method: "POST", body: JSON.stringify({ id }) });
      $("said").textContent = `${id} was aborted.`;
    } catch (error) {
      $("said").textContent = error.message;
      stop.removeAttribute("aria-disabled");
    }
  });
  cell.append(stop);
  const name = make("td", "", id);
  name.title = id; // whole, where there is room for its beginning only
  row.append(name, make("td", "n"), make("td", "n"), make("td", "n"), cell);
  return row;
}

function noteRow(text) {
  const row = make("tr"), cell = make("td", "soft", text);
  cell.colSpan = 5;
  row.append(cell);
  return row;
}

function facts(now) {
  const { model, stats } = now;
  const rows = {
    Model: `${now.names[0]} (${model.architecture})`,
    Parameters: whole(model.num_parameters),
    Context: `${whole(model.max_model_len)} tokens`,
    Device: `${model.num_devices} × ${model.device}, ${model.dtype}`,
    Attention: model.attention_backend,
    Start: `load ${model.load_seconds.toFixed(1)} s, compile ${model.compile_seconds.toFixed(1)} s`,
    Steps: whole(stats.num_steps),
    "Padding in steps": stats.padded_tokens ? `${whole(100 * (1 - stats.scheduled_tokens / stats.padded_tokens))} %` : "–",
    Uptime: duration(now.uptime),
    Version: now.version,
  };
  $("facts").replaceChildren(...Object.entries(rows).map(([name, value]) => {
    const row = make("tr");
    row.append(make("td", "soft", name), make("td", "", value));
    return row;
  }));
}

function log(lines) {
  const atEnd = $("log").scrollTop + $("log").clientHeight >= $("log").scrollHeight - 4;
  $("log").textContent = lines.join("\n") || "Nothing was logged.";
  if (atEnd) $("log").scrollTop = $("log").scrollHeight;
}

async function look() {
  try {
    const now = await (await ask("/admin/state")).json();
    const before = history.at(-1);
    if (before && now.uptime < before.uptime) history.length = 0; // the server was started anew
    history.push(now);
    if (history.length > KEPT) history.shift();
    $("ask").hidden = true;
    $("dot").classList.toggle("ready", now.state === "ready");
    $("state").textContent = `${now.names[0]}: ${now.state}`;
    tiles(now, before); charts(); pages(now); requests(now); facts(now); log(now.log);
  } catch (error) {
    $("dot").classList.remove("ready");
    $("state").textContent = error.message;
    $("ask").hidden = !/key/i.test(error.message);
  }
}

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value);
  look();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (history.length) pages(history.at(-1)); // a canvas keeps the colours that it was drawn in
});
look();
setInterval(() => { if (!document.hidden) look(); }, 1000);
