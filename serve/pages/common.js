// What both pages need: elements by id, the key of this tab, and requests that say what failed.
"use strict";

const $ = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const key = {
  get: () => sessionStorage.getItem("ingot-key") || "",
  set: (value) => sessionStorage.setItem("ingot-key", value),
};

async function ask(path, options = {}) {
  const headers = { "content-type": "application/json" };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const response = await fetch(document.documentElement.dataset.root + path.slice(1), { ...options, headers })
    .catch((error) => { throw error.name === "AbortError" ? error : new Error("The server does not answer."); });
  if (response.ok) return response;
  let sentence = `${response.status} ${response.statusText}`;
  try { sentence = (await response.json()).error.message; } catch { /* no JSON, no sentence */ }
  throw new Error(response.status === 401 && !key.get() ? "This server asks for an API key." : sentence);
}
