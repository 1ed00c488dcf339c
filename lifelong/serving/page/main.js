// Puts the page together: what the server can do is shown, the rest stays hidden.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { Forgetting } from "./forget.js";
import { History } from "./history.js";
import { Recognizer } from "./recognize.js";
import { showTasks } from "./tasks.js";
import { Teacher } from "./teach.js";

async function begin() {
  const about = await api.run();
  for (const item of document.querySelectorAll("[data-needs]")) item.hidden = !about.can[item.dataset.needs];
  const history = new History(about.can.roll_back, changed);

  const forgetting = about.can.forget ? new Forgetting(changed) : null;

  async function refresh() {
    const [run, tasks] = await Promise.all([api.run(), api.tasks(), history.show()]);
    $("sentence").textContent = run.sentence;
    document.title = `${run.stream} · lifelong`;
    showTasks(tasks, forgetting);
  }

  // What became of the last task may be about one that is gone.
  async function changed() {
    await refresh();
    await teacher.look();
  }

  const teacher = about.can.learn ? new Teacher(about.limits, refresh) : null;
  new Recognizer(about.limits, teacher && ((file, label) => teacher.correct(file, label)));
  await refresh();
}

begin().catch((error) => {
  $("trouble").textContent = error.message;
  $("trouble").hidden = false;
});
