// Boxes above a score of one's own: which are shown, what they come to, and which true boxes nobody finds then.
"use strict";

const sliders = [...document.querySelectorAll("[data-cut]")];

// Shows the boxes of a figure from a score on; counts them, and notes the objects that they hit.
function cut(figure, least, hit) {
  const counted = { hit: 0, false: 0, ignored: 0 };
  for (const one of figure.querySelectorAll("[data-score]")) {
    const kept = Number(one.dataset.score) >= least;
    one.toggleAttribute("hidden", !kept);
    if (!kept) continue;
    counted[one.dataset.outcome] += 1;
    if (one.dataset.outcome === "hit") hit.add(one.dataset.object);
  }
  return [counted.hit, counted.false, Number(figure.dataset.objects) - counted.hit];
}

const said = ([right, wrong, missed]) => `${right} right, ${wrong} false, ${missed} missed`;

function show() {
  const least = sliders.map((one) => Number(one.value));
  const all = sliders.map(() => [0, 0, 0]);
  for (const shot of document.querySelectorAll(".shot")) {
    const hit = new Set();
    for (const figure of shot.querySelectorAll("[data-found]")) {
      const side = sliders.findIndex((one) => one.dataset.cut === figure.dataset.found);
      const found = cut(figure, least[side], hit);
      all[side] = all[side].map((sum, n) => sum + found[n]);
      figure.querySelector("[data-count]").textContent = said(found);
    }
    for (const one of shot.querySelectorAll("[data-truth] [data-object]")) {
      one.classList.toggle("missed", !hit.has(one.dataset.object));
    }
  }
  sliders.forEach((one, n) => {
    document.getElementById(one.id.replace("cut", "said")).textContent = least[n].toFixed(2);
    document.getElementById(one.id.replace("cut", "sum")).textContent = `On these pictures: ${said(all[n])}.`;
  });
}

for (const slider of sliders) slider.addEventListener("input", show);
show();
