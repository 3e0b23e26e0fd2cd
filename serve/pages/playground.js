// A conversation, or two of them side by side under different settings.
"use strict";

const threads = [];
let aborter = null;

class Thread {
  constructor(number) {
    this.turns = [];
    this.calls = [];
    this.view = make("section", "card thread");
    this.view.setAttribute("aria-label", `Conversation ${number}`);
    this.fields = $("options").content.firstElementChild.cloneNode(true);
    $("threads").append(this.view);
    $("settings").append(this.fields);
  }

  // Of the newest answer's calls, once one of them has a result; the others' are empty.
  results() { return this.calls.some((call) => call.result.value) ? this.calls : []; }

  value(name) { return this.fields.querySelector(`[data-of=${name}]`).value.trim(); }

  request() {
    const body = { stream: true, stream_options: { include_usage: true }, messages: [] };
    if (this.value("model")) body.model = this.value("model");
    if (this.value("system")) body.messages.push({ role: "system", content: this.value("system") });
    body.messages.push(...this.turns);
    for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
      if (this.value(name)) body[name] = Number(this.value(name));
    }
    if (this.value("schema")) {
      const schema = parse(this.value("schema"), "The schema");
      body.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
    }
    if (this.value("tools")) body.tools = parse(this.value("tools"), "The list of tools");
    if ($("probabilities").checked) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    return body;
  }

  show(role, text) {
    const turn = make("article", `turn ${role}`);
    turn.append(make("div", "who", role), make("div", "text", text));
    this.view.append(turn);
    turn.scrollIntoView({ block: "end" });
    return turn;
  }

  // A question without an answer is shown and forgotten: the next request begins as this one did.
  async say(text, signal) {
    const turns = this.turns, before = turns.length, results = this.results();
    turns.push(...results.map((call) => (
      { role: "tool", tool_call_id: call.id, content: call.result.value })));
    if (text) turns.push({ role: "user", content: text });
    const question = text ? this.show("user", text) : null;
    for (const call of results) call.result.readOnly = true;
    const turn = this.show("assistant", "");
    const answer = new Answer(turn, this.view);
    this.view.setAttribute("aria-busy", "true");
    try {
      const started = performance.now();
      const body = JSON.stringify(this.request());
      const response = await ask("/v1/chat/completions", { method: "POST", body, signal });
      for await (const chunk of events(response)) answer.add(chunk, started);
      answer.whole = true;
      if (answer.ended === "length") turn.append(make("div", "soft", "Cut off: it had no tokens left."));
    } catch (error) {
      const stopped = error.name === "AbortError";
      turn.append(make("div", stopped ? "soft" : "error", stopped ? "Stopped." : error.message));
      if (before && /\bcontext\b/.test(error.message)) turn.append(full());
      turn.scrollIntoView({ block: "nearest" });
    }
    this.view.removeAttribute("aria-busy");
    const answered = answer.message();
    if (answered) {
      turns.push(answered);
      this.calls = answer.whole ? answer.calls : [];
      for (const call of this.calls) call.ask();
    } else {
      turns.length = before;
      question?.classList.add("unanswered");
      for (const call of results) call.result.readOnly = false;
    }
    return { answered: Boolean(answered), summary: answer.summary() };
  }
}

class Answer {
  constructor(turn, view) {
    Object.assign(this, { turn, view, text: "", thought: "", calls: [], usage: null, whole: false });
    this.body = turn.querySelector(".text");
  }

  add(chunk, started) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices[0];
    if (!choice) return;
    this.ended = choice.finish_reason;
    const atEnd = this.view.scrollTop + this.view.clientHeight >= this.view.scrollHeight - 40;
    this.first ??= performance.now() - started;
    this.last = performance.now() - started;
    const { content, reasoning, tool_calls: calls } = choice.delta;
    if (reasoning) this.think(reasoning);
    this.write(content || "", choice.logprobs ? choice.logprobs.content : []);
    this.text += content || "";
    for (const call of calls || []) this.call(call);
    if (atEnd) this.view.scrollTop = this.view.scrollHeight; // who reads further up is left there
  }

  think(text) {
    if (!this.thought) {
      this.details = make("details");
      this.details.append(make("summary", "", "Reasoning"), make("div"));
      this.body.before(this.details);
    }
    this.thought += text;
    this.details.lastChild.append(text);
  }

  write(text, tokens) {
    for (const token of tokens) {
      if (!token.token || !text.startsWith(token.token)) continue; // special, or a part of a character
      this.token(token);
      text = text.slice(token.token.length);
    }
    if (text) this.body.append(text);
  }

  token({ token, logprob, top_logprobs: others }) {
    const span = make("span", "token", token);
    const percent = (value) => `${(100 * Math.exp(value)).toFixed(1).padStart(5)} %`;
    span.style.background = `rgba(var(--mark), ${(1 - Math.exp(logprob)) * 0.45})`;
    span.tabIndex = this.body.querySelector(".token") ? -1 : 0; // one stop; arrows go on from it
    span.dataset.tip = others.map((o) => `${percent(o.logprob)}  ${JSON.stringify(o.token)}`).join("\n");
    this.body.append(span);
  }

  call({ index, id, function: part }) {
    if (!this.calls[index]) {
      const view = make("div", "call"), result = make("input");
      this.turn.append(view);
      result.placeholder = "its result, to go on with";
      result.setAttribute("aria-label", `Result of ${part.name}`);
      this.calls[index] = { id, name: part.name, arguments: "", view, result, ask: () => view.after(result) };
    }
    const call = this.calls[index];
    call.arguments += part.arguments || "";
    call.view.textContent = `${call.name}(${call.arguments})`;
  }

  // Null if there is nothing to go on from; calls that were cut off are no calls.
  message() {
    const calls = (this.whole ? this.calls : []).map((c) => (
      { id: c.id, type: "function", function: { name: c.name, arguments: c.arguments || "{}" } }));
    if (!this.whole && !this.text) return null;
    return { role: "assistant", content: this.text, ...(calls.length ? { tool_calls: calls } : {}) };
  }

  summary() {
    if (!this.usage || this.first === undefined) return "";
    const { completion_tokens: tokens, prompt_tokens: prompt } = this.usage;
    const seconds = (this.last - this.first) / 1000; // hardly any, if they came in one piece
    const rate = ((tokens - 1) / seconds).toLocaleString(undefined, { maximumSignificantDigits: 3 });
    return `${prompt} tokens of prompt, ${tokens} written, the first after ${this.first.toFixed(0)} ms`
      + (tokens > 1 && seconds > 0.005 ? `, ${rate} tokens/s` : "");
  }
}

// What is said of a conversation that has no room left, beside the server's own sentence.
function full() {
  const offer = make("div", "full soft", "What was said before fills it. ");
  const anew = make("button", "", "Begin a new chat with this message");
  anew.type = "button";
  anew.addEventListener("click", () => { restart(); $("say").focus(); });
  offer.append(anew);
  return offer;
}

async function* events(response) {
  let rest = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const next = () => reader.read().catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The connection broke off.");
  });
  for (let read = await next(); !read.done; read = await next()) {
    const blocks = (rest + read.value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function parse(text, what) {
  try { return JSON.parse(text); } catch (error) { throw new Error(`${what} is no JSON: ${error.message}`); }
}

async function send() {
  const text = $("say").value.trim();
  if (!text && !threads.some((thread) => thread.results().length)) return;
  $("say").value = "";
  aborter = new AbortController();
  $("send").textContent = "Stop";
  const mine = aborter;
  const said = await Promise.all(threads.map((thread) => thread.say(text, mine.signal)));
  if (aborter !== mine) return; // begun anew meanwhile
  $("foot").textContent = said.map(({ summary }) => summary).filter(Boolean).join("   |   ");
  if (!said.some(({ answered }) => answered) && !$("say").value) $("say").value = text; // to try again
  $("send").textContent = "Send";
  aborter = null;
  $("say").focus();
}

function restart() {
  aborter?.abort();
  aborter = null;
  $("send").textContent = "Send";
  const wanted = $("both").checked ? 2 : 1;
  while (threads.length > wanted) {
    const thread = threads.pop();
    thread.view.remove();
    thread.fields.remove();
  }
  while (threads.length < wanted) threads.push(new Thread(threads.length + 1));
  threads.forEach((thread, i) => {
    Object.assign(thread, { turns: [], calls: [] });
    thread.view.replaceChildren();
    thread.fields.querySelector("legend").textContent = wanted > 1 ? `Settings ${i + 1}` : "";
  });
  offer(names);
  tip(null);
  $("foot").textContent = "";
}

// A model and its adapters, each conversation of its own; the choice is hidden where there is none.
let names = [];
function offer(found) {
  names = found;
  for (const { fields } of threads) {
    const choice = fields.querySelector("[data-of=model]"), before = choice.value;
    choice.replaceChildren(...names.map((name) => make("option", "", name)));
    choice.value = names.includes(before) ? before : names[0] || "";
    choice.parentElement.hidden = names.length < 2;
  }
}

async function greet() {
  try {
    const models = await (await ask("/v1/models")).json();
    const { id, max_model_len: context } = models.data[0];
    offer(models.data.map((model) => model.id));
    $("model").textContent = `${id}, ${context.toLocaleString()} tokens of context`;
    $("model").classList.remove("error");
  } catch (error) {
    $("model").textContent = error.message;
    $("model").classList.add("error");
  }
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (aborter) aborter.abort(); else send();
});
document.addEventListener("keydown", (event) => {
  if (event.target !== $("say") && !event.target.closest(".turn input")) return;
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!aborter) send();
  }
});
$("clear").addEventListener("click", restart);
$("both").addEventListener("change", restart);
$("key").addEventListener("change", () => { key.set($("key").value); greet(); });

// What else a token could have been: under a pointer, a finger, or the keyboard's focus.
function tip(token) {
  const tip = $("tip");
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
  tip.hidden = !token;
  if (!token) return;
  token.setAttribute("aria-describedby", "tip");
  tip.textContent = token.dataset.tip;
  const box = token.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${box.bottom + tip.offsetHeight + 8 > innerHeight ? box.top - tip.offsetHeight - 4 : box.bottom + 4}px`;
}

const tokenAt = (event) => event.target.closest?.(".token");
for (const kind of ["mouseover", "focusin", "click"]) {
  document.addEventListener(kind, (event) => tip(tokenAt(event)));
}
document.addEventListener("scroll", () => tip(document.activeElement.closest(".token")), true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip(null);
  const token = tokenAt(event);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!token || !step) return;
  event.preventDefault();
  const tokens = [...token.parentElement.querySelectorAll(".token")];
  const next = tokens[tokens.indexOf(token) + step];
  if (!next) return;
  token.tabIndex = -1;
  next.tabIndex = 0;
  next.scrollIntoView({ block: "nearest" });
  next.focus({ preventScroll: true });
});
$("key").value = key.get();
restart();
greet();
