// Images in, answers out; each answer can be corrected.

import * as api from "./api.js";
import { $, bar, counted, make, percent } from "./dom.js";

const MOST = 500; // cards on the page; the oldest go first

export class Recognizer {
  // `correct(file, label)` takes an image with its right class; null where nothing can be learned.
  constructor(limits, correct) {
    this.limits = limits;
    this.correct = correct;
    this.waiting = Promise.resolve();
    $("images").addEventListener("change", () => {
      this.take([...$("images").files]);
      $("images").value = "";
    });
    $("clear").addEventListener("click", () => this.clear());
    const drop = $("drop");
    for (const name of ["dragenter", "dragover"]) {
      drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      });
    }
    for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.take([...event.dataTransfer.files]);
    });
    // An image that misses the field must not replace the page.
    for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  }

  take(files) {
    if (files.length) this.waiting = this.waiting.then(() => this.recognize(files));
  }

  async recognize(files) {
    const { parts, tooLarge } = api.parts(files, this.limits);
    const count = { done: 0, strange: 0, unusable: tooLarge.length };
    for (const file of tooLarge) this.show(file, { error: "the file is too large" });
    for (const part of parts) {
      $("said").textContent = `Looking at ${counted(files.length, "image")} … ${count.done || ""}`;
      let told;
      try {
        told = await api.predict(part, $("task").value);
      } catch (error) {
        $("said").textContent = `Not recognized: ${error.message}`;
        return;
      }
      for (const row of told.predictions) {
        this.show(part[row.image], row);
        count.done += 1;
        count.strange += row.strange ? 1 : 0;
        count.unusable += row.error ? 1 : 0;
      }
    }
    const more = [
      count.strange ? `${count.strange} unlike anything learned` : "",
      count.unusable ? `${count.unusable} could not be used` : "",
    ].filter(Boolean);
    $("said").textContent = `${[counted(files.length - count.unusable, "image") + " recognized", ...more].join(", ")}.`;
  }

  show(file, row) {
    const image = make("img", { alt: row.error ? "" : `taken for ${row.label}` });
    const url = URL.createObjectURL(file);
    image.addEventListener("load", () => {
      if (image.naturalWidth <= 96) image.classList.add("small");
    });
    image.addEventListener("error", () => image.remove(), { once: true });
    image.src = url;
    const words = row.error
      ? [make("div", { class: "label" }, "Cannot be used"), make("div", {}, row.error)]
      : [
          make("div", { class: "label" }, row.label),
          make("div", { class: "share" }, bar(row.probability), make("div", { class: "number" }, percent(row.probability))),
          make("div", {}, `task ${row.task}`, row.task_probability === null ? "" : ` (${percent(row.task_probability)})`),
          row.strange ? make("div", { class: "badge" }, "unlike anything learned") : null,
          this.others(row),
          this.correct ? this.correction(file, row) : null,
        ];
    const name = make("div", { class: "name", title: file.name }, file.name);
    const card = make("li", { class: "answer" }, make("div", { class: "picture" }, image), make("div", { class: "words" }, ...words.filter(Boolean), name));
    card.url = url;
    $("answers").prepend(card);
    while ($("answers").children.length > MOST) this.drop($("answers").lastElementChild);
    $("clear").hidden = false;
  }

  others(row) {
    const lines = (shares) =>
      Object.entries(shares)
        // Names that are numbers come first in an object, whatever was sent first.
        .sort((one, other) => other[1] - one[1])
        .slice(0, 5)
        .map(([name, share]) => make("div", { class: "share" }, make("div", {}, name), make("div", { class: "number" }, percent(share))));
    const found = make("details", {}, make("summary", {}, "more"), make("strong", {}, "classes"), ...lines(row.classes));
    if (row.tasks) found.append(make("strong", {}, "tasks"), ...lines(row.tasks));
    return found;
  }

  correction(file, row) {
    const place = make("div", { class: "correct" });
    const ask = make("button", { class: "plain", type: "button" }, "Not right?");
    ask.addEventListener("click", () => {
      const input = make("input", { type: "text", list: "classes", maxlength: 120, "aria-label": "right class", placeholder: "right class", required: true });
      const form = make("form", {}, input, make("button", {}, "Correct"));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const label = input.value.trim();
        if (!label) return;
        this.correct(file, label);
        const said = make("div", { class: "done", tabindex: -1 }, `“${label}”: kept as an example for a new task, below`);
        place.replaceChildren(said);
        said.focus();
      });
      place.replaceChildren(form);
      input.focus();
    });
    place.append(ask);
    return place;
  }

  drop(card) {
    URL.revokeObjectURL(card.url);
    card.remove();
  }

  clear() {
    for (const card of [...$("answers").children]) this.drop(card);
    $("clear").hidden = true;
    $("said").textContent = "";
    $("images").focus();
  }
}
