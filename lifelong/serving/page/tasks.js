// What was learned, how far each task was from the others, and what was decided.

import { $, bar, counted, duration, make, number, percent } from "./dom.js";

const SHOWN = 12; // distances of a task

// `forgetting` forgets tasks; null where nothing can be forgotten.
export function showTasks(tasks, forgetting) {
  const open = new Set([...$("task-list").querySelectorAll("details[open]")].map((item) => item.dataset.name));
  $("task-list").replaceChildren(...tasks.map((task, index) => element(task, index, open.has(task.name), forgetting)).reverse());
  const classes = [...new Set(tasks.flatMap((task) => task.classes))].sort();
  $("classes").replaceChildren(...classes.map((name) => make("option", { value: name })));
  const chosen = $("task").value;
  const names = tasks.map((task) => make("option", { value: task.name }, task.name));
  $("task").replaceChildren(make("option", { value: "" }, "found by itself"), ...names);
  $("task").value = tasks.some((task) => task.name === chosen) ? chosen : "";
}

function element(task, index, open, forgetting) {
  const now = task.accuracy_now ?? task.accuracy_learned;
  const { train, valid, test } = task.images;
  return make(
    "details",
    { class: "task", open, "data-name": task.name },
    make(
      "summary",
      {},
      make("span", { class: "called" }, `${index + 1} · ${task.name}`),
      make("span", { class: "quiet" }, `${counted(task.classes.length, "class")}, ${now === null ? "not judged" : `${percent(now)} right`}`),
    ),
    make(
      "div",
      { class: "body" },
      make("p", {}, task.decided),
      task.reason ? make("p", { class: "quiet" }, task.reason) : null,
      scale(task),
      distances(task),
      make("ul", { class: "chips", "aria-label": "classes" }, ...task.classes.map((name) => make("li", {}, name))),
      make(
        "p",
        { class: "quiet" },
        `${train} / ${valid} / ${test} images (train / valid / test), ${task.image_size}×${task.image_size} pixels`,
        task.seconds === null ? "" : `, learned in ${duration(task.seconds)}`,
        changed(task),
      ),
      ...task.notes.map((note) => make("p", { class: "quiet" }, note)),
      forgetting && forgetting.element(task),
    ),
  );
}

function changed(task) {
  const { accuracy_learned: then, accuracy_now: now } = task;
  if (then === null || now === null || Math.abs(then - now) < 0.0005) return "";
  return `; ${percent(then)} right when it was learned, ${percent(now)} now`;
}

// The distance to each group of tasks on a line from 0 to 1, with the thresholds between the decisions.
function scale(task) {
  if (task.nearest === null || task.alpha === null) return null;
  const drawn = make("div", { class: "scale", role: "img", "aria-label": `distance to the nearest group: ${task.against}` });
  const marks = [
    [0, "0"],
    [task.alpha, `α ${task.alpha}`],
    ...(task.beta === null ? [] : [[Math.max(task.alpha, task.beta), `β ${task.beta}`]]),
    [1, "1"],
  ];
  ["expert", "cell", "search"].forEach((kind, index) => {
    if (index + 1 >= marks.length) return;
    const band = make("i", { class: `band-${kind}` });
    place(band, marks[index][0]);
    band.style.width = `${100 * (marks[index + 1][0] - marks[index][0])}%`;
    drawn.append(band);
  });
  for (const distance of task.groups) if (distance !== null) drawn.append(place(make("b"), distance));
  for (const [value, words] of marks) drawn.append(place(make("span", {}, words), value));
  return drawn;
}

function place(item, share) {
  item.style.left = `${Math.min(Math.max(100 * share, 0), 100)}%`;
  return item;
}

function distances(task) {
  if (!task.distances.length) return null;
  const most = Math.max(...task.distances.map((item) => item.distance), 1e-9);
  const lines = task.distances
    .slice(0, SHOWN)
    .map((item) => make("li", {}, make("span", {}, item.task), bar(item.distance / most), make("span", { class: "number" }, number(item.distance))));
  const more = task.distances.length - SHOWN;
  return make(
    "div",
    {},
    make("strong", {}, "Distance from earlier tasks"),
    make("span", { class: "quiet" }, " (the nearest first; shorter is more alike)"),
    make("ul", { class: "bars" }, ...lines),
    more > 0 ? make("p", { class: "quiet" }, `and ${counted(more, "more task")}, farther away`) : null,
  );
}
