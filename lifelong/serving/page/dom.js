// Make and find elements. Text is always text: nothing that comes from images or names becomes markup.

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(100 * share)}\u00a0%`);

export const counted = (number, thing) =>
  `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : thing.endsWith("s") ? "es" : "s"}`;

export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.round((whole % 3600) / 60)).padStart(2, "0")} min`;
}

export const number = (value) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size < 10 ? 3 : size < 1000 ? 1 : 0);
};

// A bar that says a share; readers have the number beside it.
export function bar(share) {
  const fill = make("div", { class: "fill" });
  fill.style.width = `${Math.min(Math.max(100 * share, 0), 100)}%`;
  return make("div", { class: "track", "aria-hidden": "true" }, fill);
}

// Ask before something is done, with more to know about it; resolves to whether the answer was yes. `grave`: it cannot be undone.
export function sure(question, yes, { grave = false, more = [] } = {}) {
  $("sure-question").textContent = question;
  $("sure-yes").classList.toggle("grave", grave);
  $("sure-more").replaceChildren(...more);
  $("sure-yes").textContent = yes;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((resolve) => {
    $("sure").addEventListener("close", () => resolve($("sure").returnValue === "yes"), { once: true });
  });
}
