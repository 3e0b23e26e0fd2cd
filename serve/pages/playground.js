// A conversation, or two of them side by side under different settings.
"use strict";

const threads = [];
let aborter = null;

class Thread {
  constructor(number) {
    this.turns = [];
    this.view = make("section", "card thread");
    this.view.setAttribute("aria-label", `Conversation ${number}`);
    this.fields = $("options").content.firstElementChild.cloneNode(true);
    this.fields.querySelector("legend").textContent = number > 1 ? `Settings ${number}` : "";
    $("threads").append(this.view);
    $("settings").append(this.fields);
  }

  value(name) { return this.fields.querySelector(`[data-of=${name}]`).value.trim(); }

  request() {
    const body = { stream: true, stream_options: { include_usage: true }, messages: [] };
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

  async say(text, signal) {
    this.turns.push({ role: "user", content: text });
    this.show("user", text);
    const turn = this.show("assistant", "");
    const answer = new Answer(turn, this.view);
    try {
      const started = performance.now();
      const body = JSON.stringify(this.request());
      const response = await ask("/v1/chat/completions", { method: "POST", body, signal });
      for await (const chunk of events(response)) answer.add(chunk, started);
    } catch (error) {
      if (error.name !== "AbortError") turn.append(make("div", "error", error.message));
    }
    this.turns.push(answer.message());
    return answer.summary();
  }
}

class Answer {
  constructor(turn, view) {
    Object.assign(this, { turn, view, text: "", thought: "", calls: [], usage: null });
    this.body = turn.querySelector(".text");
  }

  add(chunk, started) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices[0];
    if (!choice) return;
    this.first ??= performance.now() - started;
    this.last = performance.now() - started;
    const { content, reasoning, tool_calls: calls } = choice.delta;
    if (reasoning) this.think(reasoning);
    this.write(content || "", choice.logprobs ? choice.logprobs.content : []);
    this.text += content || "";
    for (const call of calls || []) this.call(call);
    this.view.scrollTop = this.view.scrollHeight;
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
    span.dataset.tip = others.map((o) => `${percent(o.logprob)}  ${JSON.stringify(o.token)}`).join("\n");
    this.body.append(span);
  }

  call({ index, id, function: part }) {
    if (!this.calls[index]) {
      const view = make("div", "call");
      this.turn.append(view);
      this.calls[index] = { id, name: part.name, arguments: "", view };
    }
    const call = this.calls[index];
    call.arguments += part.arguments || "";
    call.view.textContent = `${call.name}(${call.arguments})`;
  }

  message() {
    const calls = this.calls.map((c) => (
      { id: c.id, type: "function", function: { name: c.name, arguments: c.arguments || "{}" } }));
    return { role: "assistant", content: this.text, ...(calls.length ? { tool_calls: calls } : {}) };
  }

  summary() {
    if (!this.usage || this.first === undefined) return "";
    const { completion_tokens: tokens, prompt_tokens: prompt } = this.usage;
    const rate = tokens > 1 ? ((tokens - 1) / (this.last - this.first) * 1000).toFixed(1) : "–";
    return `${prompt} + ${tokens} tokens, first after ${this.first.toFixed(0)} ms, ${rate} tokens/s`;
  }
}

async function* events(response) {
  let rest = "";
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + text).split("\n\n");
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
  if (!text) return;
  $("say").value = "";
  aborter = new AbortController();
  $("send").textContent = "Stop";
  const summaries = await Promise.all(threads.map((thread) => thread.say(text, aborter.signal)));
  $("foot").textContent = summaries.filter(Boolean).join("   |   ");
  $("send").textContent = "Send";
  aborter = null;
  $("say").focus();
}

function restart() {
  aborter?.abort();
  const wanted = $("both").checked ? 2 : 1;
  while (threads.length > wanted) {
    const thread = threads.pop();
    thread.view.remove();
    thread.fields.remove();
  }
  while (threads.length < wanted) threads.push(new Thread(threads.length + 1));
  for (const thread of threads) { thread.turns = []; thread.view.replaceChildren(); }
  $("foot").textContent = "";
}

async function greet() {
  try {
    const models = await (await ask("/v1/models")).json();
    const { id, max_model_len: context } = models.data[0];
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
$("say").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!aborter) send();
  }
});
$("clear").addEventListener("click", restart);
$("both").addEventListener("change", restart);
$("key").addEventListener("change", () => { key.set($("key").value); greet(); });
document.addEventListener("mouseover", (event) => {
  document.querySelector(".tip")?.remove();
  const text = event.target.dataset?.tip;
  if (!text) return;
  const tip = make("div", "tip", text);
  const box = event.target.getBoundingClientRect();
  document.body.append(tip);
  tip.style.left = `${Math.min(box.left, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${box.bottom + tip.offsetHeight + 8 > innerHeight ? box.top - tip.offsetHeight - 4 : box.bottom + 4}px`;
});
$("key").value = key.get();
restart();
greet();
