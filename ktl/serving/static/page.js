"use strict";

const element = (id) => document.getElementById(id);
const model = document.body.dataset.model;
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

let running = new AbortController();

function show({ error = "", status = "" }) {
  element("error").textContent = error;
  element("status").textContent = status;
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function predict(file, signal) {
  const body = JSON.stringify({ instances: [{ b64: await base64(file) }] });
  const url = `/v1/models/${encodeURIComponent(model)}:predict`;
  const response = await fetch(url, { method: "POST", body, signal });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(text || response.statusText); // the server is too busy for an answer in JSON
  }
  if (!response.ok) throw new Error(answer.error);
  return answer.predictions[0];
}

function row(label, probability) {
  const item = document.createElement("li");
  for (const [name, text] of [["label", label], ["percent", percent.format(probability)]]) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    item.append(part, " "); // the space keeps the two apart when they are read aloud
  }
  const track = document.createElement("div");
  const bar = document.createElement("div");
  track.className = "track";
  bar.className = "bar";
  bar.style.width = `${100 * probability}%`;
  track.append(bar);
  item.append(track);
  return item;
}

function showPhoto(file) {
  const photo = element("photo");
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(file);
  photo.alt = `Your photo, ${file.name}`;
}

async function classify(file) {
  running.abort(); // of two photos in a row, the answer of the first must not come last
  running = new AbortController();
  const { signal } = running;
  element("result").hidden = true;
  show({ status: `Looking at ${file.name} …` });
  try {
    const { label, top_k_labels: labels, top_k_probabilities: probabilities } = await predict(file, signal);
    if (signal.aborted) return;
    showPhoto(file);
    element("best").textContent = label;
    element("classes").replaceChildren(...labels.map((name, index) => row(name, probabilities[index])));
    element("result").hidden = false;
    show({ status: `${file.name}: ${label}, ${percent.format(probabilities[0])}` });
  } catch (error) {
    if (!signal.aborted) show({ error: `${file.name}: ${error.message.replace(/^instances\[0\]: /, "")}` });
  }
}

function take(files) {
  if (files.length) classify(files[0]);
}

element("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same photo can be chosen again
});

document.addEventListener("paste", (event) => take(event.clipboardData.files));

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});

document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});

document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files);
});
