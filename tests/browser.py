"""A page as a real browser of some width shows it, dark or light."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# A browser's own window has a least width; a frame has none. Tells what is shown in it, and how wide that is.
_FRAME = """<!doctype html><iframe style="border:0;width:WIDTHpx;height:900px"></iframe><pre></pre><script>
const frame = document.querySelector("iframe");
frame.srcdoc = PAGE;
setTimeout(() => {
  const page = frame.contentDocument.documentElement;
  const style = frame.contentWindow.getComputedStyle(page.querySelector("body"));
  document.body.dataset.wide = page.scrollWidth + " " + frame.contentWindow.innerWidth;
  const boxes = [...page.querySelectorAll("*")].filter(
    (each) => frame.contentWindow.getComputedStyle(each).overflowX === "auto" && each.scrollWidth > each.clientWidth);
  document.body.dataset.cut = boxes.length;
  document.body.dataset.colours = style.color + " on " + style.backgroundColor;
  document.querySelector("pre").textContent = page.querySelector("body").innerText;
}, 1500);
</script>"""


@dataclass(frozen=True)
class Shown:
    """What a reader sees.

    Attributes:
        text: all text that is shown.
        needed_px: how wide the page is; wider than the window where something sticks out.
        colours: of text, and behind it.
        cut: how many boxes have to be scrolled to the right to be read.
    """

    text: str
    needed_px: int
    colours: str
    cut: int


def shown_at(page: str, folder: Path, *, width: int, scheme: int) -> Shown:
    """A page in a window of `width` pixels; scheme 0 is dark, 1 light. Files go into `folder`."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "there is no Chromium on PATH; start the tests by 'make test', which installs it"
    frame = folder / "frame.html"
    held = json.dumps(page).replace("</", "<\\/")
    frame.write_text(_FRAME.replace("WIDTH", str(width)).replace("PAGE", held))
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"),
            *(f"--user-data-dir={folder}/browser", "--virtual-time-budget=4000"),
            *("--window-size=2500,900", f"--blink-settings=preferredColorScheme={scheme}", frame.as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    needed, there = map(int, re.search(r'data-wide="(\d+) (\d+)"', done.stdout).groups())  # type: ignore[union-attr]
    assert there == width
    colours = re.search(r'data-colours="([^"]+)"', done.stdout)[1]  # type: ignore[index]
    text = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)[1]  # type: ignore[index]
    cut = int(re.search(r'data-cut="(\d+)"', done.stdout)[1])  # type: ignore[index]
    return Shown(html.unescape(text), needed, colours, cut)
