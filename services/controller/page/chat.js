// A conversation with the policy that a job trains, through the controller's /v1/chat/completions.
"use strict";

const talks = new Map(); // job -> messages; as long as the page is open

// Calls `take` with each event's object of an answer in server-sent events.
async function readEvents(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const line = held.slice(0, end);
      held = held.slice(end + 2);
      if (line.startsWith("data: ") && line !== "data: [DONE]") take(JSON.parse(line.slice(6)));
    }
  }
}

// Asks for the answer to `messages` and tells of each piece; the version that drew the last token comes at the end.
async function ask(job, messages, settings, signal, take) {
  const answer = await fetch("/v1/chat/completions", { method: "POST", credentials: "same-origin", signal,
    headers: { "Content-Type": "application/json" }, body: JSON.stringify({ model: job, messages, stream: true, ...settings }) });
  if (!answer.ok) {
    const text = await answer.text();
    let message = text;
    try { const { error } = JSON.parse(text); message = error.message || error; } catch { /* no JSON: the text itself */ }
    const wrong = new Error(message);
    wrong.status = answer.status;
    throw wrong;
  }
  await readEvents(answer, (event) => {
    if (event.error) throw new Error(event.error.message);
    for (const choice of event.choices) take(choice.delta.content || "", choice.finish_reason, choice.policy_version);
  });
}

function messageNode(message) {
  const version = message.version;
  const note = [message.role, version && `policy ${version.lineage || 0}:${version.number || 0}`, message.note].filter(Boolean).join(" · ");
  return make("div", { class: "message " + message.role }, make("div", { class: "role" }, note),
    message.error ? make("div", { class: "error" }, message.error) : saidNode([{ text: message.content }]));
}

async function chatPage(turn, name) {
  const job = await get(`/api/jobs/${encodeURIComponent(name)}`);
  if (turn !== drawn) return;
  if (!talks.has(job.name)) talks.set(job.name, []);
  const messages = talks.get(job.name);
  let running = null; // of the answer that comes now
  const log = make("div", { class: "talk", role: "log", "aria-label": "Conversation", tabindex: 0 }, messages.map(messageNode));
  const text = make("textarea", { name: "text", rows: 3, required: true, placeholder: "Enter sends, Shift and Enter begin a line" });
  const status = make("span", { class: "dim", role: "status" });
  const send = make("button", {}, "Send"), stop = make("button", { type: "button", disabled: true, onclick: () => running && running.abort() }, "Stop");
  const numberField = (label, key, value, step, min, max) => make("label", {}, label, make("input", { name: key, type: "number", value, step, min, max, size: 6 }));
  const form = make("form", { class: "ask", onsubmit: (event) => { event.preventDefault(); say().catch(failed); } },
    make("label", { class: "wide" }, "Message", text),
    numberField("Temperature", "temperature", 1, 0.1, 0, 10), numberField("Most tokens", "max_tokens", 256, 1, 1, 32768), send, stop,
    make("button", { type: "button", onclick: () => { if (running) running.abort(); messages.length = 0; log.replaceChildren(); text.focus(); } }, "Begin anew"), status);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
    if (event.key === "Escape" && running) running.abort();
  });
  const add = (message) => {
    messages.push(message);
    log.append(messageNode(message));
    log.scrollTop = log.scrollHeight;
  };
  const say = async () => {
    if (running) return;
    const fields = Object.fromEntries(new FormData(form));
    add({ role: "user", content: text.value });
    text.value = "";
    const asked = messages.filter((m) => !m.error).map((m) => ({ role: m.role, content: m.content }));
    const reply = { role: "assistant", content: "" };
    add(reply);
    running = new AbortController();
    stop.disabled = false;
    send.disabled = true;
    status.textContent = "answering";
    const draw = () => { log.lastChild.replaceWith(messageNode(reply)); log.scrollTop = log.scrollHeight; };
    try {
      await ask(job.name, asked, { temperature: Number(fields.temperature), max_tokens: Number(fields.max_tokens) }, running.signal,
        (piece, finish, version) => {
          reply.content += piece;
          if (finish) reply.note = finish === "length" ? "cut" : finish;
          if (version) reply.version = version;
          if (messages.at(-1) === reply) draw();
        });
      status.textContent = "";
    } catch (error) {
      if (error.status === 401) throw error;
      if (error.name === "AbortError") reply.note = "stopped";
      else reply.error = error.message;
      status.textContent = error.name === "AbortError" ? "stopped" : "that did not work";
      if (messages.at(-1) === reply) draw();
    } finally {
      running = null;
      stop.disabled = true;
      send.disabled = false;
    }
  };
  leave = () => running && running.abort();
  show(job.name + " chat", make("h1", {}, job.name), tabs(job.name, "Chat"),
    make("p", { class: "dim" }, `Talks to the policy under its newest weights, as the model ${job.name} of /v1/chat/completions at this address does. ` +
      "What is said here trains nothing."), log, form);
  text.focus();
}
