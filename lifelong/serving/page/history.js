// The versions of the run, and the way back.

import * as api from "./api.js";
import { $, make, sure } from "./dom.js";

export class History {
  // `changed()` is called when the run has gone back.
  constructor(canGoBack, changed) {
    this.canGoBack = canGoBack;
    this.changed = changed;
  }

  async show() {
    const versions = await api.history();
    const newest = Math.max(...versions.map((version) => version.number));
    $("versions").replaceChildren(...versions.map((version) => this.element(version, newest)).reverse());
  }

  element(version, newest) {
    const when = version.date ? new Date(version.date) : null;
    const about = [`Version ${version.number}`, version.task ? `after “${version.task}”` : "", when && !Number.isNaN(+when) ? when.toLocaleString() : ""];
    const words = make("span", {}, about.filter(Boolean).join(", "));
    if (version.number === newest) return make("li", {}, words, make("span", { class: "quiet" }, "now"));
    if (!this.canGoBack) return make("li", {}, words);
    return make("li", {}, words, make("button", { type: "button", onclick: () => this.back(version) }, "Go back to this"));
  }

  async back(version) {
    if (!(await sure(`Go back to version ${version.number}? What was learned after it is forgotten.`, "Go back"))) return;
    try {
      await api.rollBack(version.number);
      $("history-said").textContent = `This is version ${version.number} again.`;
      await this.changed();
    } catch (error) {
      $("history-said").textContent = `Not gone back: ${error.message}`;
    }
  }
}
