// The versions of the run, and the way back.

import * as api from "./api.js";
import { $, counted, make, percent, sure } from "./dom.js";

export class History {
  // `changed()` is called when the run has gone back.
  constructor(canGoBack, changed) {
    this.canGoBack = canGoBack;
    this.changed = changed;
  }

  async show() {
    const versions = await api.history();
    $("versions").replaceChildren(...versions.map((version) => this.element(version)).reverse());
  }

  element(version) {
    const when = new Date(1000 * version.when).toLocaleString();
    const words = make("div", {}, make("strong", {}, `Version ${version.number}`), `, after “${version.task}”, ${when}`);
    const certified = version.certificates.map(certificate);
    if (certified.length) {
      const changed = version.certificates.filter((one) => one.changed).length;
      const about = changed ? `changed ${counted(changed, "earlier task")}` : "changed no earlier task";
      words.append(make("details", {}, make("summary", {}, about), make("ul", { class: "plainlist" }, ...certified)));
    }
    if (version.current) return make("li", {}, words, make("span", { class: "quiet" }, "now"));
    if (!this.canGoBack) return make("li", {}, words);
    return make("li", {}, words, make("button", { type: "button", onclick: () => this.back(version) }, "Go back to this"));
  }

  async back(version) {
    if (!(await sure(`Go to version ${version.number}, after “${version.task}”?`, "Go back"))) return;
    try {
      await api.rollBack(version.number);
      $("history-said").textContent = `This is version ${version.number} again.`;
      await this.changed();
    } catch (error) {
      $("history-said").textContent = `Not gone back: ${error.message}`;
    }
  }
}

const certificate = (one) =>
  make("li", {}, `${one.task}: ${percent(one.before)} right before, ${percent(one.after)} after; `, one.changed ? "its answers may have changed" : "unchanged to the bit");
