// The server's answers, or an Error whose message is its one line.

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("please log in again");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({ error: `the server answers ${answer.status}` }));
  if (!answer.ok) throw Object.assign(new Error(told.error ?? `the server answers ${answer.status}`), { status: answer.status });
  return told;
}

const form = (fields, files) => {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) made.append(name, value);
  // The name of a file is of no use to the server.
  for (const file of files) made.append("image", file, "image");
  return made;
};

const json = (value) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });

export const run = () => ask("/v1/run");
export const tasks = async () => (await ask("/v1/tasks")).tasks;
export const predict = (files, task) => ask("/v1/predict", { method: "POST", body: form({ task }, files) });
export const drafts = async () => (await ask("/v1/drafts")).drafts;
export const makeDraft = (name) => ask("/v1/drafts", json({ name }));
export const dropDraft = (id) => ask(`/v1/drafts/${id}`, { method: "DELETE" });
export const addImages = (id, label, files) => ask(`/v1/drafts/${id}/images`, { method: "POST", body: form({ class: label }, files) });
export const learn = (id) => ask(`/v1/drafts/${id}/learn`, { method: "POST" });
export const learning = () => ask("/v1/learning");
export const cancel = () => ask("/v1/learning", { method: "DELETE" });
export const history = async () => (await ask("/v1/history")).versions;
export const rollBack = (to) => ask("/v1/rollback", json({ to }));
export const wouldForget = (task) => ask(`/v1/forget?task=${encodeURIComponent(task)}`);
export const forget = (task) => ask("/v1/forget", json({ task }));

const PART = 4e6; // bytes that a slow connection sends within the time that the server waits

// Files in parts that the server takes in one request; `tooLarge` are those that it takes in none.
export function parts(files, limits) {
  const most = 0.9 * limits.request_bytes;
  const tooLarge = files.filter((file) => file.size > most);
  const found = [];
  let part = [];
  let bytes = 0;
  for (const file of files.filter((one) => one.size <= most)) {
    if (part.length === limits.images || (part.length && bytes + file.size > Math.min(PART, most))) {
      found.push(part);
      part = [];
      bytes = 0;
    }
    part.push(file);
    bytes += file.size;
  }
  if (part.length) found.push(part);
  return { parts: found, tooLarge };
}
