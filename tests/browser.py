"""A page in headless Chromium: what a script finds in it, and what the console says."""

import itertools
import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
# The page in a frame of a given width, and beside it a script that may look inside.
_WRAPPER = """<!doctype html><meta charset="utf-8">
<iframe width="{width}" height="900" style="border: 0" srcdoc="{page}"></iframe>
<pre id="result"></pre>
<script>
const frame = document.querySelector("iframe");
const wait = () => new Promise((done) => setTimeout(done, 20));
frame.addEventListener("load", async () => {{
  const win = frame.contentWindow, doc = frame.contentDocument;
  let result;
  try {{ result = await (async () => {{ {script} }})(); }}
  catch (error) {{ result = {{ error: String(error) }}; }}
  document.getElementById("result").textContent = JSON.stringify(result);
}});
</script>"""


def look(tmp_path, page, script, width=1200):
    """What the body of an async function of `doc`, `win`, `wait` returns, and the
    console's messages."""
    path = tmp_path / "wrapper.html"
    text = _WRAPPER.format(width=width, page=escape(page), script=script)
    path.write_text(text, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--window-size=1400,1000", "--virtual-time-budget=8000"),
            *(
                "--enable-logging=stderr",
                "--v=0",
                f"--user-data-dir={tmp_path / 'home'}",
            ),
            *("--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), console


CONTRAST = r"""
const channel = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) =>
  0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const rgb = (text) => text.match(/[\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a] = rgb(win.getComputedStyle(at).backgroundColor);
    if (a === undefined || a === 1) return [r, g, b].map((c) => c / 255);
  }
  return [1, 1, 1];
};
const low = [];
for (const element of doc.querySelectorAll("body *:not(svg *)")) {
  const nodes = [...element.childNodes];
  const own = nodes.some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || element.closest("script, style, [hidden]")) continue;
  const ink = rgb(win.getComputedStyle(element).color).slice(0, 3).map((c) => c / 255);
  const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push(element.textContent.slice(0, 40));
}
"""


_PHONE = f"""{CONTRAST}
const every = (selector) => [...doc.querySelectorAll(selector)];
const unnamed = every('button, [role="button"], [role="region"], summary, a, nav')
  .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label")));
const pictures = every('img:not([alt]), img[alt=""], svg:not([aria-label])');
const ids = ["aria-labelledby", "aria-describedby"]
  .flatMap((a) => every(`[${{a}}]`).map((e) => e.getAttribute(a)))
  .concat(every('a[href^="#"]').map((e) => e.getAttribute("href").slice(1)))
  .filter((id) => !doc.getElementById(id));
const all = every("[id]").map((e) => e.id);
const twice = all.filter((id, k) => all.indexOf(id) !== k);
const scrolls = '[role="region"], .stage, pre, .steps';
const wide = every("body *:not(svg *)")
  .filter((e) => !e.closest(scrolls) || e.matches(scrolls))
  .filter((e) => e.getBoundingClientRect().right > 400.5).map((e) => e.tagName);
const stuck = every(scrolls)
  .filter((e) => e.scrollWidth > e.clientWidth + 1)
  .filter((e) => e.tabIndex !== 0).map((e) => e.className);
const tables = every("table").filter((t) => !t.caption || !t.querySelector("tbody th")
  || [...t.querySelectorAll("th")].some((h) => !h.scope)).length;
return {{
  low, wide, stuck, ids, twice, tables, unnamed: unnamed.length,
  pictures: pictures.length,
  width: doc.documentElement.scrollWidth, lang: doc.documentElement.lang,
  mains: every("main").length,
  heads: every("h1, h2, h3, h4").map((h) => Number(h.tagName[1])),
  requests: win.performance.getEntriesByType("resource")
    .filter((r) => !r.name.startsWith("data:")).length,
  alone: every("link[rel=stylesheet], script[src]").length,
  parts: every('svg [role="button"][tabindex="0"][aria-label]').length,
}};
"""


def on_a_phone(tmp_path, page):
    """The page at 400 px, what every page must be held against, and what was found."""
    found, console = look(tmp_path, page, _PHONE, width=400)
    assert console == []
    assert found["width"] <= 400
    for faults in ("low", "wide", "stuck", "ids", "twice"):
        assert found[faults] == [], faults
    for count in ("tables", "unnamed", "pictures", "requests", "alone"):
        assert found[count] == 0, count
    assert (found["lang"], found["mains"]) == ("en", 1)
    heads = found["heads"]
    assert heads[0] == 1
    assert heads.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(heads))
    return found
