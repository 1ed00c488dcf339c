"""The page, used as a person uses it, in a real browser."""

import base64
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lifelong
from lifelong.serving.application import Service
from lifelong.serving.entrance import Entrance
from tests.serving.served import FREE, HERE, TOKEN, listening, picture, shades

playwright = pytest.importorskip("playwright.sync_api", reason="the page is not tested: pip install playwright")
expect = playwright.expect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PATIENCE = 120_000
"""Milliseconds: the machine that tests may be busy."""


def browser_here() -> str:
    found = os.environ.get("LIFELONG_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"THE PAGE IS NOT TESTED: no browser here; install one of {', '.join(BROWSERS)}, or set LIFELONG_BROWSER")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_here()
    expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@dataclass
class Seen:
    """A page, with what went wrong on it and what it asked for."""

    page: Any
    wrong: list[str]
    asked: list[str]


@pytest.fixture
def open_page(browser) -> Iterator[Any]:
    """Opens a page of a server, of a size and a colour scheme."""
    contexts = []

    def opened(address: str, width: int = 1280, height: int = 900, scheme: str = "light") -> Seen:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        seen = Seen(page, [], [])
        page.on("console", lambda message: seen.wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.wrong.append(str(error)))
        page.on("request", lambda request: seen.asked.append(request.url))
        page.goto(address)
        return seen

    yield opened
    for context in contexts:
        context.close()


def file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


DROP = """([content, name]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("drop").dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def drop(page: Any, content: bytes, name: str) -> None:
    """Drop a file on the field for images."""
    page.evaluate(DROP, [base64.b64encode(content).decode(), name])


def digit(run: Path) -> tuple[bytes, str, str]:
    """A test image of the first task, with its class and task as the run itself answers."""
    image = lifelong.open_stream(run.parent / "three.toml")[0].test.images[0]
    encoded = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "PNG")
    (answer,) = lifelong.Learner.load(run, environment=HERE).predict(encoded.getvalue())
    return encoded.getvalue(), answer.label, answer.task


def test_drop_correct_learn_predict_and_go_back(run, tmp_path, open_page):
    content, label, task = digit(run)
    with listening(Service(run, HERE, FREE)) as port:
        seen = open_page(f"http://127.0.0.1:{port}/")
        page = seen.page
        expect(page.locator("#sentence")).to_contain_text("3 tasks learned")

        # Drop an image and see what it is.
        drop(page, content, "digit.png")
        card = page.locator(".answer").first
        expect(card.locator(".label")).to_have_text(label)
        expect(card).to_contain_text(f"task {task}")
        expect(page.locator("#said")).to_have_text("1 image recognized.")
        page.set_input_files("#images", [file("noise.png", picture(127, size=64)), file("broken.png", b"broken")])
        expect(page.locator("#said")).to_have_text("1 image recognized, 1 unlike anything learned, 1 could not be used.")
        expect(page.locator(".badge")).to_have_text(["unlike anything learned"])

        # Correct an answer: it becomes an example for a new task, and says so.
        page.locator(".answer", has_text="noise.png").get_by_role("button", name="Not right?").click()
        page.get_by_label("right class").fill("noise")
        page.get_by_role("button", name="Correct", exact=True).click()
        expect(page.locator(".answer", has_text="noise.png")).to_contain_text("kept as an example for a new task")
        expect(page.locator("#collected-rows tr")).to_have_count(1)
        expect(page.locator("#learn")).to_be_disabled()
        page.get_by_role("button", name="Drop these images").click()
        expect(page.locator("#collected")).to_be_hidden()

        # A new task from a folder, with classes from its subfolders; more of a class by its name.
        for name, images in shades(12).items():
            (tmp_path / "light" / name).mkdir(parents=True)
            for number, image in enumerate(images):
                (tmp_path / "light" / name / f"{number}.png").write_bytes(image)
        page.set_input_files("#folder", tmp_path / "light")
        expect(page.locator("#collected-said")).to_have_text("24 images found.")
        expect(page.locator("#task-name")).to_have_value("light")
        page.fill("#class-name", "dark")
        page.set_input_files("#class-images", [file("one.png", picture(60, 77))])
        expect(page.locator("#collected-rows tr", has_text="dark")).to_contain_text("13")
        page.locator("#learn").click()
        expect(page.locator("#progress-title")).to_have_text("Learning “light”")
        expect(page.locator("#progress")).to_be_visible()
        expect(page.locator("#outcome")).to_contain_text("“light” is learned. Answers now know it.")
        expect(page.locator("#progress")).to_be_hidden()

        # It answers by it, and shows the distances and the decision.
        drop(page, picture(213, 5), "bright.png")
        expect(page.locator(".answer").first.locator(".label")).to_have_text("bright")
        expect(page.locator(".answer").first).to_contain_text("task light")
        newest = page.locator("details.task").first
        newest.locator("> summary").click()
        expect(newest).to_contain_text("Distance from earlier tasks")
        expect(newest.locator(".bars li")).to_have_count(3)
        expect(newest.locator("p").first).not_to_be_empty()

        # And back to what it was.
        versions = page.locator("#versions > li")
        versions.nth(1).get_by_role("button", name="Go back to this").click()
        page.get_by_role("button", name="Go back", exact=True).click()
        expect(page.locator("#history-said")).to_contain_text("again")
        expect(page.locator("details.task")).to_have_count(3)
        drop(page, content, "again.png")
        expect(page.locator(".answer").first.locator(".label")).to_have_text(label)

        # Nothing is lost by going back: it can be gone forward again.
        versions.nth(0).get_by_role("button", name="Go back to this").click()
        page.get_by_role("button", name="Go back", exact=True).click()
        expect(page.locator("details.task")).to_have_count(4)

        # A task that shares its expert cannot be forgotten: the reason stands beside the button.
        shared = page.locator("details.task", has_text="3 · a-again")
        shared.locator("> summary").click()
        shared.get_by_role("button", name="Forget “").click()
        expect(shared.get_by_role("alert")).to_contain_text("Task 'a-again' cannot be forgotten: ")

        # To forget one is asked for with what is lost; by keyboard, where "No" is what is chosen first.
        newest.locator("> summary").click()
        newest.get_by_role("button", name="Forget “").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("1 folder of uploaded images")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("details.task")).to_have_count(4)
        expect(newest.get_by_role("button", name="Forget “")).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Forget it for ever").click()
        expect(page.locator("#tasks-said")).to_have_text("“light” is forgotten. All other tasks answer as before.")
        expect(page.locator("#tasks-said")).to_be_focused()
        expect(page.locator("details.task")).to_have_count(3)
        expect(page.locator("#versions > li")).to_have_count(1)
        expect(page.locator("#outcome")).to_be_empty()
        assert "light" not in page.locator("#task").inner_text()

        assert seen.wrong == []
        assert {url.split("/")[2] for url in seen.asked if not url.startswith("blob:")} == {f"127.0.0.1:{port}"}


@pytest.mark.slow
def test_cancel_and_delete(run, open_page):
    with listening(Service(run, HERE, FREE)) as port:
        page = open_page(f"http://127.0.0.1:{port}/").page
        for name, images in shades(60).items():
            page.fill("#class-name", name)
            page.set_input_files("#class-images", [file(f"{number}.png", image) for number, image in enumerate(images)])
        page.fill("#task-name", "light")
        page.locator("#learn").click()
        page.locator("#cancel").click()
        expect(page.locator("#outcome")).to_contain_text("“light” was cancelled; everything is as it was before.")
        waiting = page.locator("#drafts li")
        expect(waiting).to_contain_text("light: 120 images of 2 classes are on the server, not learned")
        waiting.get_by_role("button", name="Delete").click()
        page.locator("#sure-yes").click()
        expect(waiting).to_have_count(0)
    assert [path.name for path in (run / "uploads").iterdir() if path.is_dir()] == []


@pytest.fixture(scope="module")
def shown(learned) -> Iterator[int]:
    with listening(Service(learned, HERE, FREE, read_only=True)) as port:
        yield port


CONTRAST = """() => {
  const parse = (text) => (text.match(/[0-9.]+/g) ?? []).map(Number);
  const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (item) => {
    for (let at = item; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const item of document.querySelectorAll("body *")) {
    const own = [...item.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !item.checkVisibility() || item.disabled || item.closest(".seen-by-readers, noscript, dialog")) continue;
    const [one, other] = [light(parse(getComputedStyle(item).color)), light(behind(item))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) found.push(`${item.tagName} ${item.className} ${item.textContent.slice(0, 40)}`);
  }
  return found;
}"""

UNNAMED = """() => [...document.querySelectorAll("button, input, select, a, progress, [role=img]")]
  .filter((item) => !(item.labels?.length || item.textContent.trim()))
  .filter((item) => !(item.getAttribute("aria-label") || item.getAttribute("aria-labelledby")))
  .map((item) => item.outerHTML)"""


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(390, "dark"), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((390, "light"), (1280, "light"), (1280, "dark")))],
)
def test_on_desktop_and_phone_light_and_dark(shown, open_page, learned, width, scheme):
    """Nothing is wider than the screen, all text stands out from what is behind it, and whatever can be used has a name."""
    seen = open_page(f"http://127.0.0.1:{shown}/", width=width, scheme=scheme)
    page = seen.page
    page.set_input_files("#images", [file("x" * 90 + ".png", digit(learned)[0]), file("noise.png", picture(127, size=64))])
    expect(page.locator("#said")).to_contain_text("2 images recognized")
    for task in page.locator("details.task > summary").all():
        task.click()
    page.evaluate("() => { for (const part of document.querySelectorAll('[hidden]')) part.hidden = false; }")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(14, 18, 23)") == (scheme == "dark")
    assert seen.wrong == []


def test_by_keyboard(shown, open_page):
    """Every control is reached with Tab, and where one is can be seen."""
    page = open_page(f"http://127.0.0.1:{shown}/").page
    expect(page.locator("details.task")).to_have_count(3)
    reached, outlined = [], []
    for _ in range(16):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => {
              const at = document.activeElement;
              const shown = at.classList.contains("seen-by-readers") ? at.labels[0] : at;
              return [at.id || at.textContent.trim(), getComputedStyle(shown).outlineStyle];
            }"""
        )
        reached.append(name)
        outlined.append(outline)
        if name.startswith("1 · a"):
            break
    assert reached[0] == "Skip to the images"
    assert {"images", "task"} <= set(reached)
    assert [name for name in reached if name.startswith(("1 ·", "2 ·", "3 ·"))] != []
    assert all(outline not in ("none", "") for outline in outlined), list(zip(reached, outlined, strict=True))
    page.locator("details.task > summary").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.querySelector('details.task').open")


def test_names_from_data_are_text(learned, open_page):
    """Whatever classes are called, they cannot act on the page."""
    service = Service(learned, HERE, FREE, read_only=True)
    evil = '<img src=x onerror="document.title=1">'
    predictor = service.model.current.predictor
    predictor.tasks = {f"{evil}{name}": tuple(f"{evil}{label}" for label in classes) for name, classes in predictor.tasks.items()}
    predictor.image_sizes = dict.fromkeys(predictor.tasks, 8)
    with listening(service) as port:
        seen = open_page(f"http://127.0.0.1:{port}/")
        expect(seen.page.locator("details.task").first).to_contain_text("<img src=x")
        drop(seen.page, picture(50), f"{evil}.png")
        expect(seen.page.locator(".answer .label")).to_contain_text("<img src=x")
        assert seen.page.locator("img[src=x]").count() == 0
        assert seen.wrong == []


def test_log_in(learned, open_page):
    with listening(Service(learned, HERE, FREE, read_only=True), Entrance("127.0.0.1", TOKEN)) as port:
        page = open_page(f"http://127.0.0.1:{port}/").page
        page.get_by_label("Token of this server").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("This is not the token.")
        page.get_by_label("Token of this server").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#sentence")).to_contain_text("3 tasks learned")
        drop(page, picture(50), "a.png")
        expect(page.locator("#said")).to_contain_text("1 image recognized")
        assert "lifelong-session" not in page.evaluate("() => document.cookie")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token of this server")).to_be_visible()


@pytest.mark.slow
def test_a_foreign_page_cannot_use_the_server(shown, open_page):
    """A page of another origin, in a real browser, gets nothing from it."""
    page = open_page(f"http://127.0.0.1:{shown}/v1/health").page
    page.goto("about:blank")
    told = page.evaluate(
        """async (port) => {
          const form = new FormData();
          form.append("image", new Blob(["x"]), "image");
          const codes = [];
          for (const host of ["127.0.0.1", "localhost"])
            for (const options of [{}, { mode: "no-cors" }, { method: "POST", body: form, mode: "no-cors" }])
              codes.push(await fetch(`http://${host}:${port}/v1/predict`, options).then((answer) => answer.status, () => "refused"));
          return codes;
        }""",
        shown,
    )
    assert set(told) <= {"refused", 0}
