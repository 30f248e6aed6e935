// Resumable uploads by tus 1.0 over the public API: a form with a file goes in pieces, and goes on where it stopped,
// also after a reload: by one click where the browser lets a page remember a file, else when the same file is chosen again.
"use strict";

const { ask: askApi, showFaults: faults, clearFaults: clear, bodyOf: fields, Problem: Refusal } = window.detrank;
const PIECE = 8 * 1024 * 1024;
const TUS = { "Tus-Resumable": "1.0.0" };
const form = document.querySelector("form[data-upload]");
const input = form.querySelector("input[type=file]");
const bar = form.querySelector("progress");
const status = form.querySelector(".status");
const stop = form.querySelector("button[data-stop]");
const goOn = form.querySelector("button[data-go-on]");
let stopped = null;

const print = (file) => `upload:${form.dataset.upload}:${file.name}:${file.size}:${file.lastModified}`;
const mib = (bytes) => (bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

// ---- files remembered over a reload, by `print`: handles of the File System Access API, which only Chromium has

const REMEMBERS = "showOpenFilePicker" in window && "indexedDB" in window;
let handle = null;

function inStore(mode, act) {
  return new Promise((done, failed) => {
    const opening = indexedDB.open("detrank", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("files");
    opening.onerror = () => failed(opening.error);
    opening.onsuccess = () => {
      const asked = act(opening.result.transaction("files", mode).objectStore("files"));
      asked.onsuccess = () => done(asked.result);
      asked.onerror = () => failed(asked.error);
      asked.transaction.oncomplete = () => opening.result.close();
    };
  });
}

// Remembering is a convenience: where it fails the same file is chosen again.
const remembered = (name) => (REMEMBERS ? inStore("readonly", (store) => store.get(name)).catch(() => null) : null);
const remember = (name) => handle && inStore("readwrite", (store) => store.put(handle, name)).catch(() => {});
const forget = (name) => {
  localStorage.removeItem(name);
  if (REMEMBERS) inStore("readwrite", (store) => store.delete(name)).catch(() => {});
};

function hold(file) {
  const held = new DataTransfer();
  held.items.add(file);
  input.files = held.files;
  named();
}

if (REMEMBERS) {
  input.addEventListener("click", async (event) => {
    event.preventDefault();
    try {
      [handle] = await window.showOpenFilePicker();
      hold(await handle.getFile());
    } catch (error) {
      if (error.name !== "AbortError") throw error; // nothing was chosen
    }
  });
}

function unfinished() {
  for (let n = 0; n < localStorage.length; n++) {
    const name = localStorage.key(n);
    if (name.startsWith(`upload:${form.dataset.upload}:`)) return { name, ...JSON.parse(localStorage.getItem(name)) };
  }
  return null;
}

// How much of an upload has arrived; null where the service knows it no more.
async function arrived(url) {
  const answer = await fetch(url, { method: "HEAD", headers: TUS });
  if (answer.status === 404 || answer.status === 410) return null;
  if (!answer.ok) throw new TypeError(answer.status);
  return Number(answer.headers.get("Upload-Offset"));
}

async function begun(file) {
  const kept = JSON.parse(localStorage.getItem(print(file)) || "null");
  if (kept) {
    const offset = await arrived(kept.url);
    if (offset !== null) return { url: kept.url, offset };
    forget(print(file));
  }
  const headers = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": `filename ${base64(file.name)}` };
  const made = await askApi("POST", "/v1/uploads", undefined, headers);
  const url = `/v1/uploads/${made.id}`;
  localStorage.setItem(print(file), JSON.stringify({ url, file: file.name, size: file.size }));
  await remember(print(file));
  return { url, offset: 0 };
}

// One piece; XMLHttpRequest, for it alone tells how much of a body has gone.
function piece(url, file, offset) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", url);
    for (const [name, value] of Object.entries(TUS)) request.setRequestHeader(name, value);
    request.setRequestHeader("Upload-Offset", String(offset));
    request.setRequestHeader("Content-Type", "application/offset+octet-stream");
    request.upload.onprogress = (event) => show(file, offset + event.loaded);
    request.onload = () => {
      if (request.status === 204) return done(Number(request.getResponseHeader("Upload-Offset")));
      if (request.status === 409 || request.status >= 500) return failed(new TypeError(request.status));
      let document = { detail: `The service answered ${request.status}.` };
      try {
        document = JSON.parse(request.responseText);
      } catch {
        // the words above say what is known
      }
      failed(new Refusal(document));
    };
    request.onerror = request.onabort = () => failed(new TypeError("the connection was lost"));
    request.send(file.slice(offset, offset + PIECE));
    stopped = () => request.abort();
  });
}

function show(file, sent) {
  bar.hidden = false;
  bar.value = file.size ? sent / file.size : 1;
  status.textContent = `${mib(sent)} of ${mib(file.size)} MiB sent`;
}

// The id of the finished upload. A connection that breaks is tried again, ever later; what arrived is not sent twice.
async function upload(file) {
  let wait = 1000;
  let at = null;
  for (;;) {
    try {
      at ??= await begun(file);
      while (at.offset < file.size) {
        at.offset = await piece(at.url, file, at.offset);
        wait = 1000;
      }
      return at.url.split("/").pop();
    } catch (error) {
      if (error instanceof Refusal || form.dataset.stopped) throw error;
      status.textContent = `The connection was lost. Trying again in ${wait / 1000} s; what arrived is kept.`;
      await pause(wait);
      wait = Math.min(30000, wait * 2);
      try {
        if (at) at.offset = (await arrived(at.url)) ?? 0;
      } catch {
        // still away: the next turn of the loop finds out
      }
    }
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clear(form);
  const button = form.querySelector("button[type=submit]");
  const file = input.files[0];
  if (!file) {
    faults(form, new Refusal({ detail: "Choose a file first.", errors: [{ pointer: "/file", message: "no file is chosen" }] }));
    return;
  }
  button.disabled = true;
  goOn.hidden = true;
  stop.hidden = false;
  delete form.dataset.stopped;
  try {
    const upload_id = await upload(file);
    status.textContent = "All has arrived. Handing it over …";
    const made = await askApi("POST", form.dataset.upload, { ...fields(form), upload_id });
    forget(print(file));
    location.assign(form.dataset.go.replace("{id}", made.id));
  } catch (error) {
    if (form.dataset.stopped) status.textContent = "Stopped. What arrived is kept for a day: send the same file to go on.";
    else faults(form, error);
    button.disabled = false;
    stop.hidden = true;
  }
});

stop.addEventListener("click", () => {
  form.dataset.stopped = "1";
  stopped?.();
});

function named() {
  const name = form.elements.name;
  const file = input.files[0];
  if (file && name && !name.value) name.value = file.name.replace(/(\.tar)?\.[a-z0-9]+$/i, "").slice(0, 200);
  if (file) status.textContent = `${file.name}, ${mib(file.size)} MiB`;
}
input.addEventListener("change", () => {
  handle = null;
  named();
});

const drop = form.querySelector(".drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  const [item] = event.dataTransfer.items;
  handle = null;
  if (REMEMBERS) item?.getAsFileSystemHandle?.().then((found) => (handle = found?.kind === "file" ? found : null), () => {});
  input.files = event.dataTransfer.files;
  named();
});

// after a reload: what is half there is said, and how to go on
const half = unfinished();
if (half) {
  arrived(half.url)
    .then(async (offset) => {
      if (offset === null) return forget(half.name);
      bar.hidden = false;
      bar.value = offset / half.size;
      const known = await remembered(half.name);
      const how = known ? "Go on there, or choose another file." : "Choose the same file to go on there.";
      status.textContent = `${mib(offset)} of ${mib(half.size)} MiB of ${half.file} have arrived before. ${how}`;
      goOn.hidden = !known;
      goOn.addEventListener("click", () => again(known));
    })
    .catch(() => {});
}

async function again(known) {
  const problem = await known
    .requestPermission({ mode: "read" })
    .then(async (may) => {
      if (may !== "granted") return "The browser may not read the file. Choose it again to go on.";
      const file = await known.getFile();
      if (print(file) !== half.name) return `${half.file} has changed since. Choose the file to send.`;
      handle = known;
      hold(file);
      return null;
    })
    .catch(() => `${half.file} is no longer where it was. Choose the file to send.`);
  if (problem === null) return form.requestSubmit();
  goOn.hidden = true;
  status.textContent = problem;
}
