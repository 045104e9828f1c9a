"""The pages in headless Chromium: no complaint, no request, no obedience, and a list that stays smooth."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plum_core.records import write_atomic
from plum_core.reporting import write_report
from plum_core.reporting.page import embedded, render
from plum_core.rounds.folder import RunFolder
from tests.reporting.browser import Browser
from tests.reporting.conftest import NASTY

PROGRAMS = 20_000
FRAME_MS = 100.0  # one redraw of the list may take; a shared core is slow, and every row drawn would take seconds

CHOOSE = """(id, value) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event('input', {bubbles: true}));
  return new Promise(r => setTimeout(() => r(document.getElementById('count').textContent), 200));
}"""


@pytest.fixture(scope="module")
def report(folder: RunFolder) -> Path:
    return write_report(folder)


@pytest.mark.parametrize("name", ["report.html", "inspector.html"])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_page_opens_quietly(browser: Browser, report: Path, name: str, width: int) -> None:
    path = report.parent / name
    browser.open(path, width=width, dark=width == 360)
    assert browser.complaints == [] and browser.requests == [path.resolve().as_uri()]
    assert browser.value("document.title").startswith(("Inspector", str(report.parent)))
    assert browser.value("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"


def test_a_script_in_a_sample_is_shown_and_never_runs(browser: Browser, report: Path) -> None:
    browser.open(report.parent / "inspector.html")
    assert browser.value("document.querySelectorAll('script').length") == 2
    assert browser.value("document.querySelectorAll('#detail img, #list img').length") == 0
    shown = browser.value("document.querySelector('#detail').textContent")
    assert "</script><script>document.title='owned'</script><!--" in shown and "\\u202e" in shown
    assert browser.value("document.title") != "owned"


def test_the_policy_would_stop_a_script(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The second lock: were a sample pasted in raw, it would not run."""
    page = report.read_text(encoding="utf-8").replace("</main>", f"{NASTY}</main>")
    (tmp_path / "raw.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "raw.html")
    assert browser.value("document.title") != "owned" and browser.complaints != []
    assert [url for url in browser.requests if url.endswith("/x")] == []


def test_filters_keys_and_pairs(browser: Browser, report: Path) -> None:
    browser.open(report.parent / "inspector.html")
    total = browser.value("document.getElementById('count').textContent")
    failed = browser.value(f"({CHOOSE})('outcome', 'failed')")
    assert failed != total and failed.endswith("programs")
    assert "failed" in browser.value("document.querySelector('#detail p').textContent")
    browser.value("document.getElementById('list').focus()")
    browser.key("End")
    assert (
        browser.value("document.querySelector('[aria-selected=true]').getAttribute('aria-posinset')")
        == failed.split()[0]
    )
    browser.key("Home")
    assert browser.value("document.getElementById('list').getAttribute('aria-activedescendant')") == "row-0"
    browser.value(f"({CHOOSE})('view', 'pairs')")
    detail = browser.value("document.getElementById('detail').textContent")
    assert "What told them apart" in detail and "assert a" in detail
    assert browser.value("document.querySelectorAll('#detail ins').length") > 0
    assert browser.value("document.querySelectorAll('#detail del').length") > 0
    browser.value(f"({CHOOSE})('outcome', '')")
    browser.value(f"({CHOOSE})('view', 'rows')")
    good, bad = (browser.value(f"({CHOOSE})('learnt', '{n}')").split()[0] for n in (1, 2))
    assert int(good) > 0 and int(bad) > 0
    assert "learnt from as bad" in browser.value("document.querySelector('#detail p').textContent")
    assert browser.value(f"({CHOOSE})('query', 'there is no such text')").startswith("0 of ")
    assert browser.value("document.getElementById('detail').textContent") == "Nothing fits these filters."
    assert browser.complaints == []


def test_twenty_thousand_programs_stay_smooth(browser: Browser, tmp_path: Path) -> None:
    count = 500
    texts = ["passed", "failed", *(f"def f():\n    return {i}\n" for i in range(count)), "detail"]
    data = {
        "texts": texts,
        "instructions": [[i + 2, i + 2, 1, len(texts) - 1, len(texts) - 1, [0]] for i in range(count)],
        "rows": [[i % count, 1, 0, i % 2, 2 + i % count, len(texts) - 1, "1", 9, 1.5, 0] for i in range(PROGRAMS)],
        "pairs": [[1, i, i + 1] for i in range(0, PROGRAMS, 2)],
        "rounds": {"1": "round 1"},
    }
    page = render(
        "inspector.html", script="inspector.js", title="many", data=embedded(data), left_out=0, shown=PROGRAMS
    )
    write_atomic(tmp_path / "many.html", page)
    browser.open(tmp_path / "many.html")
    assert browser.value("document.getElementById('count').textContent") == f"{PROGRAMS} of {PROGRAMS} programs"
    assert browser.value("document.querySelectorAll('.row').length") < 100
    times = browser.value("""(async () => {
      const list = document.getElementById('list'), out = [];
      for (let i = 1; i <= 20; i++) {
        const began = performance.now();
        list.scrollTop = i * list.scrollHeight / 21;
        await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
        out.push(performance.now() - began);
      }
      return JSON.stringify([out, document.querySelectorAll('.row').length]);
    })()""")
    frames, rows = json.loads(times)
    assert sorted(frames)[len(frames) // 2] < FRAME_MS and rows < 100


def test_no_serious_finding_of_axe(browser: Browser, report: Path) -> None:
    """axe-core, where ``$PLUM_AXE`` names its axe.min.js (npm install axe-core)."""
    if not (script := os.environ.get("PLUM_AXE")):
        pytest.skip("no axe-core: npm install axe-core, and name its axe.min.js with PLUM_AXE")
    for name in ("report.html", "inspector.html"):
        browser.open(report.parent / name)
        browser.call("Page.setBypassCSP", enabled=True)
        browser.open(report.parent / name)
        browser.value(Path(script).read_text(encoding="utf-8") + ";0")
        found = json.loads(browser.value("axe.run().then(r => JSON.stringify([r.passes.length, r.violations]))"))
        browser.call("Page.setBypassCSP", enabled=False)
        assert found[0] > 10, "axe looked at nothing"
        assert [v["id"] for v in found[1] if v["impact"] in ("serious", "critical")] == []
