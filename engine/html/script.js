"use strict";

// Pictures: each slider shows one of its frames; together they show the frames nearest to the same step.
const viewers = [...document.querySelectorAll("[data-viewer]")].map((figure) => ({
  frames: [...figure.querySelectorAll(".frame")],
  slider: figure.querySelector("input"),
  output: figure.querySelector("output"),
}));
const together = document.getElementById("together");
const stepOf = (frame) => Number(frame.dataset.step);
const withCommas = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

function show(viewer, index) {
  viewer.frames.forEach((frame, other) => frame.classList.toggle("current", other === index));
  const step = stepOf(viewer.frames[index]).toLocaleString("en");
  viewer.slider.value = index;
  viewer.slider.setAttribute("aria-valuetext", `step ${step}`);
  if (viewer.output.textContent !== step) viewer.output.textContent = step;
}

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, index) => {
    if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = index;
  });
  return best;
}

function move(viewer, index) {
  show(viewer, index);
  if (!together.checked) return;
  const step = stepOf(viewer.frames[index]);
  for (const other of viewers) {
    if (other !== viewer) show(other, nearest(other.frames.map(stepOf), step));
  }
}

for (const viewer of viewers) {
  show(viewer, viewer.frames.length - 1);
  viewer.slider.addEventListener("input", () => move(viewer, Number(viewer.slider.value)));
}

// Play: from the first picture to the last of the viewer that has the most.
const play = document.getElementById("play");
if (play) {
  const longest = viewers.reduce((a, b) => (b.frames.length > a.frames.length ? b : a));
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.hidden = longest.frames.length < 2;
  together.closest("label").hidden = viewers.length < 2;
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    let index = 0;
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    move(longest, index);
    timer = setInterval(() => {
      index += 1;
      move(longest, index);
      if (index >= longest.frames.length - 1) stop();
    }, 400);
  });
}

// Curves: the values under the pointer, or where the arrow keys went, stand in the legend.
const readouts = JSON.parse(document.getElementById("readouts").textContent);
for (const figure of document.querySelectorAll("[data-chart]")) {
  const chart = readouts[Number(figure.dataset.chart)];
  const area = figure.querySelector(".area");
  const plot = figure.querySelector(".plot");
  const cursor = figure.querySelector(".cursor");
  const where = figure.querySelector(".where");
  const values = [...figure.querySelectorAll(".value")];
  const steps = [...new Set(chart.lines.flatMap((line) => line.map((point) => point[0])))].sort((a, b) => a - b);
  let at = null;

  const read = (index) => {
    at = index;
    const step = steps[index];
    cursor.hidden = false;
    cursor.style.left = `${(100 * (step - chart.low)) / (chart.high - chart.low)}%`;
    where.textContent = `at step ${step.toLocaleString("en")}`;
    chart.lines.forEach((line, number) => {
      const near = line[nearest(line.map((point) => point[0]), step)];
      values[number].textContent = withCommas(near[1]);
    });
  };
  const leave = () => {
    at = null;
    cursor.hidden = true;
    where.textContent = "";
    for (const value of values) value.textContent = value.dataset.last;
  };
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    read(nearest(steps, chart.low + share * (chart.high - chart.low)));
  });
  area.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const last = steps.length - 1;
    const next = {
      ArrowLeft: at === null ? last : Math.max(0, at - 1),
      ArrowRight: at === null ? 0 : Math.min(last, at + 1),
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Escape") leave();
    if (next === undefined) return;
    event.preventDefault();
    read(next);
  });
}

// On paper everything is open.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("section > details:not([open])")];
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
