"""A page in headless Chromium: what a script finds in it, and what the console says."""

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
