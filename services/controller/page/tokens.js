// What a rollout said, token by token: coloured by a figure of each token, calls of tools folded.
"use strict";

const RATIO_STEPS = [["d3", "below ½"], ["d2", "0.8"], ["d1", "0.95"], ["c1", "above 1.05"], ["c3", "1.25"], ["c5", "2"]];
const ratioClass = (v) => (v < 1 ? steps(-Math.log(v), [0.05, 0.22, 0.69], "d") : steps(Math.log(v), [0.05, 0.22, 0.69], "c", [1, 3, 5]));

// By which figure tokens are coloured. `of` gives the figure of each sampled token, or null where it is not stored.
const COLOURS = [
  { key: "", text: "nothing" },
  { key: "logprob", text: "log-prob", of: (r) => numbers((r.completion || {}).behaviour_logprobs),
    legend: [["c1", "below −0.1"], ["c2", "−0.5"], ["c3", "−1"], ["c4", "−2"], ["c5", "−4"]],
    classOf: (v) => steps(-v, [0.1, 0.5, 1, 2, 4], "c") },
  { key: "ratio", text: "ratio to the reference", of: (r) => ratios((r.completion || {}).behaviour_logprobs, r.reference_logprobs),
    absent: "not stored: no reference scored these rollouts", legend: RATIO_STEPS, classOf: ratioClass },
  { key: "policy-ratio", text: "ratio of trainer to generator", of: (r) => ratios(r.policy_logprobs, (r.completion || {}).behaviour_logprobs),
    absent: "not stored: nothing was learned from these rollouts, or retention.token_figures is false", legend: RATIO_STEPS, classOf: ratioClass },
  { key: "entropy", text: "entropy", of: (r) => numbers(r.policy_entropies),
    absent: "not stored: nothing was learned from these rollouts, or retention.token_figures is false",
    legend: [["c1", "above 0.1"], ["c2", "0.5"], ["c3", "1"], ["c4", "2"], ["c5", "4"]],
    classOf: (v) => steps(v, [0.1, 0.5, 1, 2, 4], "c") },
];

const numbers = (list) => ((list || []).length ? list.map(Number) : null);

// exp(above - below) of each token, or null where one of them is not stored.
function ratios(above, below) {
  const over = numbers(above), under = numbers(below);
  return over && under && over.length === under.length ? over.map((v, i) => Math.exp(v - under[i])) : null;
}

// The class of the highest step that `value` reaches; "" below the first.
function steps(value, edges, letter, names = edges.map((_, i) => i + 1)) {
  const reached = edges.filter((edge) => value >= edge).length;
  return reached ? letter + names[reached - 1] : "";
}

// Stretches of a turn that call a tool, as [begin, end): Hermes and Qwen, or Llama's whole turn.
function callsIn(text) {
  if (/^\s*(<\|python_tag\|>)?\s*\{\s*"name"\s*:/.test(text)) return [[0, text.length]];
  return [...text.matchAll(/<tool_call>[^]*?(<\/tool_call>|$)/g)].map((m) => [m.index, m.index + m[0].length]);
}

// Pieces [{text, class, title}] as they follow each other, with calls folded.
function saidNode(pieces) {
  const whole = pieces.map((p) => p.text).join("");
  const said = make("div", { class: "said" });
  const put = (box, piece, text) => {
    if (text) box.append(piece.class || piece.title ? make("span", { class: piece.class || null, title: piece.title }, text) : text);
  };
  const folds = callsIn(whole).map(([begin, end]) => {
    const name = (whole.slice(begin, end).match(/"name"\s*:\s*"([^"]*)"/) || [])[1];
    const inside = make("div", {});
    return { begin, end, inside, box: make("details", { class: "call" }, make("summary", { class: "role" }, `calls ${name || "a tool"}`), inside) };
  });
  let at = 0, fold = 0;
  for (const piece of pieces) {
    let from = 0;
    while (from < piece.text.length) {
      while (fold < folds.length && at + from >= folds[fold].end) fold++;
      const next = folds[fold], within = next && at + from >= next.begin;
      if (within && next.box.parentNode !== said) said.append(next.box);
      const edge = next ? (within ? next.end : next.begin) : Infinity;
      const to = Math.min(piece.text.length, edge - at);
      put(within ? next.inside : said, piece, piece.text.slice(from, to));
      from = to;
    }
    at += piece.text.length;
  }
  return said;
}

// The pieces of each turn of a rollout: of one without turns a single list.
function turnPieces(stored, colour) {
  const rollout = stored.rollout, completion = rollout.completion || {}, ids = completion.token_ids || [], texts = stored.texts;
  const turns = (rollout.turns || []).length ? rollout.turns : [{ text: completion.text, tokens: ids.length }];
  if (!texts) return turns.map((turn) => [{ text: turn.text || "" }]);
  const logprobs = numbers(completion.behaviour_logprobs), figures = colour.of ? colour.of(rollout) : null;
  let token = 0, sampled = 0;
  return turns.map((turn) => {
    const pieces = [];
    for (let i = 0; i < (turn.tokens || 0); i++, token++, sampled++) {
      pieces.push({ text: texts[token] || "", class: figures ? colour.classOf(figures[sampled]) : "",
        title: `token ${ids[token]}` + (logprobs ? `, log-prob ${figure(logprobs[sampled])}` : "") +
          (figures && colour.key !== "logprob" ? `, ${colour.text} ${figure(figures[sampled])}` : "") });
    }
    token += turn.observation_tokens || 0;
    return pieces;
  });
}

// What was said: one text, or the turns of an episode with what was shown between them, folded.
function saidIn(stored, colour) {
  const turns = stored.rollout.turns || [], pieces = turnPieces(stored, colour);
  if (turns.length === 0) return saidNode(pieces[0]);
  return turns.map((turn, i) => make("div", {}, saidNode(pieces[i]),
    (turn.note || turn.reward) && make("div", { class: "dim" }, [turn.note, turn.reward && `reward ${figure(number(turn.reward))}`].filter(Boolean).join(" · ")),
    (turn.observation || []).map((m) => make("details", { open: (m.content || "").length < 400 }, make("summary", { class: "role" }, m.role),
      make("div", { class: "said" }, m.content || "")))));
}

// Spans of tokens are made when they come into sight: thousands of rollouts stay light.
const sights = new Map();
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    sight.unobserve(entry.target);
    const draw = sights.get(entry.target);
    sights.delete(entry.target);
    if (draw) draw();
  }
}, { rootMargin: "300px" });

function whenSeen(element, draw) {
  sights.set(element, draw);
  sight.observe(element);
  return element;
}

function forgetSights() {
  sight.disconnect();
  sights.clear();
}

// The choice of a colour, with what is not stored said so; `rollouts` are those on the page.
function colourChoice(rollouts, chosen, choose) {
  const stored = COLOURS.map((c) => !c.of || rollouts.some((r) => c.of(r.rollout)));
  const select = make("select", { name: "colour", onchange: (event) => choose(event.target.value) }, COLOURS.map((c, i) =>
    make("option", { value: c.key, selected: c.key === chosen, disabled: !stored[i] }, stored[i] ? c.text : `${c.text} (${c.absent || "not stored"})`)));
  const now = COLOURS.find((c) => c.key === chosen) || COLOURS[0];
  return { now, next: () => {
    const able = COLOURS.filter((_, i) => stored[i]);
    choose(able[(able.findIndex((c) => c.key === now.key) + 1) % able.length].key);
  }, nodes: [make("label", {}, "Tokens coloured by", select),
    now.legend && make("span", { class: "legend", "aria-label": "colours" }, now.legend.map(([name, text]) => make("span", { class: name }, text)))] };
}
