// What a page does by itself: keeps fresh, sends forms to the public API, sorts tables, changes its theme.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- theme: before anything is drawn

const root = document.documentElement;
function themed(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
}
themed(localStorage.getItem("theme"));

function changeTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = dark ? "light" : "dark";
  localStorage.setItem("theme", theme);
  themed(theme);
}

// ---- asking the API

class Problem extends Error {
  constructor(document) {
    super(document.detail || document.title || "The service refused, and did not say why.");
    this.document = document;
  }
}

// The answer of the API; throws Problem for a refusal, TypeError where the service is away.
async function ask(method, path, body, headers = {}) {
  const options = { method, headers: { ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, options);
  const type = answer.headers.get("Content-Type") || "";
  const document = type.includes("json") ? await answer.json() : null;
  if (!answer.ok) throw new Problem(document || { detail: `The service answered ${answer.status}.` });
  return document;
}

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

function said(error) {
  if (error instanceof Problem) return error.message;
  return "The service does not answer. Is it still running? What you entered is kept; try again in a moment.";
}

// ---- forms: the names of fields are those of the API's JSON, `rank_by.metric` is a field within a field

const listOf = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);

// a class on each line, with what is asked for it: cat = a cat; a kitten
const wordsOf = (text) => {
  const lines = text.split("\n").filter((line) => line.trim());
  const pairs = lines.map((line) => line.split(/=(.*)/s));
  return Object.fromEntries(pairs.map(([name, asked = ""]) => [name.trim(), asked.split(";").map((one) => one.trim()).filter(Boolean)]));
};

function valueOf(field) {
  const text = field.value.trim();
  if (field.type === "checkbox") return field.value === "on" ? field.checked : undefined;
  if (text === "") return undefined;
  if (field.dataset.type === "number") return Number(text.replace(",", "."));
  if (field.dataset.type === "list") return listOf(text);
  if (field.dataset.type === "numbers") return listOf(text).map(Number);
  if (field.dataset.type === "words") return wordsOf(text);
  if (field.dataset.type === "json") return JSON.parse(text);
  return text;
}

function bodyOf(form) {
  const body = {};
  const put = (name, value, many = false) => {
    if (value === undefined) return;
    const path = name.split(".");
    const last = path.pop();
    let at = body;
    for (const part of path) at = at[part] ??= {};
    if (many) (at[last] ??= []).push(value);
    else at[last] = value;
  };
  for (const field of form.elements) {
    if (!field.name || field.matches(":disabled") || field.type === "file" || field.type === "submit") continue;
    if (field.type === "radio") {
      if (field.checked) put(field.name, field.value);
    } else if (field.type === "checkbox" && field.dataset.many !== undefined) {
      if (field.checked) put(field.name, field.value, true);
    } else put(field.name, valueOf(field));
  }
  return body;
}

function clearFaults(form) {
  $$(".fault", form).forEach((one) => one.remove());
  $$("[aria-invalid]", form).forEach((one) => one.removeAttribute("aria-invalid"));
  const note = $(".answer", form);
  if (note) note.hidden = true;
}

// Each fault of a problem document beside its field; the whole in the form's own note.
function showFaults(form, error) {
  const note = $(".answer", form);
  note.textContent = said(error);
  note.hidden = false;
  let first = note;
  for (const fault of (error instanceof Problem && error.document.errors) || []) {
    const path = fault.pointer.split("/").slice(1);
    // the field itself, or the nearest that holds it: `/seeds/1` is in the field of seeds
    const names = path.map((_, n) => path.slice(0, path.length - n).join("."));
    const field = names.map((name) => form.elements[name]).find(Boolean);
    const several = field && field.length !== undefined && field.tagName !== "SELECT";
    const at = several ? [...field].find((one) => !one.matches(":disabled")) || field[0] : field;
    if (!at) continue;
    const text = document.createElement("p");
    text.className = "fault";
    text.id = `fault-${at.name}`;
    text.textContent = fault.message;
    at.setAttribute("aria-invalid", "true");
    at.setAttribute("aria-describedby", text.id);
    at.closest("details")?.setAttribute("open", "");
    (at.closest(".picks") || at).after(text);
    if (first === note) first = at;
  }
  first.focus?.();
  note.scrollIntoView({ block: "nearest" });
}

async function send(form) {
  clearFaults(form);
  const button = $("button[type=submit]", form);
  button.disabled = true;
  form.dataset.key ||= newKey();
  try {
    let body;
    try {
      body = bodyOf(form);
    } catch {
      throw new Problem({ detail: "One of the fields should hold JSON and does not." });
    }
    const made = await ask("POST", form.dataset.post, body, { "Idempotency-Key": form.dataset.key });
    if (form.dataset.shows) {
      delete form.dataset.key;
      button.disabled = false;
      form.reset();
      return showMade(made[form.dataset.shows]);
    }
    location.assign(form.dataset.go.replace("{id}", made?.id ?? ""));
  } catch (error) {
    // a request that was refused may be mended and sent again; one without an answer is the same request
    if (error instanceof Problem) delete form.dataset.key;
    showFaults(form, error);
    button.disabled = false;
  }
}

// What is shown this once, such as a key.
async function showMade(text) {
  $("[data-made]").textContent = text;
  $("#made").hidden = false;
  $("#made").scrollIntoView({ block: "nearest" });
  await refresh();
}

// ---- buttons: cancel, retry, delete, ...

async function act(button) {
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
  button.disabled = true;
  const note = $("#answer");
  try {
    const body = button.dataset.body ? JSON.parse(button.dataset.body) : undefined;
    const made = await ask(button.dataset.method || "POST", button.dataset.act, body, { "Idempotency-Key": newKey() });
    if (button.dataset.shows) await showMade(made[button.dataset.shows]);
    else if (button.dataset.go) location.assign(button.dataset.go.replace("{id}", made?.id ?? ""));
    else await refresh();
    if (note) note.hidden = true;
  } catch (error) {
    if (note) {
      note.textContent = said(error);
      note.hidden = false;
      note.focus();
    }
  }
  button.disabled = false;
}

// ---- tables: a click on a heading sorts, by data-sort of each cell; what has no value stays last

function sortBy(button) {
  const heading = button.closest("th");
  const table = heading.closest("table");
  const column = [...heading.parentNode.children].indexOf(heading);
  const up = heading.getAttribute("aria-sort") !== "ascending";
  $$("th", heading.parentNode).forEach((one) => one.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.children[column].dataset.sort ?? row.children[column].textContent.trim();
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
  sorted = { column, up };
}
let sorted = null;

// ---- keeping fresh: one stream says that something changed, one small request brings what is new

const LEAST_MS = 1000;
let stream = null;
let due = null;
let last = 0;

function away(is) {
  const note = $("#away");
  if (note) note.hidden = !is;
}

// Puts what is new in place, piece by piece, so that what is open, focused or scrolled stays so.
function put(fresh) {
  for (const piece of $$("[data-live]", fresh)) {
    const old = document.getElementById(piece.id);
    if (!old || old.innerHTML === piece.innerHTML) continue;
    const open = new Set($$("details[open][id]", old).map((one) => one.id));
    const focused = old.contains(document.activeElement) ? document.activeElement.id : null;
    $$("details[id]", piece).forEach((one) => open.has(one.id) && one.setAttribute("open", ""));
    old.replaceChildren(...piece.childNodes);
    if (focused) document.getElementById(focused)?.focus();
    if (sorted && $("th button", old)) {
      const heading = $$("thead th", old)[sorted.column];
      if (heading) {
        if (!sorted.up) heading.setAttribute("aria-sort", "ascending");
        sortBy($("button", heading));
      }
    }
  }
  const main = $("main");
  const follow = $("[data-follow]", fresh)?.dataset.follow || "";
  if (main.dataset.follow !== follow) {
    main.dataset.follow = follow;
    listen();
  }
}

async function refresh() {
  clearTimeout(due);
  due = null;
  last = Date.now();
  const url = new URL(location.href);
  url.searchParams.set("bare", "1");
  try {
    const answer = await fetch(url);
    if (answer.status === 401 || answer.status === 404) return location.reload();
    if (!answer.ok) throw new TypeError(answer.status);
    put(new DOMParser().parseFromString(await answer.text(), "text/html"));
    away(false);
  } catch {
    away(true);
    due = setTimeout(refresh, 10000);
  }
}

function soon() {
  if (due === null && !document.hidden) due = setTimeout(refresh, Math.max(50, last + LEAST_MS - Date.now()));
}

function listen() {
  stream?.close();
  stream = null;
  const follow = $("main").dataset.follow;
  if (!follow || document.hidden) return;
  stream = new EventSource(follow);
  // a stream begins with all that happened before: that is one change, and `soon` makes it one request
  for (const kind of ["state", "progress", "score", "curve"]) stream.addEventListener(kind, soon);
  stream.addEventListener("end", () => {
    stream.close();
    soon();
  });
  stream.onopen = () => {
    away(false);
    reopened = 0;
  };
  stream.onerror = () => {
    away(true);
    // a browser tries again by itself where the connection broke, but gives up where something else answered
    if (stream.readyState === EventSource.CLOSED) reopen();
  };
}

let reopened = 0;
function reopen() {
  const wait = Math.min(30000, 1000 * 2 ** reopened++);
  setTimeout(() => refresh().then(() => document.hidden || stream?.readyState !== EventSource.CLOSED || listen()), wait);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    clearTimeout(due);
    due = null;
  } else if ($("main").dataset.fresh !== undefined) {
    refresh().then(listen);
  }
});

// ---- what a form's work will take: from what earlier work took, and from counts

function seconds(value) {
  if (value < 90) return `${Math.max(1, Math.round(value))} s`;
  if (value < 5400) return `${Math.round(value / 60)} minutes`;
  return `${(value / 3600).toFixed(1)} hours`;
}

const USUAL_IMAGES = 500;
const several = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const checked = (form, name) => $$(`[name="${name}"]:checked`, form);

function takes(form, note) {
  const usual = Number(note.dataset.takes);
  const chosen = checked(form, "checkpoint_ids");
  const held = Number(form.elements.dataset_id.selectedOptions[0]?.dataset.images || Infinity);
  const images = Math.min(held, Number(form.elements.max_images.value) || USUAL_IMAGES);
  const reads = `${several(chosen.length, "candidate")} × ${images} pictures`;
  if (!chosen.length) note.textContent = "Choose candidates to see.";
  else if (!usual) note.textContent = `${reads}. How long a picture takes here, the first ranking will tell.`;
  else {
    const half = form.elements.zero_point.checked ? 1 : 0.5;
    const all = chosen.reduce((sum, one) => sum + images * half * (Number(one.dataset.pace) || usual), 0);
    const known = chosen.filter((one) => one.dataset.pace).length;
    const workers = Number(note.dataset.workers);
    note.textContent = `${reads}: about ${seconds(all)} of one worker${workers > 1 ? `, ${seconds(all / Math.min(workers, chosen.length))} on ${workers}` : ""}. ${known} of them were timed in earlier rankings${known < chosen.length ? "; the others are taken for usual" : ""}.`;
  }
}

// How many fine-tunings a pretraining's comparison has.
function compared(form) {
  const field = (name) => form.elements[name].value;
  const student = form.elements["compare.self_training"];
  const also = student.checked && !student.matches(":disabled") ? 1 : 0;
  const arms = 2 + also + checked(form, "compare.checkpoint_ids").length;
  return arms * (listOf(field("compare.label_fractions")).length || 1) * (Number(field("compare.seeds")) || 0);
}

function counts(form, note) {
  const field = (name) => form.elements[name]?.value ?? "";
  if (note.dataset.counts === "compare") {
    note.textContent = `${several(compared(form), "fine-tuning")} come on top.`;
    return;
  }
  const [sets, candidates] = ["dataset_ids", "checkpoint_ids"].map((name) => checked(form, name).length);
  const trainings = sets * candidates * listOf(field("seeds")).length;
  note.textContent = trainings
    ? `${several(sets * candidates, "scoring")} and ${several(trainings, "training")}. Scorings take seconds to minutes, trainings minutes to hours each.`
    : "Choose datasets and candidates to see.";
}

// Seconds of fine-tunings, where a step of such a one was measured.
function trains(form, note) {
  const field = (name) => form.elements[name]?.value ?? "";
  const known = JSON.parse(note.dataset.trains);
  const ids = form.elements.checkpoint_id ? [field("checkpoint_id")] : checked(form, "checkpoint_ids").map((one) => one.value);
  const recipe = field("recipe") || note.dataset.recipe;
  const alike = (one) =>
    one && one.recipe === recipe && ["image_size", "batch_size"].every((name) => !field(name) || Number(field(name)) === one[name]);
  const told = ids.map((id) => known[id]).filter(alike);
  const one = told[0];
  if (!ids.length) note.textContent = "Choose candidates to see.";
  else if (!recipe) note.textContent = "Choose a recipe to see.";
  else if (!one) note.textContent = "Not known: no step of such a training has been measured. A ranking that measures what fine-tuning costs will tell.";
  else {
    const minutes = form.elements.checkpoint_id ? Number(field("budget_minutes")) : 0;
    const steps = (each) => (minutes ? minutes * 60 : (Number(field("iterations")) || each.iterations) * each.step_s);
    const all = told.reduce((sum, each) => sum + each.seconds - each.iterations * each.step_s + steps(each), 0);
    const rest = told.length < ids.length ? `; of the others it is not known` : "";
    const memory = ids.length === 1 ? ` and ${one.memory} of memory` : "";
    note.textContent = `${ids.length > 1 ? `To fine-tune ${told.length} of them by ${recipe}: about` : "About"} ${seconds(all)}${memory} on ${one.device}, by steps that were measured there${rest}.`;
  }
}

// Seconds of a pretraining, by what an earlier one of its kind took for a picture.
function pretrains(form, note) {
  const open = (name) => $$(`[name="${name}"]`, form).find((one) => !one.matches(":disabled"));
  const number = (name) => Number((open(name)?.value ?? "").replace(",", "."));
  const method = form.elements.method.value;
  const family = open("architecture")?.value || form.elements.from_checkpoint.selectedOptions[0].dataset.family || "";
  const one = JSON.parse(note.dataset.pretrains).find((each) => each.method === method && (!family || each.family === family));
  const compares = open("compare.seeds") ? compared(form) : 0;
  if (!one) {
    note.textContent = "Not known: none of this kind has ended here. The first one will tell what the next takes.";
    return;
  }
  const images = Number(form.elements.dataset_id.selectedOptions[0]?.dataset.images || 0);
  const recipe = open("recipe").selectedOptions[0].dataset;
  const batch = number("batch_size") || Number(recipe.batch) || one.batch;
  const epochs = number("epochs") || (number("iterations") ? 0 : Number(recipe.epochs));
  const looks = epochs ? epochs * images : (number("iterations") || one.iterations) * batch;
  const scale = one.size && number("image_size") ? (number("image_size") / one.size) ** 2 : 1;
  const learning = (number("budget_minutes") * 60 || looks * one.image_s * scale) * (number("rounds") || 1);
  const parts = [`about ${seconds(learning)} of training`];
  if (one.region_s && method === "detreg") parts.push(`${seconds(images * one.region_s)} for its regions`);
  if (compares) {
    const longer = number("compare.iterations") && one.tuning_iterations ? number("compare.iterations") / one.tuning_iterations : 1;
    parts.push(`${several(compares, "fine-tuning")}${one.tuning_s ? ` of about ${seconds(one.tuning_s * longer)} each` : ", whose seconds are not known"}`);
  }
  const text = parts.join(", then ");
  note.textContent = `${text[0].toUpperCase()}${text.slice(1)}, of one worker: by what an earlier one${one.family ? ` of ${one.family}` : ""}${one.size ? ` at ${one.size} pixels` : ""} took here.`;
}

function foretell(form) {
  for (const note of $$("[data-pretrains]", form)) pretrains(form, note);
  for (const note of $$("[data-trains]", form)) trains(form, note);
  for (const note of $$("[data-takes]", form)) takes(form, note);
  for (const note of $$("[data-counts]", form)) counts(form, note);
}

// ---- filters of long lists of choices

function filter(input) {
  const wanted = input.value.trim().toLowerCase();
  $$(input.dataset.filter).forEach((one) => {
    one.hidden = wanted !== "" && !one.textContent.toLowerCase().includes(wanted) && !$(":checked", one);
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "theme") changeTheme();
  else if (button.dataset.act) act(button);
  else if (button.dataset.fill) {
    const field = document.getElementById(button.dataset.fill);
    field.value = button.dataset.value;
    field.focus();
  } else if (button.dataset.all !== undefined) {
    const boxes = $$(`${button.dataset.all} input[type=checkbox]`);
    const on = boxes.some((one) => !one.checked);
    boxes.forEach((one) => (one.checked = on));
    if (button.form) foretell(button.form);
  } else if (button.closest("thead")) sortBy(button);
});
document.addEventListener("submit", (event) => {
  if (event.target.dataset.post === undefined) return;
  event.preventDefault();
  send(event.target);
});
document.addEventListener("input", (event) => {
  if (event.target.dataset?.filter) filter(event.target);
  if (event.target.dataset?.enables) document.getElementById(event.target.dataset.enables).disabled = !event.target.checked;
  if (event.target.dataset?.switch !== undefined) {
    for (const one of $$("[data-when]", event.target.form)) one.hidden = one.disabled = one.dataset.when !== event.target.value;
  }
  if (event.target.form?.dataset.post) foretell(event.target.form);
});
document.addEventListener("DOMContentLoaded", () => {
  listen();
  $$("form[data-post]").forEach(foretell);
});
window.detrank = { ask, said, refresh, showFaults, clearFaults, bodyOf, Problem };
