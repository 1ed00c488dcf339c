// A new task: images collected by class here, sent to the server, and learned there.

import * as api from "./api.js";
import { $, counted, duration, make, number, percent, sure } from "./dom.js";

const FEW = 10; // images of a class, below which the page warns

const PHASES = {
  start: "Getting ready",
  distances: "Measuring how far the task is from those learned before",
  measure: "Measuring how far the task is from those learned before",
  search: "Searching a cell for a new expert",
  train: "Training",
  distill: "Training together with what the shared expert knew",
  recalibrate: "Adjusting the shared expert",
  importance: "Measuring which weights matter",
  evaluate: "Judging all tasks on their test images",
  report: "Writing the report",
};

const inWords = (phase) => PHASES[phase] ?? PHASES[phase.split(/[-/ ]/)[0]] ?? phase;

export class Teacher {
  // `learned()` is called when the server has learned a task.
  constructor(limits, learned) {
    this.limits = limits;
    this.learned = learned;
    this.classes = new Map(); // files by class
    this.busy = false;
    this.corrections = 0;
    $("folder").addEventListener("change", () => this.takeFolder());
    $("class-images").addEventListener("change", () => this.takeClass());
    $("by-class").addEventListener("submit", (event) => {
      event.preventDefault();
      $("class-images").click();
    });
    $("collected").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("forget").addEventListener("click", () => this.reset());
    $("cancel").addEventListener("click", () => this.cancel());
    $("task-name").addEventListener("input", () => this.draw());
    this.seen = null;
    this.watch();
  }

  takeFolder() {
    let count = 0;
    let outside = 0;
    let name = "";
    for (const file of $("folder").files) {
      const places = file.webkitRelativePath.split("/");
      if (file.name.startsWith(".") || !(file.type.startsWith("image/") || /\.(tga|pp?m|pgm|jp2|heic|tiff?)$/i.test(file.name))) continue;
      if (places.length < 3) {
        outside += 1;
        continue;
      }
      name = places[0];
      this.put(file, places.at(-2));
      count += 1;
    }
    $("folder").value = "";
    if (name && !$("task-name").value) $("task-name").value = name;
    const beside = outside ? ` ${counted(outside, "image")} beside the subfolders ${outside === 1 ? "is" : "are"} left out.` : "";
    $("collected-said").textContent = count
      ? `${counted(count, "image")} found.${beside}`
      : `No images in subfolders; each class needs a subfolder of its own.${beside}`;
    this.draw();
  }

  takeClass() {
    const label = $("class-name").value.trim();
    const files = [...$("class-images").files];
    $("class-images").value = "";
    if (!label) {
      $("collected-said").textContent = "Name the class first.";
      $("class-name").focus();
      return;
    }
    for (const file of files) this.put(file, label);
    $("collected-said").textContent = `${counted(files.length, "image")} of “${label}” added.`;
    $("class-name").value = "";
    this.draw();
    $("class-name").focus();
  }

  correct(file, label) {
    this.put(file, label);
    this.corrections += 1;
    if (!$("task-name").value) $("task-name").value = "corrections";
    $("collected-said").textContent = `${counted(this.corrections, "correction")} collected for a new task.`;
    this.draw();
  }

  put(file, label) {
    if (!this.classes.has(label)) this.classes.set(label, []);
    this.classes.get(label).push(file);
  }

  reset() {
    this.classes.clear();
    this.corrections = 0;
    $("task-name").value = "";
    $("collected-said").textContent = "";
    this.draw();
  }

  draw() {
    const rows = [...this.classes].map(([label, files]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, label),
        make("td", { class: "number" }, files.length.toLocaleString("en")),
        make(
          "td",
          {},
          make(
            "button",
            {
              type: "button",
              class: "plain",
              "aria-label": `Drop the class ${label}`,
              onclick: () => {
                this.classes.delete(label);
                this.draw();
              },
            },
            "drop",
          ),
        ),
      ),
    );
    $("collected-rows").replaceChildren(...rows);
    $("collected").hidden = !this.classes.size;
    const least = Math.min(...[...this.classes.values()].map((files) => files.length));
    $("learn").disabled = this.busy || this.classes.size < 2;
    $("advice").textContent =
      this.classes.size < 2
        ? "Add a second class: a task tells classes apart."
        : least < FEW
          ? `A class has only ${counted(least, "image")}. It can be learned, but will not be known well; some of them are needed to judge it.`
          : "";
  }

  async send() {
    const name = $("task-name").value.trim();
    this.busy = true;
    this.draw();
    let draft = null;
    try {
      const total = [...this.classes.values()].reduce((sum, files) => sum + files.length, 0);
      draft = await api.makeDraft(name);
      let sent = 0;
      const leftOut = [];
      for (const [label, files] of this.classes) {
        const { parts, tooLarge } = api.parts(files, this.limits);
        leftOut.push(...tooLarge.map((file) => `${file.name}: too large`));
        for (const part of parts) {
          $("collected-said").textContent = `Sending ${counted(total, "image")}: ${sent} are there.`;
          const told = await api.addImages(draft.id, label, part);
          leftOut.push(...Object.entries(told.left_out).map(([place, why]) => `${part[place].name}: ${why}`));
          sent += part.length;
        }
      }
      await api.learn(draft.id);
      this.reset();
      const some = leftOut.slice(0, 3).join("; ") + (leftOut.length > 3 ? ` and ${leftOut.length - 3} more` : "");
      $("collected-said").textContent = leftOut.length ? `${counted(leftOut.length, "image")} left out: ${some}.` : "";
    } catch (error) {
      if (draft) await api.dropDraft(draft.id).catch(() => null);
      $("collected-said").textContent = `Not learned: ${error.message}`;
    }
    this.busy = false;
    this.draw();
    await this.look();
  }

  async cancel() {
    $("cancel").disabled = true;
    await api.cancel().catch(() => null);
    await this.look();
  }

  async watch() {
    for (;;) {
      const going = await this.look().catch(() => false);
      await new Promise((resolve) => setTimeout(resolve, going ? 700 : document.hidden ? 20000 : 4000));
    }
  }

  // Ask how far learning is, and show it; returns whether something is being learned.
  async look() {
    const { learning, last } = await api.learning();
    $("progress").hidden = !learning;
    if (learning) this.show(learning);
    const key = JSON.stringify(last);
    if (key !== this.seen) {
      const first = this.seen === null;
      this.seen = key;
      if (last) this.say(last);
      else $("outcome").replaceChildren();
      if (last && !first && last.outcome === "learned") this.learned();
      await this.showDrafts();
    }
    if (!learning !== !this.going) await this.showDrafts();
    this.going = Boolean(learning);
    return this.going;
  }

  show(learning) {
    $("progress-title").textContent = `Learning “${learning.task}”`;
    const bar = $("bar");
    if (learning.total) {
      bar.max = learning.total;
      bar.value = learning.done;
    } else bar.removeAttribute("value");
    const left = learning.seconds_left === null ? "" : `, about ${duration(learning.seconds_left)} left`;
    const words = learning.cancelling ? "Stopping" : inWords(learning.phase);
    // A reader is told each phase once; numbers that change all the time stand outside of what is read out.
    if ($("phase").textContent !== words) $("phase").textContent = words;
    const known = [
      learning.total ? `${learning.done} of ${learning.total}` : "",
      learning.accuracy === null ? "" : `${percent(learning.accuracy)} of the validation images right`,
      learning.loss === null ? "" : `loss ${number(learning.loss)}`,
      `${duration(learning.seconds)} so far${left}`,
    ];
    $("pace").textContent = known.filter(Boolean).join(" · ");
    $("cancel").disabled = learning.cancelling;
  }

  say(last) {
    const words = {
      learned: `“${last.task}” is learned. Answers now know it.`,
      cancelled: `“${last.task}” was cancelled; everything is as it was before.`,
      failed: `“${last.task}” could not be learned: ${last.line}`,
    };
    $("outcome").replaceChildren(make("p", { class: last.outcome === "failed" ? "warn" : "" }, words[last.outcome]));
  }

  async showDrafts() {
    const found = (await api.drafts()).filter((draft) => draft.state === "collecting");
    $("drafts").replaceChildren(
      ...(this.busy ? [] : found).map((draft) => {
        const about = `${draft.name}: ${counted(draft.images, "image")} of ${counted(Object.keys(draft.classes).length, "class")} are on the server, not learned`;
        const say = (error) => ($("collected-said").textContent = error.message);
        return make(
          "li",
          {},
          make("span", {}, about, draft.failure ? ` (${draft.failure})` : ""),
          make("button", { type: "button", onclick: () => api.learn(draft.id).catch(say).then(() => this.look()) }, "Learn it"),
          make(
            "button",
            {
              type: "button",
              class: "plain",
              onclick: async () => {
                if (await sure(`Delete the images of “${draft.name}” from the server?`, "Delete", { grave: true })) {
                  await api.dropDraft(draft.id).catch(say);
                  await this.showDrafts();
                }
              },
            },
            "Delete",
          ),
        );
      }),
    );
  }
}
