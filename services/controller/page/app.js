// The page of the controller. Text from outside is only ever set as text, never as markup.
"use strict";

const main = document.getElementById("main");
let stream = null; // events of the job that is looked at
let leave = null; // called when another page is gone to
let drawn = 0; // grows with each page: an answer that comes late is dropped

function make(tag, settings = {}, ...children) {
  const svg = ["svg", "polyline", "line", "text", "rect", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const number = (text) => (text === undefined || text === null || text === "" ? NaN : Number(text));

function figure(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return (value / 1e6).toPrecision(3) + "M";
  if (size >= 1e4) return (value / 1e3).toPrecision(3) + "k";
  return String(Number(value.toPrecision(3)));
}

function age(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 90) return Math.round(seconds) + "s";
  if (seconds < 5400) return Math.round(seconds / 60) + "m";
  if (seconds < 129600) return Math.floor(seconds / 3600) + "h" + String(Math.floor((seconds % 3600) / 60)).padStart(2, "0") + "m";
  return Math.floor(seconds / 86400) + "d";
}

const bytes = (count) => figure(number(count)) + "B";
const stateOf = (job) => (job.state || "").replace("JOB_STATE_", "");
const metricsOf = (list) => Object.fromEntries((list || []).map((m) => [m.name, number(m.value ?? 0)]));
const link = (text, ...path) => make("a", { href: "#/" + path.map(encodeURIComponent).join("/") }, text);

async function get(path) {
  const answer = await fetch(path, { credentials: "same-origin" });
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let message = text;
  try { message = JSON.parse(text).error || text; } catch { /* no JSON: the text itself */ }
  const error = new Error(message);
  error.status = answer.status;
  throw error;
}

function show(title, ...content) {
  document.title = title + " · Rein";
  main.replaceChildren(...content.flat(Infinity).filter(Boolean));
}

function table(heads, rows, empty) {
  if (rows.length === 0) return make("p", { class: "dim" }, empty);
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((h) => make("th", { scope: "col", class: h.startsWith("#") ? "number" : null }, h.replace("#", ""))))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, i) =>
      make("td", { class: heads[i].startsWith("#") ? "number" : null }, cell)))))));
}

// ---- jobs

async function jobsPage(turn, query) {
  const wanted = new URLSearchParams(query), asked = new URLSearchParams({ contains: wanted.get("contains") || "", limit: wanted.get("limit") || 100 });
  const { jobs = [], matching = 0 } = await get(`/api/jobs?${asked}`);
  if (turn !== drawn) return;
  const now = Date.now() / 1000;
  const go = (changes) => { location.hash = `#/?${new URLSearchParams({ ...Object.fromEntries(asked), ...changes })}`; };
  const list = [table(["Name", "Kind", "State", "Group", "#Update", "#Reward", "#Age", "Message"],
    jobs.map((job) => [link(job.name, "job", job.name), job.kind, make("span", { class: "state " + stateOf(job) }, stateOf(job)), job.group || "",
      `${job.update || 0}/${job.max_updates || "?"}`, figure(metricsOf(job.metrics).reward), age(now - job.submitted_at),
      (job.message || "").split("\n")[0]]),
    asked.get("contains") ? "No job has that in its name" : "No job yet: rein submit -f configs/jobs/grpo_digits.yaml"),
  matching > jobs.length && make("button", { onclick: () => go({ limit: 4 * asked.get("limit") }) }, `More of ${matching}`)];
  const box = document.getElementById("jobs");
  if (box) box.replaceChildren(...list.filter(Boolean)); // what is being typed beside it stays
  else {
    const search = make("input", { name: "contains", type: "search", value: asked.get("contains"), size: 20 });
    show("Jobs", make("h1", {}, "Jobs"), make("form", { role: "search", onsubmit: (event) => { event.preventDefault(); go({ contains: search.value }); } },
      make("label", {}, "Name contains", search), make("button", {}, "Show")), make("div", { id: "jobs" }, list));
    keys = { "/": () => search.focus() };
  }
  later(turn, 5000, () => jobsPage(turn, query));
}

function later(turn, milliseconds, call) {
  setTimeout(() => { if (turn === drawn) call().catch(failed); }, milliseconds);
}

// ---- curves

const CURVES = [
  ["Reward", ["reward", "reward_min", "reward_max"]], ["Loss", ["loss", "policy_loss"]], ["Entropy", ["entropy"]],
  ["KL", ["reference_kl", "approx_kl"]], ["Gradient norm", ["grad_norm"]],
  ["Mismatch", ["logprob_diff_mean", "logprob_diff_max"]], ["Length", ["completion_tokens"]],
  ["Cut completions", ["truncated_ratio"]], ["Groups without signal", ["zero_signal_ratio"]], ["Staleness", ["lag"]],
  ["Clipped", ["clip_ratio_low", "clip_ratio_high"]], ["Tokens a second", ["tokens_per_second"]],
  ["Seconds", ["generate_seconds", "train_seconds", "score_seconds", "sync_seconds"]], ["Learning rate", ["learning_rate"]],
];
const POINTS = 300;

// At most POINTS of a series: the mean of each stretch.
function thinned(points) {
  if (points.length <= POINTS) return points;
  const step = points.length / POINTS, thin = [];
  for (let i = 0; i < POINTS; i++) {
    const part = points.slice(Math.floor(i * step), Math.floor((i + 1) * step));
    thin.push([part[part.length - 1][0], part.reduce((sum, p) => sum + p[1], 0) / part.length]);
  }
  return thin;
}

function chart(title, names, updates) {
  const series = names.map((name) => ({ name, points: thinned(updates.filter((u) => Number.isFinite(u.metrics[name]))
    .map((u) => [u.update, u.metrics[name]])) })).filter((s) => s.points.length > 0);
  if (series.length === 0) return null;
  const xs = series.flatMap((s) => s.points.map((p) => p[0])), ys = series.flatMap((s) => s.points.map((p) => p[1]));
  const left = Math.min(...xs), right = Math.max(...xs), low = Math.min(...ys), high = Math.max(...ys);
  const x = (v) => (right > left ? ((v - left) / (right - left)) * 300 : 150);
  const y = (v) => (high > low ? 100 - ((v - low) / (high - low)) * 90 : 55);
  const last = series.map((s) => `${s.name} ${figure(s.points[s.points.length - 1][1])}`).join(", ");
  return make("figure", {},
    make("figcaption", {}, make("strong", {}, title),
      make("span", {}, series.map((s, i) => make("span", { class: "k" + (i % 4) }, " " + (series.length > 1 ? s.name + " " : "") +
        figure(s.points[s.points.length - 1][1]))))),
    make("svg", { viewBox: "0 0 300 110", preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${last}` },
      make("line", { x1: 0, x2: 300, y1: 10, y2: 10, class: "grid" }), make("line", { x1: 0, x2: 300, y1: 100, y2: 100, class: "grid" }),
      series.map((s, i) => make("polyline", { class: "s" + (i % 4), points: s.points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ") }))),
    make("div", { class: "dim" }, `${figure(low)} to ${figure(high)}, update ${left} to ${right}`));
}

const PHASES = ["generate", "score", "train", "sync"];

// Where the time of the last updates went, as bars over the updates.
function timeline(updates) {
  const recent = updates.slice(-40).filter((u) => Number.isFinite(u.metrics.seconds) && u.metrics.seconds > 0);
  if (recent.length === 0) return null;
  const longest = Math.max(...recent.map((u) => u.metrics.seconds)), width = 300 / recent.length;
  const bars = [];
  recent.forEach((u, i) => {
    let top = 105;
    PHASES.forEach((phase, k) => {
      const height = ((u.metrics[phase + "_seconds"] || 0) / longest) * 95;
      top -= height;
      if (height > 0) {
        bars.push(make("rect", { class: "f" + k, x: (i * width).toFixed(1), width: Math.max(width - 1, 0.5).toFixed(1), y: top.toFixed(1), height: height.toFixed(1) },
          make("title", {}, `update ${u.update}: ${phase} ${figure(u.metrics[phase + "_seconds"])} s of ${figure(u.metrics.seconds)} s`)));
      }
    });
  });
  return make("figure", {}, make("figcaption", {}, make("strong", {}, "Where the time goes"),
    make("span", {}, PHASES.map((phase, k) => make("span", { class: "k" + k }, " " + phase)))),
  make("svg", { viewBox: "0 0 300 110", preserveAspectRatio: "none", role: "img", "aria-label": "Seconds of each phase in the last updates" }, bars),
  make("div", { class: "dim" }, `the last ${recent.length} updates, at most ${figure(longest)} s`));
}

// ---- one job

function tabs(name, here) {
  const views = [["Overview", []], ["Rollouts", ["rollouts"]], ["Chat", ["chat"]], ["Ledger", ["ledger"]], ["Config", ["config"]]];
  return make("nav", { class: "tabs", "aria-label": "Job" }, views.map(([text, path]) => {
    const anchor = link(text, "job", name, ...path);
    if (text === here) anchor.setAttribute("aria-current", "page");
    return anchor;
  }));
}

async function jobPage(turn, name) {
  const path = `/api/jobs/${encodeURIComponent(name)}`;
  // The stream first: what happens while the rest is read waits in it.
  const early = [];
  stream = new EventSource(path + "/events?new=1");
  let take = (event) => early.push(event);
  stream.addEventListener("message", (message) => take(JSON.parse(message.data)));
  stream.addEventListener("end", (event) => event.target.close());
  await new Promise((done) => { stream.addEventListener("open", done); stream.addEventListener("error", done); setTimeout(done, 1000); });
  const [job, figures] = await Promise.all([get(path), get(path + "/updates")]);
  if (turn !== drawn) return;
  const updates = (figures.updates || []).map((u) => ({ update: number(u.update), metrics: metricsOf(u.metrics) }));
  let pending = false;
  const draw = () => {
    pending = false;
    if (turn !== drawn) return;
    const done = updates.length ? updates[updates.length - 1].update : number(job.update || 0);
    const most = number(job.max_updates || 0);
    show(name, make("h1", {}, name), tabs(name, "Overview"),
      make("p", {}, make("span", { class: "state " + stateOf(job) }, stateOf(job)), ` ${job.kind}, update ${done}/${most || "?"} `,
        most > 0 && make("progress", { value: done, max: most, "aria-label": "updates" })),
      job.message && make("pre", {}, job.message),
      make("div", { class: "charts" }, timeline(updates), CURVES.map(([title, names]) => chart(title, names, updates))),
      make("h2", {}, "Held-out data"),
      table(["#After update", "Data", "#Accuracy", "#Standard error", "pass@k", "#Loss", "#Prompts"], (job.evals || []).flatMap((e) =>
        (e.slices?.length ? e.slices : [{ ...e, samples: 1 }]).map((s) => [e.update || 0, [s.dataset, s.setting].filter(Boolean).join(", "),
          s.samples ? figure(number(s.accuracy ?? 0)) : "", s.samples ? figure(number(s.standard_error ?? 0)) : "",
          (s.pass_at || []).map((p) => `${p.k}: ${figure(number(p.value ?? 0))}`).join(", "),
          s.loss === undefined ? "" : figure(number(s.loss)), s.prompts])), "Not scored yet"),
      make("h2", {}, "Checkpoints"),
      table(["#Number", "#Update", "#Size", "Folder"], (job.checkpoints || []).map((c) => [c.number, c.update, bytes(c.bytes), c.path]), "None yet"));
  };
  const redraw = () => { if (!pending) { pending = true; setTimeout(draw, 300); } };
  draw();
  take = (event) => {
    if (event.state) { job.state = event.state; job.message = event.detail || ""; }
    if (event.eval && !(job.evals || []).some((e) => e.update === event.eval.update)) (job.evals ||= []).push(event.eval);
    if (event.checkpoint && !(job.checkpoints || []).some((c) => c.number === event.checkpoint.number)) (job.checkpoints ||= []).push(event.checkpoint);
    if (event.update) {
      const update = number(event.update.update);
      while (updates.length && updates[updates.length - 1].update >= update) updates.pop();
      updates.push({ update, metrics: metricsOf(event.update.metrics) });
      job.max_updates = event.update.max_updates;
    }
    redraw();
  };
  early.forEach(take);
}

async function configPage(turn, name) {
  const job = await get(`/api/jobs/${encodeURIComponent(name)}`);
  if (turn !== drawn) return;
  show(name + " config", make("h1", {}, name), tabs(name, "Config"), make("p", { class: "dim" }, "Resolved, " + job.config_hash),
    make("pre", { tabindex: 0 }, job.config_yaml));
}

// How many groups were dropped for each reason, most first; what differs from group to group (numbers) is left out.
function reasonsOf(dropped) {
  const counts = new Map();
  for (const { reason } of dropped) {
    const kind = reason.replace(/\d+(\.\d+)?/g, "…");
    counts.set(kind, (counts.get(kind) || 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]);
}

async function ledgerPage(turn, name) {
  const ledger = await get(`/api/jobs/${encodeURIComponent(name)}/ledger`);
  if (turn !== drawn) return;
  const stands = ["in_flight", "finished", "scored", "training", "consumed"].map((key) => [key.replace("_", " "), ledger[key] || 0]);
  show(name + " ledger", make("h1", {}, name), tabs(name, "Ledger"),
    make("p", {}, `${ledger.rollouts_stored || 0} rollouts stored, ${ledger.duplicates || 0} groups trained on twice`),
    table(["Groups", "#Count"], [...stands, ["dropped", (ledger.dropped || []).length]], ""),
    make("h2", {}, "Dropped, and why"),
    table(["Reason", "#Groups"], reasonsOf(ledger.dropped || []), ""),
    table(["#Epoch", "#Prompt", "#Attempt", "Reason"], (ledger.dropped || []).slice(-500).map((d) =>
      [d.group.data_epoch || 0, d.group.prompt || 0, d.group.attempt || 0, d.reason]), "Nothing was dropped"));
}

// ---- rollouts

// Ids of the tokens that the policy wrote: of an episode those of its turns, without what was shown between them.
function sampledIds(rollout) {
  const ids = (rollout.completion || {}).token_ids || [];
  if (!(rollout.turns || []).length) return ids;
  let at = 0;
  return rollout.turns.flatMap((turn) => {
    const own = ids.slice(at, at + (turn.tokens || 0));
    at += (turn.tokens || 0) + (turn.observation_tokens || 0);
    return own;
  });
}

// One bar for each token: its height and colour say how unlikely it was. Drawn once it is seen: there may be thousands of them.
function tokenBars(rollout) {
  const logprobs = ((rollout.completion || {}).behaviour_logprobs || []).map(number), ids = sampledIds(rollout);
  if (logprobs.length === 0) return null;
  const width = 300 / logprobs.length;
  const bars = make("svg", { class: "tokens", viewBox: "0 0 300 34", preserveAspectRatio: "none", role: "img",
    "aria-label": `log-probs of ${logprobs.length} tokens, least ${figure(logprobs.reduce((a, b) => Math.min(a, b)))}` });
  return whenSeen(bars, () => bars.replaceChildren(...logprobs.map((logprob, i) => make("rect", { class: logprob < -3 ? "f1" : "f0",
    x: (i * width).toFixed(2), width: Math.max(width - 0.5, 0.4).toFixed(2), y: (34 - Math.min(34, 3 - logprob * 5)).toFixed(1),
    height: Math.min(34, 3 - logprob * 5).toFixed(1) }, make("title", {}, `token ${ids[i]}: log-prob ${figure(logprob)}`)))));
}

function rolloutCard(stored, colour) {
  const rollout = stored.rollout, completion = rollout.completion || {}, reward = rollout.reward || {};
  const advantage = number(rollout.advantage ?? 0);
  const said = make("div", {}, make("div", { class: "said" }, completion.text || ""));
  whenSeen(said, () => said.replaceChildren(...[saidIn(stored, colour)].flat()));
  return make("div", { class: "rollout " + (advantage > 0 ? "up" : advantage < 0 ? "down" : "") },
    make("div", { class: "role" }, `sibling ${rollout.sibling || 0} · reward ${figure(number(reward.reward ?? 0))} (` +
      (reward.parts || []).map((p) => `${p.name} ${figure(number(p.score ?? 0))}`).join(", ") + `) · advantage ${figure(advantage)} · ` +
      `${(completion.token_ids || []).length} tokens · ${(completion.finish_reason || "").replace("FINISH_REASON_", "").toLowerCase()}`),
    reward.error && make("div", { class: "dim" }, `not scored: ${reward.error}`), said, tokenBars(rollout));
}

async function rolloutsPage(turn, name, query) {
  const wanted = new URLSearchParams(query);
  const asked = new URLSearchParams(wanted);
  asked.set("tokens", "1");
  asked.delete("colour");
  asked.set("limit", wanted.get("limit") || "256");
  const reply = await get(`/api/jobs/${encodeURIComponent(name)}/rollouts?${asked}`);
  if (turn !== drawn) return;
  const update = number(reply.update || 0), rollouts = reply.rollouts || [];
  (reply.token_texts || []).forEach((texts, i) => { rollouts[i].texts = texts; });
  const go = (changes) => {
    for (const [key, value] of Object.entries(changes)) { if (value === "") wanted.delete(key); else wanted.set(key, value); }
    location.hash = `#/job/${encodeURIComponent(name)}/rollouts?${wanted}`;
  };
  const field = (label, key, type = "text", step = null) => make("label", {}, label,
    make("input", { name: key, type, step, value: wanted.get(key) || (key === "update" ? update : ""), size: 8 }));
  const sorts = make("select", { name: "sort" }, [["", "as stored"], ["reward", "highest reward"], ["-reward", "lowest reward"],
    ["advantage", "highest advantage"], ["-advantage", "lowest advantage"], ["length", "longest"]].map(([value, text]) =>
    make("option", { value, selected: value === (wanted.get("sort") || "") }, text)));
  const form = make("form", { role: "search", onsubmit: (event) => {
    event.preventDefault();
    go(Object.fromEntries(new FormData(event.target)));
  } }, field("Update", "update", "number"), field("Prompt", "prompt", "number"), field("Says", "contains"),
  field("Reward from", "min", "number", "any"), field("to", "max", "number", "any"), make("label", {}, "Order", sorts), make("button", {}, "Show"),
  make("button", { type: "button", onclick: () => go({ update: String(Math.max(1, update - 1)) }) }, "Update before"),
  make("button", { type: "button", onclick: () => go({ update: String(update + 1) }) }, "Update after"));
  const colours = colourChoice(rollouts, wanted.get("colour") ?? "logprob", (colour) => go({ colour: colour || "none" }));
  const groups = new Map();
  for (const stored of rollouts) {
    const id = stored.rollout.group || {}, key = `${id.data_epoch || 0}/${id.prompt || 0}/${id.attempt || 0}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(stored);
  }
  show(`${name} rollouts`, make("h1", {}, name), tabs(name, "Rollouts"), form,
    make("p", { class: "dim", role: "status" }, `update ${update}: ${rollouts.length} of ${reply.matching || rollouts.length} rollouts` +
      " · keys: p and n for the update before and after, c for the next colour, / for the search"),
    rollouts.length > 0 && make("div", { class: "colours" }, reply.token_texts ? colours.nodes : "The model's tokenizer cannot be read any more: no token is coloured."),
    [...groups].map(([key, siblings]) => make("section", { class: "group", "aria-label": "prompt " + key },
      make("div", { class: "role" }, `prompt ${key}`, siblings[0].answer ? ` · answer ${siblings[0].answer}` : "", " · ",
        make("a", { href: `#/job/${encodeURIComponent(name)}/rollouts?update=${update}&prompt=${key.split("/")[1]}` }, "link")),
      (siblings[0].prompt || []).map((m) => make("details", { open: m.role === "user" }, make("summary", { class: "role" }, m.role),
        make("div", { class: "said" }, m.content || ""))),
      make("div", { class: "siblings" }, siblings.map((s) => rolloutCard(s, colours.now))))),
    rollouts.length < (reply.matching || 0) && make("button", { onclick: () => go({ limit: String(2 * number(asked.get("limit"))) }) }, "More"));
  keys = { c: colours.next, p: () => go({ update: String(Math.max(1, update - 1)) }), n: () => go({ update: String(update + 1) }),
    "/": () => form.querySelector("[name=contains]").focus() };
}

// ---- services, comparison

async function actorsPage(turn) {
  const { actors = [] } = await get("/api/actors");
  if (turn !== drawn) return;
  show("Services", make("h1", {}, "Services"), table(["Role", "Name", "Group", "Job", "State", "#Epoch", "#Policy", "Device", "Load", "#Heard", "Build"],
    actors.map((a) => [a.rank || a.peers ? `${a.role} (rank ${a.rank || 0})` : a.role, a.name, a.group || "", a.job ? link(a.job, "job", a.job) : "", make("span", { class: "state " + a.state }, a.state), a.epoch || 0,
      a.version ? `${a.version.lineage || 0}:${a.version.number || 0}` : "", a.device, a.load || "", age(number(a.silent_seconds ?? 0)),
      (a.build || {}).release || ""]), "None has registered"));
  later(turn, 3000, () => actorsPage(turn));
}

// Lines of two texts, aligned by their longest common subsequence.
function diffLines(a, b) {
  const rows = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let k = b.length - 1; k >= 0; k--) {
    rows[i][k] = a[i] === b[k] ? rows[i + 1][k + 1] + 1 : Math.max(rows[i + 1][k], rows[i][k + 1]);
  }
  const out = [];
  let i = 0, k = 0;
  while (i < a.length || k < b.length) {
    if (i < a.length && k < b.length && a[i] === b[k]) { out.push("  " + a[i] + "\n"); i++; k++; }
    else if (k >= b.length || (i < a.length && rows[i + 1][k] >= rows[i][k + 1])) out.push(make("del", {}, "- " + a[i++] + "\n"));
    else out.push(make("ins", {}, "+ " + b[k++] + "\n"));
  }
  return out;
}

async function comparePage(turn, first, second) {
  const { jobs = [] } = await get("/api/jobs?limit=500");
  const both = first && second ? await Promise.all([first, second].map((n) => get(`/api/jobs/${encodeURIComponent(n)}`))) : [];
  if (turn !== drawn) return;
  const names = make("datalist", { id: "names" }, jobs.map((j) => make("option", { value: j.name })));
  const pick = (label, name, chosen) => make("label", {}, label, make("input", { name, value: chosen || "", list: "names", required: true, autocomplete: "off" }));
  show("Compare", make("h1", {}, "Compare two jobs"), make("form", { onsubmit: (event) => {
    event.preventDefault();
    const chosen = Object.fromEntries(new FormData(event.target));
    location.hash = `#/compare/${encodeURIComponent(chosen.a)}/${encodeURIComponent(chosen.b)}`;
  } }, pick("First", "a", first), pick("Second", "b", second), names, make("button", {}, "Compare")),
  both.length === 2 && [make("h2", {}, "Figures of the last update"),
    table(["Figure", "#" + first, "#" + second], [...new Set(both.flatMap((j) => (j.metrics || []).map((m) => m.name)))].map((m) =>
      [m, figure(metricsOf(both[0].metrics)[m]), figure(metricsOf(both[1].metrics)[m])]), "No update yet"),
    make("h2", {}, "Config"), make("pre", { tabindex: 0 }, diffLines(both[0].config_yaml.split("\n"), both[1].config_yaml.split("\n")))]);
}

// ---- who is here, where to go

function loginPage() {
  show("Log in", make("h1", {}, "Log in"), make("p", {}, "A token is wanted: whoever runs this controller makes one with rein token add."),
    make("form", { onsubmit: async (event) => {
      event.preventDefault();
      const answer = await fetch("/login", { method: "POST", body: new FormData(event.target).get("token").trim() });
      if (answer.ok) route(); else loginPage();
    } }, make("label", {}, "Token", make("input", { name: "token", type: "password", autocomplete: "current-password", size: 40, required: true })),
    make("button", {}, "Log in")));
}

function failed(error) {
  if (error.status === 401) return loginPage();
  show("Error", make("h1", {}, "That did not work"), make("p", { class: "error", role: "alert" }, error.message),
    make("p", {}, make("a", { href: "#/" }, "All jobs")));
}

let keys = {};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

function route() {
  const turn = ++drawn;
  keys = {};
  if (stream) { stream.close(); stream = null; }
  if (leave) { leave(); leave = null; }
  forgetSights();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [what, ...names] = path.split("/").map(decodeURIComponent);
  let page;
  if (what === "actors") page = actorsPage(turn);
  else if (what === "compare") page = comparePage(turn, names[0], names[1]);
  else if (what === "job" && names[1] === "rollouts") page = rolloutsPage(turn, names[0], query);
  else if (what === "job" && names[1] === "chat") page = chatPage(turn, names[0]);
  else if (what === "job" && names[1] === "ledger") page = ledgerPage(turn, names[0]);
  else if (what === "job" && names[1] === "config") page = configPage(turn, names[0]);
  else if (what === "job") page = jobPage(turn, names[0]);
  else page = jobsPage(turn, query);
  page.catch((error) => { if (turn === drawn) failed(error); });
  get("/api/server").then((server) => {
    document.getElementById("who").textContent = server.user ? server.user : server.secure ? "" : "this machine";
    document.getElementById("build").textContent = `Rein ${server.release} ${server.git_hash}`;
  }).catch(() => {});
}

window.addEventListener("hashchange", () => { route(); main.focus(); });
route();
