// The live page: reads the lists of /boxyard/v1 and reads them again when an event says that they have changed.
// Everything that comes from outside (a container's name is anybody's text) goes into the page as text, never as HTML.

const ROWS = 200;
const SOON_MS = 120;
const BUILDING_MS = 2000;
const MOVING_MS = 500;
const PROCESSES_MS = 5000;
const EVERYTHING_MS = 15000;
const AGAIN_MS = 1000;

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ---- words

const short = (id) => (id ?? "").replace(/^sha256:/, "").slice(0, 12);

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1000;
    unit += 1;
  }
  return `${count.toFixed(unit === 0 || count >= 100 ? 0 : 1)} ${units[unit]}`;
}

function span(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  const days = Math.floor(seconds / 86400);
  return days === 1 ? "1 day" : `${days} days`;
}

const since = (time) => (Date.now() - Date.parse(time)) / 1000;

function ago(time) {
  if (time === null) return "–";
  const seconds = since(time);
  return seconds < 1 ? "now" : `${span(seconds).replace(/ \d+ s$/, "").replace(/ \d+ min$/, "")} ago`;
}

const exact = (time) => (time === null ? "" : new Date(time).toLocaleString());

// ---- cells: {text, more?, title?, tone?, kind?}

const TONES = {
  running: "good", alive: "good", done: "good",
  waiting: "busy", restarting: "busy", removing: "busy", paused: "busy",
  failed: "bad", dead: "bad", gone: "bad",
};

const badge = (word, tone = TONES[word] ?? "idle") => ({ text: word, tone });
const main = (text, more) => ({ text, more, kind: "main" });
const close = (text, title) => ({ text, title, kind: "close" });
const code = (text, title) => ({ text, title, kind: "close code" });

function containerState(container) {
  if (container.state === "exited" && container.exit_code !== 0) return badge("exited", "bad");
  return badge(container.state);
}

function containerTime(container) {
  if (container.state === "running" || container.state === "paused") return span(since(container.started_at));
  if (container.state === "exited") return `code ${container.exit_code}, ${ago(container.finished_at)}`;
  return "–";
}

function buildTime(build) {
  if (build.started_at === null) return "–";
  const end = build.ended_at === null ? Date.now() : Date.parse(build.ended_at);
  return span((end - Date.parse(build.started_at)) / 1000);
}

const buildState = (build) => badge(build.state, build.state === "running" ? "busy" : undefined);

function buildResult(build) {
  if (build.error !== null) return { text: build.error };
  if (build.image_id !== null) return code(short(build.image_id), build.image_id);
  return { text: build.step ?? "–" };
}

const LISTS = {
  containers: {
    path: `v1/containers?limit=${ROWS}`,
    empty: "No containers.",
    columns: ["Name", "Image", "State", "Since", "Address", "Created"],
    cells: (c) => [
      main(c.name, short(c.id)), { text: c.image, title: c.command.join(" ") }, containerState(c),
      close(containerTime(c), exact(c.started_at)), code(c.ip_address ?? "–"), close(ago(c.created_at), exact(c.created_at)),
    ],
  },
  images: {
    path: `v1/images?limit=${ROWS}`,
    empty: "No images.",
    columns: ["Name", "Image", "Size", "Layers", "Containers", "Created"],
    cells: (i) => [
      main(i.tags.join(", ") || "<none>"), code(short(i.id), i.id), close(bytes(i.size_bytes)),
      close(String(i.layers.length)), close(String(i.containers)), close(ago(i.created_at), exact(i.created_at)),
    ],
  },
  builds: {
    path: `v1/builds?limit=${ROWS}`,
    empty: "No builds in the last day.",
    columns: ["Build", "State", "Worker", "Took", "Result", "Asked for"],
    cells: (b) => [
      main(b.tags.join(", ") || "<none>", short(b.id)), buildState(b), close(b.worker_id ?? "–"), close(buildTime(b)),
      buildResult(b),
      close(ago(b.created_at), exact(b.created_at)),
    ],
  },
  transfers: {
    path: "v1/transfers",
    empty: "Nothing moves.",
    // Shown only while there are some.
    hides: true,
    columns: ["Name", "Direction", "Layers", "Bytes", "For"],
    cells: (t) => [
      main(t.name), close(t.kind), close(`${t.layers_done} of ${t.layers}`),
      close(`${bytes(t.bytes_done)} of ${bytes(t.bytes)}`), close(span(since(t.started_at)), exact(t.started_at)),
    ],
    key: (t) => String(t.id),
  },
  services: {
    path: "v1/services",
    empty: "No services.",
    columns: ["Service", "State", "Version", "Host", "Process", "Up", "Memory"],
    cells: (s) => [
      main(s.kind, s.id), badge(s.alive ? "alive" : "gone"), close(s.version), { text: s.host }, close(String(s.pid)),
      close(s.alive ? span(since(s.started_at)) : "–", exact(s.started_at)), close(s.alive ? bytes(s.memory_bytes) : "–"),
    ],
    key: (s) => `${s.kind} ${s.id}`,
  },
};

// ---- reading

async function read(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10000) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message ?? `status ${response.status}`);
  return answer;
}

/** Calls `work` soon, never twice at once, and once more when it was asked for meanwhile. */
function sooner(work, pause = SOON_MS) {
  let waiting = false;
  let running = false;
  return async function ask() {
    if (waiting) return;
    waiting = true;
    if (running) return;
    running = true;
    while (waiting) {
      await new Promise((done) => setTimeout(done, pause));
      waiting = false;
      await work();
    }
    running = false;
  };
}

class List {
  constructor(name, { path, empty, columns, cells, key = (item) => item.id, hides = false }) {
    Object.assign(this, { path, empty, columns, cells, key, hides, answer: null, rows: new Map() });
    const section = byId(name);
    this.section = section;
    this.count = section.querySelector(".count");
    this.problem = make("p", { class: "problem", role: "alert", hidden: "" });
    const heads = columns.map((column) => make("th", { scope: "col", role: "columnheader" }, column));
    this.body = make("tbody", { role: "rowgroup" });
    // The roles are said again, since a narrow screen shows the rows as blocks.
    const table = make(
      "table", { role: "table", "aria-labelledby": `${name}-title` },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), this.body,
    );
    const frame = { class: "frame", role: "region", tabindex: "0", "aria-labelledby": `${name}-title` };
    section.append(this.problem, make("div", frame, table));
    this.refresh = sooner(() => this.load());
  }

  async load() {
    try {
      this.answer = await read(this.path);
      this.problem.hidden = true;
      this.show();
    } catch (error) {
      this.problem.textContent = `This list cannot be read now: ${error.message}`;
      this.problem.hidden = false;
    }
  }

  show() {
    if (this.answer === null) return;
    const { items, total } = this.answer;
    if (this.hides) this.section.hidden = items.length === 0;
    this.count.textContent = items.length < total ? `${items.length} of ${total}` : String(total);
    const rows = new Map();
    for (const item of items) {
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.row(this.rows.size > 0);
      this.fill(row, this.cells(item));
      rows.set(key, row);
    }
    const none = () => make("tr", { role: "row" }, make("td", { role: "cell", class: "empty", colspan: this.columns.length }, this.empty));
    const wanted = rows.size > 0 ? [...rows.values()] : [none()];
    // Rows that stay are not touched, so that a selection in them stays too.
    for (const old of [...this.body.children]) if (!wanted.includes(old)) old.remove();
    wanted.forEach((row, at) => {
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
    });
    this.rows = rows;
  }

  row(isFresh) {
    const cells = this.columns.map((column) => make("td", { role: "cell", "data-label": column }));
    return make("tr", isFresh ? { role: "row", class: "fresh" } : { role: "row" }, ...cells);
  }

  fill(row, cells) {
    cells.forEach(({ text, more = "", title = "", tone = "", kind = "" }, at) => {
      const cell = row.children[at];
      const now = [text, more, title, tone].join("\u0000");
      if (cell.shown === now) return;
      cell.shown = now;
      cell.className = kind;
      if (title) cell.title = title;
      const word = tone ? make("span", { class: "badge", "data-tone": tone }, text) : make("span", {}, text);
      cell.replaceChildren(word);
      if (more) word.append(make("small", { class: "code" }, more));
    });
  }
}

const lists = Object.fromEntries(Object.entries(LISTS).map(([name, list]) => [name, new List(name, list)]));

// ---- the numbers on top

const tiles = ["Containers", "Images", "Builds", "Layer store"].map((name) => {
  const number = make("dd", {}, "–");
  const more = make("dd", { class: "more" }, "\u00a0");
  byId("tiles").append(make("div", {}, make("dt", {}, name), number, more));
  return { number, more };
});

const refreshSummary = sooner(async () => {
  let summary;
  try {
    summary = await read("v1/summary");
  } catch {
    return;
  }
  const { containers, builds, store } = summary;
  const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
  byId("version").textContent = summary.version;
  const numbers = [
    [`${containers.running} running`, `of ${sum(containers)}`],
    [String(summary.images), `${bytes(summary.image_bytes)} of files`],
    [`${builds.running + builds.waiting} at work`, `${builds.done} done, ${builds.failed} failed in the last day`],
    [bytes(store?.bytes), store ? `${bytes(store.free_bytes)} free` : "does not answer"],
  ];
  numbers.forEach(([number, more], at) => {
    tiles[at].number.textContent = number;
    tiles[at].more.textContent = more;
  });
}, 400);

function refreshAll() {
  for (const list of Object.values(lists)) list.refresh();
  refreshSummary();
}

// ---- what happens

function happened(event) {
  refreshSummary();
  if (event.type === "container") {
    lists.containers.refresh();
    if (event.action === "create" || event.action === "destroy") lists.images.refresh();
  } else if (event.type === "image") {
    lists.images.refresh();
  } else if (event.type === "build") {
    lists.builds.refresh();
    if (event.action === "done") lists.images.refresh();
  } else if (event.type === "transfer") {
    lists.transfers.refresh();
    return;
  } else {
    return;
  }
  if (!event.action.startsWith("exec_")) {
    byId("news").textContent = `${event.type} ${event.attributes.name ?? short(event.object)}: ${event.action}`;
  }
}

function connection(state, text) {
  const shown = byId("connection");
  if (shown.dataset.state === state) return;
  shown.dataset.state = state;
  shown.textContent = text;
  document.body.classList.toggle("lost", state === "lost");
}

let source = null;

function connect() {
  source?.close();
  source = new EventSource("v1/events");
  source.addEventListener("hello", (message) => {
    const wasLost = byId("connection").dataset.state === "lost";
    connection("live", "Live");
    if (wasLost || !JSON.parse(message.data).resumed) refreshAll();
  });
  source.addEventListener("message", (message) => happened(JSON.parse(message.data)));
  source.addEventListener("error", () => {
    connection("lost", "Connection lost, trying again");
    // The browser tries again by itself, but for an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
  });
}

// A page that nobody sees holds no connection: a browser has only six for one address.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source?.close();
  else connect();
});

const isWatching = () => !document.hidden && byId("connection").dataset.state === "live";
const isBuilding = () => lists.builds.answer?.items.some((build) => build.state === "running");
setInterval(() => isWatching() && isBuilding() && lists.builds.refresh(), BUILDING_MS);
setInterval(() => isWatching() && lists.transfers.answer?.total > 0 && lists.transfers.refresh(), MOVING_MS);
setInterval(() => isWatching() && lists.services.refresh(), PROCESSES_MS);
setInterval(() => isWatching() && refreshAll(), EVERYTHING_MS);
setInterval(() => !document.hidden && Object.values(lists).forEach((list) => list.show()), 1000);
connect();
