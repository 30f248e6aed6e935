// Pseudo boxes one after the other: accepted, rejected or corrected by key or mouse; then pictures whose missed objects are
// counted. Every answer goes to the service at once.
"use strict";

const { ask, said, refresh } = window.detrank;
const at = (selector) => document.querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";
const stage = at("#stage");
const view = at("#view");
const url = at("[data-review]").dataset.review;
const note = at("#answer");

let review = { items: [], pictures: [] };
let place = 0; // among the items, then the pictures
let whole = false;
let box = null; // [x, y, width, height] while one is corrected
let size = [1, 1];

const count = () => review.items.length + review.pictures.length;
const item = () => review.items[place];
const picture = () => review.pictures[place - review.items.length];
const answered = (one) => (one.number === undefined ? one.missed !== null : one.decision !== null);
const all = () => [...review.items, ...review.pictures];

function draw(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  view.append(made);
  return made;
}

// The part of the picture that is shown: all of it, or three times the box around it.
function window_() {
  const shown = box || item()?.bbox;
  if (whole || box || !shown) return [0, 0, ...size];
  const side = Math.max(shown[2], shown[3], 24) * 3;
  return [shown[0] + shown[2] / 2 - side / 2, shown[1] + shown[3] / 2 - side / 2, side, side];
}

function outline([x, y, width, height], kind, text, letters) {
  const drawn = draw("rect", { x, y, width, height, class: `box ${kind}` });
  if (text) draw("text", { x: x + letters / 6, y: Math.max(y - letters / 4, letters), "font-size": letters, class: "boxname" }, text);
  return drawn;
}

function paint() {
  const seen = window_();
  const letters = Math.max(seen[2], seen[3]) / 30;
  view.setAttribute("viewBox", seen.join(" "));
  view.replaceChildren();
  const one = item() || picture();
  if (one.image_url) draw("image", { href: one.image_url, width: size[0], height: size[1] });
  if (!item()) {
    for (const each of one.boxes) outline(each.bbox, "object", each.category, letters);
    return;
  }
  const kind = { reject: "false", correct: "ignored" }[one.decision] || "object";
  outline(one.bbox, box ? "ignored" : kind, `${one.category} ${one.score.toFixed(2)}`, letters);
  const mended = box || one.corrected?.bbox;
  if (mended) outline(mended, "object", box ? "" : one.corrected.category, letters);
}

function measured(one) {
  return new Promise((done) => {
    const image = new Image();
    image.onload = () => done([image.naturalWidth, image.naturalHeight]);
    const far = one.bbox || one.boxes.reduce((most, b) => [0, 0, Math.max(most[2], b.bbox[0] + b.bbox[2]), Math.max(most[3], b.bbox[1] + b.bbox[3])], [0, 0, 1, 1]);
    image.onerror = () => done([far[0] + far[2], far[1] + far[3]]);
    if (one.image_url) image.src = one.image_url;
    else image.onerror();
  });
}

const WORDS = { accept: "You said: right.", reject: "You said: wrong.", correct: "You corrected it." };

async function show(to) {
  place = Math.min(Math.max(0, to), count() - 1);
  box = null;
  const one = item() || picture();
  const here = place;
  const found = await measured(one);
  if (here !== place) return; // somebody went on meanwhile
  size = found;
  at("progress").value = all().filter(answered).length / Math.max(1, count());
  at("#correcting").hidden = true;
  at("#counting").hidden = Boolean(item());
  document.querySelectorAll("[data-answer]").forEach((button) => (button.hidden = !item()));
  const left = all().filter((each) => !answered(each)).length;
  const number = item() ? `Box ${place + 1} of ${review.items.length}` : `Picture ${place - review.items.length + 1} of ${review.pictures.length}`;
  const asks = item() ? `is this ${one.category}, and the box right? ${WORDS[one.decision] || ""}` : "which objects have no box?";
  at("#asked").textContent = `${number}: ${asks}${left ? "" : " All is answered."}`;
  if (!item()) at("#f-missed").value = one.missed ?? "";
  paint();
}

async function put(body) {
  try {
    review = await ask("PUT", url, body);
    note.hidden = true;
    refresh();
    return true;
  } catch (error) {
    note.textContent = said(error);
    note.hidden = false;
    return false;
  }
}

async function decide(decision, corrected) {
  if (await put({ items: [{ number: item().number, decision, corrected }] })) await show(place + 1);
}

function correct() {
  const one = item();
  box = [...(one.corrected?.bbox || one.bbox)];
  at("#f-category").value = one.corrected?.category || one.category;
  at("#correcting").hidden = false;
  paint();
  stage.focus();
}

function answer(what) {
  if (what === "correct") correct();
  else decide(what);
}

function nudge(event, key) {
  const step = Math.max(1, size[0] / 200);
  const by = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [1, -step], ArrowDown: [1, step] }[key];
  const side = by[0] + (event.shiftKey ? 2 : 0);
  box[side] = event.shiftKey ? Math.max(1, box[side] + by[1]) : box[side] + by[1];
  paint();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const button = event.target.closest("button, a, summary");
  if (box && key.startsWith("Arrow")) nudge(event, key);
  else if (box && key === "Enter" && !button) at("#correcting").requestSubmit();
  else if (box && key === "Escape") show(place);
  else if (key === "ArrowRight") show(place + 1);
  else if (key === "ArrowLeft") show(place - 1);
  else if (key === "z") zoom();
  else if (item() && !box && "arc".includes(key)) answer({ a: "accept", r: "reject", c: "correct" }[key]);
  else return;
  event.preventDefault();
});

function zoom() {
  whole = !whole;
  paint();
}

at("#review").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.answer) answer(button.dataset.answer);
  else if (button?.dataset.step) show(place + Number(button.dataset.step));
  else if (button?.dataset.zoom !== undefined) zoom();
  else if (button?.dataset.leave !== undefined) show(place);
});

at("#correcting").addEventListener("submit", (event) => {
  event.preventDefault();
  const bbox = box.map((side) => Math.round(side * 10) / 10);
  decide("correct", { bbox, category: at("#f-category").value });
});

at("#counting").addEventListener("submit", async (event) => {
  event.preventDefault();
  const missed = Number(at("#f-missed").value);
  if (await put({ pictures: [{ image_id: picture().image_id, missed }] })) await show(place + 1);
});

// ---- a box drawn anew

let corner = null;
const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(view.getScreenCTM().inverse());
view.addEventListener("pointerdown", (event) => {
  if (!box) return;
  corner = point(event);
  view.setPointerCapture(event.pointerId);
});
view.addEventListener("pointermove", (event) => {
  if (!corner) return;
  const now = point(event);
  box = [Math.min(corner.x, now.x), Math.min(corner.y, now.y), Math.abs(now.x - corner.x), Math.abs(now.y - corner.y)];
  paint();
});
view.addEventListener("pointerup", () => (corner = null));

// ---- answers of a labelling tool

at("#f-coco").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (!file) return;
  try {
    const document = JSON.parse(await file.text());
    review = await ask("PUT", `${url}/coco`, document);
    await refresh();
    await show(0);
  } catch (error) {
    note.textContent = error instanceof SyntaxError ? `${file.name} is no JSON.` : said(error);
    note.hidden = false;
  }
});

review = await ask("GET", url);
const first = all().findIndex((one) => !answered(one));
if (count()) await show(first < 0 ? 0 : first);
else at("#asked").textContent = "There is no box to review.";
