// A task is forgotten, after a question that says what is lost for ever.

import * as api from "./api.js";
import { $, make, sure } from "./dom.js";

export class Forgetting {
  // `changed()` is called when a task has been forgotten.
  constructor(changed) {
    this.changed = changed;
    this.asking = false; // one question at a time
  }

  // What a task shows: the button, and where its refusal is said.
  element(task) {
    const said = make("p", { class: "warn", role: "alert", hidden: true });
    const button = make("button", { type: "button", onclick: () => this.ask(task, button, said) }, `Forget “${task.name}” …`);
    return make("div", { class: "forget" }, button, said);
  }

  async ask(task, button, said) {
    if (this.asking) return;
    this.asking = true;
    said.hidden = true;
    try {
      const lost = await api.wouldForget(task.name);
      if (lost.refused) say(said, lost.refused[0].toUpperCase() + lost.refused.slice(1));
      else if (await sure(`Forget “${task.name}” for ever?`, "Forget it for ever", { grave: true, more: lines(task, lost) })) {
        $("tasks-said").textContent = `Forgetting “${task.name}” …`;
        await api.forget(task.name);
        await this.changed();
        $("tasks-said").textContent = `“${task.name}” is forgotten. All other tasks answer as before.`;
        // The button is gone, on which a person at the keyboard was.
        $("tasks-said").focus();
      }
    } catch (error) {
      $("tasks-said").textContent = "";
      say(said, `Not forgotten: ${error.message}`);
    }
    this.asking = false;
  }
}

function say(place, line) {
  place.textContent = line;
  place.hidden = false;
}

function lines(task, lost) {
  const list = (words) => make("ul", { class: "plainlist" }, ...words.map((line) => make("li", {}, line)));
  const classes = task.classes.slice(0, 5).join(", ") + (task.classes.length > 5 ? `, and ${task.classes.length - 5} more` : "");
  return [
    make("p", {}, "There is no way back. These are deleted:"),
    list([`all that was learned of its classes: ${classes}`, ...lost.removed]),
    make("p", {}, "All other tasks answer as before, to the bit. Out of reach, and not deleted:"),
    list(lost.left),
  ];
}
