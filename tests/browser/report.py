"""Clicks through a report in a real browser and looks for script errors.

    python3 tests/browser/report.py --binary target/release/longreward [--shots DIR] [--data DIR]
    python3 tests/browser/report.py --binary target/release/longreward --measure --data DIR

Needs Chromium with its driver (Debian: chromium, chromium-driver) and Selenium (PyPI: selenium); installs nothing.
Without --data the result files are made by synthetic.py beside this file; its first candidate is hostile. --shots
keeps screenshots. --measure prints how long loading, sorting, filtering and searching take.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    sys.exit("needs Selenium: python3 -m pip install selenium (and Debian's chromium and chromium-driver)")

import synthetic

VIEWS = ["#/", "#/agreement", "#/candidates", "#/prompts", "#/candidate/1-0", "#/candidate/2-1", "#/compare/1-0/1-1"]

STATEMENTS = "section[data-view=candidate] .statement"


def browser(width=1400, height=1000):
    options = webdriver.ChromeOptions()
    for flag in ["headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars",
                 "disable-background-networking", "disable-component-update", "disable-sync",
                 f"window-size={width},{height}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def make_report(binary, folder, out, more=()):
    command = [binary, "report", "--scored", folder / "scored_responses.jsonl", "--data", folder / "sft.jsonl",
               "--out", out, *more]
    pairs = folder / "preference_pairs.jsonl"
    command += ["--pairs", pairs] if pairs.exists() else []
    agree = folder / "agree.summary.json"
    command += ["--agree", agree] if agree.exists() else []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.strip()


class Page:
    def __init__(self, driver, file):
        self.driver, self.file = driver, Path(file).resolve()

    def open(self, route="#/"):
        self.driver.get("about:blank")
        self.driver.get(f"file://{self.file}{route}")
        self.wait(lambda: self.all("main section:not([hidden]) h1"))

    def go(self, route):
        self.driver.execute_script("location.hash = arguments[0]", route)
        time.sleep(0.4)

    def wait(self, condition, seconds=30):
        return WebDriverWait(self.driver, seconds, 0.02).until(lambda _: condition())

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def js(self, script, *args):
        return self.driver.execute_script(script, *args)

    def view(self):
        return self.js("return [...document.querySelectorAll('section[data-view]')].filter(s => !s.hidden).map(s => s.dataset.view)")

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)

    def errors(self):
        """What the console was told so far, but for what the browser itself says about its start."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def check_quiet(self):
        errors = self.errors()
        assert not errors, errors
        assert self.js("return window.hacked") is None, "a script of the data ran"
        assert self.js("return document.querySelectorAll('main img, main iframe, main script').length") == 0
        assert self.js("return document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
        holes = re.findall(r".{20}\b(?:null|undefined|NaN)\b", self.one("main").text, re.S)
        assert not holes, holes

    def column(self, number, section="candidates"):
        cells = f"section[data-view={section}] tbody tr > :nth-child({number})"
        return self.js("return [...document.querySelectorAll(arguments[0])].map(c => c.textContent)", cells)

    def live(self):
        return self.one("#live").get_attribute("textContent")


def numbers(cells):
    return [float(cell.replace(",", "")) for cell in cells]


def check_overview(page):
    page.open()
    assert page.view() == ["overview"]
    charts = page.all("section[data-view=overview] svg.chart")
    assert len(charts) == 17, len(charts)
    for chart in charts:
        assert chart.get_attribute("role") == "img" and chart.get_attribute("aria-label")
    page.one("details.more summary").click()
    page.check_quiet()


def check_sorting(page, rows):
    page.one("nav a[data-nav=candidates]").click()
    page.wait(lambda: page.view() == ["candidates"])
    assert page.js("return document.activeElement.id") == "candidates-title", "a new view takes the focus"
    button = page.all("section[data-view=candidates] thead button")[6]
    button.click()
    totals = numbers(page.column(7))
    assert totals == sorted(totals, reverse=True) and len(totals) == min(50, rows)
    heads = page.all("section[data-view=candidates] thead th")
    assert heads[6].get_attribute("aria-sort") == "descending"
    assert "falling" in page.live()
    # By keyboard: the button keeps the focus, Enter turns the order round.
    page.press(Keys.ENTER)
    totals = numbers(page.column(7))
    assert totals == sorted(totals) and heads[6].get_attribute("aria-sort") == "ascending"
    page.press(Keys.TAB)
    assert "Statements" in page.driver.switch_to.active_element.text
    for head in page.all("section[data-view=candidates] thead button"):
        head.click()
    page.all("section[data-view=candidates] thead button")[0].click()
    page.check_quiet()


def check_paging(page, rows):
    buttons = {b.text: b for b in page.all("section[data-view=candidates] .pager button")}
    if rows > 50:
        first = page.column(1)
        buttons["Next"].click()
        assert page.column(1) != first
        buttons["Last"].click()
        assert not buttons["Next"].is_enabled()
        buttons["First"].click()
        assert page.column(1) == first
    assert not buttons["Back"].is_enabled()


def check_filters(page, rows):
    low = page.one("input[aria-label='Total, at least']")
    low.send_keys("24")
    totals = numbers(page.column(7))
    assert totals and all(total >= 24 for total in totals)
    page.one("input[aria-label='Faithfulness, at most']").send_keys("7.5")
    assert all(value <= 7.5 for value in numbers(page.column(5)))
    Select(page.one("#notes")).select_by_value("forced")
    assert all("forced" in cell for cell in page.column(11))
    page.wait(lambda: "found" in page.live())
    page.one("section[data-view=candidates] button[type=reset]").click()
    page.wait(lambda: f"{rows:,} candidate" in page.one("section[data-view=candidates] .count").text)
    search = page.one("#search")
    search.send_keys("</SCRIPT>")
    page.wait(lambda: len(page.column(1)) == 10)  # the question of all of prompt 1
    search.clear()
    search.send_keys("1-3")
    page.wait(lambda: page.column(1) == ["1-3"])
    search.clear()
    search.send_keys("nothinglikethis")
    page.wait(lambda: page.column(1) == [])
    page.one("section[data-view=candidates] button[type=reset]").click()
    page.wait(lambda: len(page.column(1)) == min(50, rows))
    page.check_quiet()


def check_candidate(page):
    page.one("section[data-view=candidates] tbody a").send_keys(Keys.ENTER)
    page.wait(lambda: page.view() == ["candidate"])
    assert page.js("return document.activeElement.id") == "candidate-title"
    text = page.js("return document.querySelector('section[data-view=candidate]').textContent")
    for part in ["<script>window.hacked = 1", "onerror=", "مرحبا", "👩‍🚀", "{{ 7*7 }}", "&lt;b&gt;"]:
        assert part in text, part
    labels = page.all(".statement .label")
    assert labels and all(label.text in ("Fully supported", "Partially supported", "Not supported") for label in labels)
    for fold in page.all("section[data-view=candidate] details.fold summary"):
        fold.click()
    page.wait(lambda: page.all(".passages li .strip"))
    for strip in page.all(".strip"):
        assert "%" in strip.get_attribute("aria-label")
    assert "from character" in page.js("return document.querySelector('.passages').textContent")
    assert len(page.all(".distribution")) == 3
    page.check_quiet()
    page.one(".crumbs a:last-child").click()
    page.wait(lambda: "1-1" in page.driver.title)
    page.driver.back()
    page.wait(lambda: "1-0" in page.driver.title)
    page.check_quiet()


def check_votes(page):
    """Votes, calibration and estimates of one candidate."""
    page.open("#/candidate/2-1")
    page.wait(lambda: "2-1" in page.driver.title)
    tables = page.all("section[data-view=candidate] table.votes")
    assert len(tables) == 3, "ratings show their votes at once"
    rows = tables[0].find_elements(By.CSS_SELECTOR, "tbody tr")
    assert len(rows) == 3 and "forced after 3 replies" in rows[2].text
    tables[0].find_element(By.CSS_SELECTOR, "summary").send_keys(Keys.ENTER)
    page.wait(lambda: "window.hacked" in page.js("return document.querySelector('table.votes .text').textContent"))
    text = page.js("return document.querySelector('section[data-view=candidate]').textContent")
    for part in ["standard deviation", "Corrected by a calibration: expected value", "Probabilities are estimates from",
                 "before calibration: fully", "one of 3 statements in one call", "3 votes from 6 replies, some forced",
                 "expected 6.40, uncalibrated 7.10"]:
        assert part in text, part
    for fold in page.all("section[data-view=candidate] details.fold summary"):
        fold.click()
    # The judge's own probabilities beside the corrected ones.
    page.wait(lambda: len(page.all(".distribution")) == 6)
    votes = len(page.all(f"{STATEMENTS} table.votes"))
    assert votes == len(page.all(STATEMENTS)), votes
    page.check_quiet()


def check_stopped(page):
    """Those that were stopped early: listed as such, never best or worst, shown with what they have."""
    page.open("#/candidates")
    Select(page.one("#notes")).select_by_value("stopped early")
    page.wait(lambda: len(page.column(1)) == 2)
    assert page.column(7) == ["–", "–"] and all("stopped early" in cell for cell in page.column(11))
    assert all(float(cell) >= 0 for cell in page.column(3))
    page.all("section[data-view=candidates] thead button")[6].click()
    Select(page.one("#notes")).select_by_value("any")
    for _ in range(2):
        totals = page.column(7)
        assert "–" not in totals, "those without a total stand last"
        page.all("section[data-view=candidates] thead button")[6].click()
    low = page.one("input[aria-label='Total, at most']")
    low.send_keys("40")
    page.wait(lambda: "118 candidates" in page.one("section[data-view=candidates] .count").text)
    page.one("section[data-view=candidates] button[type=reset]").click()
    Select(page.one("#notes")).select_by_value("stopped early")
    page.wait(lambda: len(page.column(1)) == 2)
    ids = page.column(1)
    page.one("section[data-view=candidates] tbody a").send_keys(Keys.ENTER)
    page.wait(lambda: page.view() == ["candidate"])
    section = "return document.querySelector('section[data-view=candidate]').textContent"
    assert "Stopped early: this answer was not judged in faithfulness" in page.js(section)
    assert "can be neither the best nor the worst" in page.js(section) and "Faithfulness: not judged" in page.js(section)
    assert "Helpfulness: " in page.js(section) and "place " not in page.one(".beside .small").text
    page.check_quiet()
    page.open(f"#/compare/{ids[0]}/{ids[1]}")
    page.wait(lambda: page.view() == ["compare"])
    assert "Not judged: this answer was stopped early." in page.js("return document.querySelector('section[data-view=compare]').textContent")
    page.check_quiet()
    page.open("#/prompts")
    assert not set(ids) & set(link.text for link in page.all("section[data-view=prompts] tbody a"))
    others = page.js("return [...document.querySelectorAll('section[data-view=prompts] tbody tr:nth-child(3) a')].map(a => a.textContent)")
    assert len(others) == 3 and not set(others) & set(ids), (others, ids)


def check_whole_document(page):
    page.open("#/candidate/3-0")
    page.wait(lambda: "3-0" in page.driver.title)
    first, *others = [item.text for item in page.all(STATEMENTS)]
    assert "the document is too long" in first and others
    assert all("Evidence: the whole document." in text for text in others), others
    page.check_quiet()


def check_notes(page):
    page.open()
    notes = [item.text for item in page.all("section[data-view=overview] .notes li")]
    starts = ["2 of 120 candidates were stopped early", "made of 3 votes", "corrected by a calibration", "from echoed prompts",
              "first tokens", "against the whole document", "several in one call"]
    assert len(notes) == len(starts) and all(start in note for start, note in zip(starts, notes)), notes
    assert not page.all("section[data-view=overview] details.notice"), "no row is listed as unusable"
    text = page.one("section[data-view=overview]").text
    assert "The 2 runs that made them took 90 min, or 80 candidates an hour" in text and "88.9 % of them from" in text


def check_comparison(page):
    page.one("nav a[data-nav=prompts]").click()
    page.wait(lambda: page.view() == ["prompts"])
    for head in page.all("section[data-view=prompts] thead button"):
        head.click()
        head.click()
    page.one("#prompt-search").send_keys("hacked")
    page.wait(lambda: page.column(1, "prompts") == ["1"])
    page.all("section[data-view=prompts] tbody td:last-child a")[0].click()
    page.wait(lambda: page.view() == ["compare"])
    assert page.all("section[data-view=compare] del") and page.all("section[data-view=compare] ins")
    check_difference(page)
    Select(page.one("#compare-right")).select_by_value("1-0")
    page.wait(lambda: "1-0" in page.driver.title)
    page.wait(lambda: page.js("return document.activeElement.id") == "compare-right")
    check_difference(page)
    page.one("#marks").send_keys(Keys.SPACE)
    assert page.all(".columns.unmarked")
    page.check_quiet()


def check_difference(page):
    """What is not marked is the same on both sides, and nothing is lost."""
    same = page.js("""return [...document.querySelectorAll('section[data-view=compare] .side .box .text')].map(t =>
        [...t.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join('').replace(/\\s+/g, ''))""")
    assert len(same) == 2 and same[0] == same[1] and len(same[0]) > 100, same
    ids = page.driver.title.split(" ")[0:3:2]
    for i, id in enumerate(ids):
        whole = page.js("""const t = document.querySelectorAll('section[data-view=compare] .side .box .text')[arguments[0]];
            const rows = JSON.parse(document.getElementById('index').textContent).candidates;
            const row = rows.k.findIndex((k, r) => rows.prompt[r] === 0 && k === arguments[1]);
            return t.textContent === JSON.parse(document.getElementById('answers').textContent)[row]""", i, id.split("-")[1])
        assert whole, id


def check_agreement(page):
    page.open()
    page.one("nav a[data-nav=agreement]").send_keys(Keys.ENTER)
    page.wait(lambda: page.view() == ["agreement"])
    assert page.js("return document.activeElement.id") == "agreement-title", "a new view takes the focus"
    section = "section[data-view=agreement]"
    charts = page.all(f"{section} svg.chart")
    assert len(charts) == 3 + 2 + 1, len(charts)  # measures of three kinds, two diagrams, recall
    said = [chart.get_attribute("aria-label") for chart in charts]
    assert all(chart.get_attribute("role") == "img" for chart in charts)
    assert "judge: 0.610 (" in said[0] and "<script>" in said[0], said[0]
    assert "Confidence 86 %: 73 % of 90 right." in said[1], said[1]
    cells = page.js(f"return [...document.querySelectorAll('{section} .confusion')].map(t => [...t.querySelectorAll('tbody b')].map(b => b.textContent))")
    assert cells[0] == ["70", "32", "8", "40", "120", "34", "3", "14", "28"], cells
    shades = page.js(f"return [...document.querySelectorAll('{section} .confusion td b')].map(b => getComputedStyle(b.parentElement).backgroundColor)")
    assert len(set(shades)) > 4, shades
    # Unfolding by keyboard; what is folded away is every number of the file.
    folds = page.all(f"{section} details > summary")
    assert len(folds) == 3, len(folds)
    for fold in folds:
        fold.send_keys(Keys.SPACE)
    assert page.all(f"{section} details[open] table") and len(page.all(f"{section} details[open]")) == 3
    rows = page.js(f"return [...document.querySelectorAll('{section} .biases tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert all(len(row) == 4 for row in rows) and any(row[1].startswith("Of two answers the padded") for row in rows)
    assert "0.800 (" in page.js(f"return document.querySelector('{section}').textContent")
    page.check_quiet()


def check_theme(page):
    paper = lambda: page.js("return getComputedStyle(document.body).backgroundColor")
    before = paper()
    page.one("#theme").send_keys(Keys.ENTER)
    assert paper() != before
    page.open("#/prompts")
    assert paper() != before, "the choice is kept"
    page.one("#theme").click()
    assert paper() == before


def check_strange_addresses(page):
    for route in ["#/candidate/99-99", "#/candidate/", "#/compare/1-0", "#/compare/1-0/2-0", "#/nowhere", "#/candidate/%",
                  "#/__proto__", "#/constructor"]:
        page.open(route)
        page.check_quiet()
    page.open("#/candidate/2-1")
    page.wait(lambda: "2-1" in page.driver.title)
    page.check_quiet()


def check_skip_link(page):
    page.open()
    page.js("document.body.focus()")
    page.one("body").send_keys(Keys.TAB)
    assert page.js("return document.activeElement.id") == "skip"
    page.press(Keys.ENTER)
    assert page.js("return document.activeElement.id") == "main" and page.view() == ["overview"]


def check_names(page):
    """Every control has a name, every id is unique, headings don't skip a level."""
    for route in VIEWS:
        page.open(route)
        time.sleep(0.3)
        unnamed = page.js("""const shown = e => e.offsetParent !== null;
            return [...document.querySelectorAll('button, input, select, a[href], svg[role=img], summary')].filter(shown)
              .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length)))
              .map(e => e.outerHTML)""")
        assert not unnamed, unnamed
        twice = page.js("""const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
            return ids.filter((id, i) => ids.indexOf(id) !== i)""")
        assert not twice, twice
        levels = page.js("""return [...document.querySelectorAll('h1,h2,h3,h4')].filter(e => e.offsetParent !== null)
            .map(e => Number(e.tagName[1]))""")
        assert levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), (route, levels)


def check_contrast(page):
    """Text against its background, at least 4.5 to 1 (WCAG 2, AA), in light and dark."""
    script = """
      const lum = c => { const v = c.map(x => x / 255).map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const rgb = s => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = s; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const back = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
        if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
      const bad = new Set();
      for (const e of document.querySelectorAll('body *')) {
        if (e.offsetParent === null || !(e instanceof HTMLElement) || e.disabled) continue;
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        const [a, b] = [lum(rgb(getComputedStyle(e).color).slice(0, 3)), lum(back(e).slice(0, 3))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) bad.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
      }
      return [...bad]"""
    for theme in ["light", "dark"]:
        for route in VIEWS:
            page.open(route)
            page.js("document.documentElement.dataset.theme = arguments[0]", theme)
            time.sleep(0.4)
            bad = page.js(script)
            assert not bad, (theme, route, bad)


def check_narrow(page):
    page.driver.set_window_size(500, 900)
    for route in VIEWS:
        page.open(route)
        time.sleep(0.3)
        page.check_quiet()
    page.driver.set_window_size(1400, 1000)


def shoot(page, folder):
    folder.mkdir(parents=True, exist_ok=True)
    page.open()
    stopped = page.js("""const { candidates, prompts } = JSON.parse(document.getElementById('index').textContent);
        const row = Math.max(candidates.stopped.findIndex(bounds => bounds), 0);
        return `${prompts[candidates.prompt[row]].idx}-${candidates.k[row]}`""")
    routes = {"overview": "#/", "agreement": "#/agreement", "candidates": "#/candidates", "prompts": "#/prompts", "candidate": "#/candidate/1-0",
              "votes": "#/candidate/2-1", "stopped": f"#/candidate/{stopped}", "whole": "#/candidate/3-0",
              "compare": "#/compare/4-0/4-1"}
    for width in [1400, 500]:
        for theme in ["light", "dark"]:
            for name, route in routes.items():
                page.driver.set_window_size(width, 1000)
                page.open(route)
                page.js("document.documentElement.dataset.theme = arguments[0]", theme)
                time.sleep(0.4)
                height = min(page.js("return document.documentElement.scrollHeight"), 4200)
                page.driver.set_window_size(width, height + 90)
                page.driver.save_screenshot(str(folder / f"{name}-{theme}-{width}.png"))
    page.driver.set_window_size(1400, 1000)


def milliseconds(page, script):
    """The mean of a few runs of `script`, each up to the next painted frame, and the script alone."""
    timed = """const done = arguments[arguments.length - 1]; const times = []; const alone = [];
      const run = () => { const from = performance.now(); (() => { %s })(); alone.push(performance.now() - from);
        requestAnimationFrame(() => setTimeout(() => { times.push(performance.now() - from);
          times.length < 5 ? run() : done([times, alone]); })); }; run();""" % script
    painted, alone = page.driver.execute_async_script(timed)
    middle = lambda values: sorted(values)[len(values) // 2]
    return f"{middle(alone):.0f} ms, with painting {middle(painted):.0f} ms"


def measure(page):
    page.driver.set_script_timeout(60)
    loads = []
    for _ in range(3):
        page.driver.get("about:blank")
        page.driver.get(f"file://{page.file}#/candidates")
        times = page.js("""const n = performance.getEntriesByType('navigation')[0]; const p = performance.getEntriesByType('paint');
          return [p.length ? p[0].startTime : 0, n.domInteractive, n.loadEventEnd]""")
        loads.append(times)
    paint, interactive, load = [sorted(column)[1] for column in zip(*loads)]
    print(f"first paint {paint:.0f} ms, whole file read {interactive:.0f} ms, load event {load:.0f} ms")
    time.sleep(2)
    click = "const b = document.querySelectorAll('section[data-view=candidates] thead button'); b[%d].click();"
    print("sort by total:", milliseconds(page, click % 6))
    print("sort by question:", milliseconds(page, click % 1))
    type_in = "const i = document.querySelector(\"%s\"); i.value = '%s'; i.dispatchEvent(new Event('input', { bubbles: true }));"
    print("filter by total:", milliseconds(page, type_in % ("input[aria-label='Total, at least']", "20")))
    print("filter cleared:", milliseconds(page, type_in % ("input[aria-label='Total, at least']", "")))
    print("search, one word in many answers:", milliseconds(page, type_in % ("#search", "dri")))
    print("search, three words:", milliseconds(page, type_in % ("#search", "dri stalo wevi")))
    print("search, found nowhere:", milliseconds(page, type_in % ("#search", "qqqq")))
    for name, route in [("candidate page", "#/candidate/{}-3"), ("side by side", "#/compare/{}-2/{}-5")]:
        times = []
        for prompt in [7, 8, 9, 10, 11]:
            target = route.replace("{}", str(prompt))
            times.append(page.driver.execute_async_script("""const done = arguments[1]; const from = performance.now();
              const before = document.title; location.hash = arguments[0];
              const look = () => document.title !== before ? requestAnimationFrame(() => setTimeout(() => done(performance.now() - from)))
                : setTimeout(look, 1); look();""", target))
        print(f"{name}: {sorted(times)[2]:.0f} ms")
    memory = page.js("return performance.memory ? performance.memory.usedJSHeapSize / 1e6 : 0")
    print(f"script memory {memory:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--page", type=Path, help="use this page instead of making one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or Path(scratch) / "data"
        if args.data is None:
            synthetic.write(folder, prompts=12)
        out = args.page or Path(scratch) / "report.html"
        if args.page is None:
            start = time.time()
            print(make_report(args.binary.resolve(), folder, out), f"in {time.time() - start:.1f} s")
        driver = browser()
        try:
            page = Page(driver, out)
            if args.measure:
                return measure(page)
            if args.shots:
                shoot(page, args.shots)
                page.errors()
            if args.data is None:
                rows = 120
                check_overview(page)
                check_sorting(page, rows)
                check_paging(page, rows)
                check_filters(page, rows)
                check_candidate(page)
                check_comparison(page)
                check_votes(page)
                check_stopped(page)
                check_whole_document(page)
                check_notes(page)
                check_agreement(page)
                check_theme(page)
                check_strange_addresses(page)
                check_skip_link(page)
                check_names(page)
                check_contrast(page)
                check_narrow(page)
                print("17 passed, 0 failed")
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
