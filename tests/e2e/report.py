#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`lathe report`: the page in a headless Chromium, every part of it used; its numbers are sqlite3's own; what a database
says can't become code; mistakes are one sentence. Screenshots stay in the build tree."""
import csv
import math
import os
import pathlib
import shutil
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile

sys.path.pop(0)  # this folder has a tokenize.py, and selenium wants Python's
try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):  # Debian's packages are for Debian's Python
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])
    print("skipped: selenium is absent (apt install python3-selenium)")
    sys.exit(77)
for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver"), ("sqlite3", "sqlite3")):
    if not shutil.which(program):
        print(f"skipped: {program} is absent (apt install {package})")
        sys.exit(77)

lathe = os.environ["LATHE"]
extension = pathlib.Path(os.environ["LATHE_BUILD"]) / "lathe_sqlite.so"
pictures = pathlib.Path(os.environ["LATHE_BUILD"]) / "report-screenshots"
pictures.mkdir(exist_ok=True)
folder = tempfile.TemporaryDirectory()
here = pathlib.Path(folder.name)
failures = []


def call(*words):
    return subprocess.run([lathe, *words], cwd=here, capture_output=True, text=True, timeout=300, env=dict(os.environ, LATHE_LOG="error"))


def check(what, condition, result=None):
    print(f"{'ok    ' if condition else 'FAILED'} {what}", flush=True)
    if not condition:
        failures.append(what)
        if result is not None:
            print(f"  status {result.returncode}\n  stdout: {result.stdout[-800:]}\n  stderr: {result.stderr[-800:]}" if hasattr(result, "returncode") else f"  {result}")


def sql(database, query):
    """The sqlite3 shell's answer, with the extension if it can be loaded (a sanitizer's can't)."""
    result = subprocess.run(["sqlite3", "-cmd", f".load {extension}", "-csv", "-noheader", str(here / database), query], capture_output=True, text=True, timeout=120)
    if result.returncode or result.stderr:
        return [line for line in csv.reader(call("sql", "--format", "csv", database, query).stdout.splitlines())][1:]
    return list(csv.reader(result.stdout.splitlines()))


def near(a, b, share=2e-6):
    return a is not None and b not in (None, "") and math.isclose(float(a), float(b), rel_tol=share, abs_tol=1e-9)


# ── the databases ────────────────────────────────────────────────────────────────────────
evil = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2"><!--'
(here / "runs.lua").write_text("""-- What does </title><script>window.hacked = 3</script> do in a page?
local lathe = require "lathe"
local evil = [==[%s]==]
local function run(t)
  t.model = lathe.model "tiny"
  t.factors = { scheduler = t.scheduler or "fcfs", [evil] = evil }
  lathe.run(t)
end
local load = {}
for i = 1, 30 do
  load[i] = { prompt = evil .. string.rep(" word", i), output_tokens = 4 + i %% 7, ignore_eos = true, tenant = evil:sub(1, 60), at = i * 0.0005 }
end
run { label = "summary " .. evil, workload = load, trace = { attention = "summary", tokens = "all" } }
run { label = "full", scheduler = "sjf", workload = load, trace = { attention = "full", tokens = "all" } }
run { label = "top", workload = { load[1], load[2] }, trace = { attention = { format = "top", top_k = 3 }, tokens = "output" } }
run { label = "sinks", kvcache = { "sinks", sinks = 2, budget = 16, block_tokens = 4 }, workload = { load[1] }, trace = { attention = "full", tokens = "all", kv = 1 } }
run { label = "long", workload = { { prompt = string.rep("abcdefgh ", 90), output_tokens = 20, ignore_eos = true } }, trace = { attention = "full", tokens = "all" } }
""" % evil)
(here / "many.lua").write_text("""-- Which of two schedulers keeps first tokens quick?
local lathe    = require "lathe"
local workload = require "lathe.workload"
local lognormal = workload.lognormal
for _, name in ipairs { "fcfs", "srpt" } do
  lathe.run { model = lathe.model { "sim", step_us = 8000, noise = 0.05 }, clock = "virtual", scheduler = name, label = name, seed = 1,
    workers = { model = name == "fcfs" and 1 or 2 }, trace = { rows = "step_requests" }, factors = { scheduler = name },
    workload = workload.poisson { rate = 60, requests = 8000, seed = 1, predicted = { noise = 0.3 },
      prompt = lognormal { median = 60, sigma = 0.8, max = 400 }, output = lognormal { median = 12, sigma = 0.9, max = 100 } } }
end
""")
(here / "requests.lua").write_text("""-- A run of 100,000 requests?
local lathe    = require "lathe"
local workload = require "lathe.workload"
lathe.run { model = lathe.model { "sim", step_us = 2000 }, clock = "virtual", trace = { rows = "steps" }, label = "large",
  workload = workload.poisson { rate = 300, requests = 100000, seed = 1, prompt = workload.fixed(20), output = workload.uniform { from = 1, to = 12 } } }
""")
for name in ("runs", "many", "requests"):
    r = call("run", "-q", "--database", f"{name}.db", f"{name}.lua")
    check(f"{name}.db is made", r.returncode == 0, r)
connection = sqlite3.connect(here / "runs.db")
steps = connection.execute("select id, end_ns from step where run_id = 1 order by id").fetchall()
columns = [row[1] for row in connection.execute("pragma table_info(kv_usage)")]
if not connection.execute("select count(*) from kv_usage where run_id = 1").fetchone()[0]:
    for i, (step, time) in enumerate(steps):
        row = dict(run_id=1, step_id=step, replica=0, time_ns=time, blocks_total=400, blocks_used=10 + i, blocks_cached=5, blocks_shared=2,
                   reserved_tokens=160, filled_tokens=120, evicted_blocks=0, evicted_tokens=i, hit_tokens=30, looked_up_tokens=120)
        connection.execute(f"insert into kv_usage ({', '.join(columns)}) values ({', '.join('?' * len(columns))})", [row[c] for c in columns])
connection.execute("update run set dropped_events = 3, experiment = ? where id = 3", (evil,))
connection.commit()
connection.close()
for name in ("runs", "many", "requests"):
    r = call("report", f"{name}.db")
    check(f"{name}.html is written beside it, and said", r.returncode == 0 and r.stdout.startswith(f"{name}.html: ") and (here / f"{name}.html").exists() and r.stderr == "", r)
page = (here / "runs.html").read_text()
check("nothing is asked of a network", "http:" not in page.replace("http://www.w3.org/2000/svg", "") and "https:" not in page and "src=" not in page.split('id="data"')[0])
check("a database's < is an escape everywhere", "<img" not in page and page.count("window.hacked") > 0 and "</script><script>window" not in page)


# ── a browser ────────────────────────────────────────────────────────────────────────────
def browser(width=1280, height=900, dark=False):
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={here / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        made = webdriver.Chrome(options=options)
    except Exception as problem:  # no browser can be started here, whatever the reason
        print(f"skipped: Chromium doesn't start here ({str(problem).splitlines()[0]})")
        sys.exit(77)
    resize(made, width, height, dark)
    return made


def resize(d, width, height, dark=False):
    d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})
    d.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})


def open_page(name):
    driver.get(f"file://{here}/{name}.html")


def js(script, *arguments):
    return driver.execute_script(script, *arguments)


def by(identity):
    return driver.find_element(By.ID, identity)


def bring(identity):
    """Scrolls a section near, and waits until it has made itself."""
    js("document.getElementById(arguments[0]).scrollIntoView({ behavior: 'instant' })", identity)
    if identity not in ("runs", "latency"):
        WebDriverWait(driver, 20).until(lambda d: by(identity).get_attribute("data-made") is not None)
    frames()
    return by(identity)


def frames():
    driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30)))")


def text(selector):
    return driver.find_element(By.CSS_SELECTOR, selector).text


def press(target, *keys):
    js("arguments[0].focus({ preventScroll: true })", target)
    target.send_keys(*keys)
    frames()


def hover(target, x, y):
    """The pointer, x and y as shares of the element."""
    js("""const [e, x, y] = arguments, b = e.getBoundingClientRect();
          e.dispatchEvent(new PointerEvent('pointermove', { clientX: b.left + b.width * x, clientY: b.top + b.height * y, bubbles: true, pointerId: 1 }));""", target, x, y)
    frames()


def values(host, key):
    """A table's column as numbers, in the order shown."""
    return js("""return [...document.querySelectorAll(arguments[0] + ' tbody [data-column="' + arguments[1] + '"]')].map(c => c.dataset.value === undefined ? null : +c.dataset.value)""", host, key)


def pixels(selector):
    """How many different colours a canvas shows."""
    return js("""const c = document.querySelector(arguments[0]), copy = Object.assign(document.createElement('canvas'), { width: c.width, height: c.height }),
                     context = copy.getContext('2d', { willReadFrequently: true });
                 context.drawImage(c, 0, 0);
                 return new Set(new Uint32Array(context.getImageData(0, 0, c.width, c.height).data.buffer)).size""", selector)


def picture(name):
    """The whole page; how many bytes the PNG has."""
    height = js("return document.documentElement.scrollHeight")
    width = js("return innerWidth")
    for y in range(0, height, 500):
        js("scrollTo({ top: arguments[0], behavior: 'instant' })", y)
        frames()
    height = js("return document.documentElement.scrollHeight")
    dark = js("return matchMedia('(prefers-color-scheme: dark)').matches")
    resize(driver, width, height, dark)
    frames()
    path = pictures / f"{name}.png"
    driver.save_screenshot(str(path))
    resize(driver, width, 900, dark)
    return path.stat().st_size


def quiet(what):
    said = driver.get_log("browser")
    check(f"{what}: no error or warning on the console", not said, said)


driver = browser()
driver.set_script_timeout(30)
try:
    # ── opens at once ────────────────────────────────────────────────────────────────────
    best = None
    for _ in range(3):
        open_page("requests")
        took = js("return performance.now()")
        best = took if best is None else min(best, took)
    check(f"the report of 100,000 requests opens in under 2 s ({best:.0f} ms)", best < 2000)
    check("and has its runs and curves then", values("#run-table", "requests") == [100000] and js("return document.querySelectorAll('#latency-chart path').length") >= 2)
    bring("timeline")
    check("far away it counts requests", by("timeline").find_element(By.TAG_NAME, "canvas").get_attribute("data-detail") == "counts" and pixels("#timeline canvas") > 3)
    check("what is thinned is said", "One step in" in text("#timeline") and "every n-th value" in text("#latency-table"), text("#timeline")[-400:] + text("#latency-table"))
    quiet("100,000 requests")

    # ── numbers are SQL's ────────────────────────────────────────────────────────────────
    open_page("many")
    answers = sql("many.db", "select requests, ttft_p50_ms, ttft_p99_ms, tpot_p50_ms, e2e_p50_ms, tokens_per_s, goodput from run_latency order by run_id")
    for place, key in enumerate(("requests", "ttft_p50", "ttft_p99", "tpot_p50", "e2e_p50", "tokens_per_s", "goodput")):
        shown = values("#run-table", key)
        check(f"run table: {key} is run_latency's", len(shown) == 2 and all(near(s, a[place]) for s, a in zip(shown, answers)), (shown, answers))
    figures = {"ttft": "(first_token_ns - planned_ns) / 1e6", "e2e": "(finish_ns - planned_ns) / 1e6", "tpot": "(finish_ns - first_token_ns) / 1e6 / nullif(output_tokens - 1, 0)"}
    inside = """const paths = [...document.querySelectorAll('#latency-chart path')], svg = paths[0].ownerSVGElement;
        return paths.filter(p => p.dataset.series).every((curve, i) => {
          const band = paths.filter(p => !p.dataset.series)[i], length = curve.getTotalLength();
          for (let k = 1; k < 400; k++) {
            const at = curve.getPointAtLength(length * k / 400), dash = svg.createSVGPoint();
            [dash.x, dash.y] = [at.x, at.y];
            const by = [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]].some(([x, y]) => { dash.x = at.x + x; dash.y = at.y + y; return band.isPointInFill(dash); });
            if (!by) return false;
          }
          return true;
        })"""
    for name, expression in figures.items():
        js("document.querySelector(`#latency-figure input[value=${arguments[0]}]`).click()", name)
        answers = sql("many.db", f"select count({expression}), avg({expression}), percentile({expression}, 50), percentile({expression}, 90), percentile({expression}, 99), max({expression}) from request group by run_id")
        for place, key in enumerate(("n", "mean", "p50", "p90", "p99", "max")):
            shown = values("#latency-table", key)
            check(f"latency table: {name} {key} is sqlite3's", len(shown) == 2 and all(near(s, a[place]) for s, a in zip(shown, answers)), (shown, answers))
        check(f"{name}: each curve lies within its band", js(inside))
        check(f"{name}: a curve and a band a run", js("return document.querySelectorAll('#latency-chart path').length") == 4)
    js("document.querySelector('#latency-figure input[value=e2e]').click()")
    svg = driver.find_element(By.CSS_SELECTOR, "#latency-chart svg")
    press(svg, Keys.ARROW_RIGHT)
    first = text("#latency-chart .readout")
    press(svg, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    check("arrow keys move the cursor", "fcfs" in first and "%" in first and text("#latency-chart .readout") != first, first)
    hover(svg, 0.5, 0.5)
    said = text("#latency-chart .readout")
    at, unit = said.split(":")[0].replace("\u202f", "").split()
    at = float(at) * (1000 if unit == "s" else 1)
    truth = [float(a[0]) * 100 for a in sql("many.db", f"select avg((finish_ns - planned_ns) / 1e6 <= {at}) from request where finish_reason in ('stop', 'length') group by run_id")]
    told = [float(part.split(" %")[0].split("%")[0].split()[-1]) for part in said.split("; ")]
    check("hovering says the share that SQL finds there", len(told) == 2 and all(abs(t - s) < 1.5 for t, s in zip(told, truth)), (said, truth))
    js("document.getElementById('latency-log').click()")
    check("linear on request", js("return document.querySelectorAll('#latency-chart path').length") == 4)

    # ── sorting, filters, which runs are drawn ───────────────────────────────────────────
    head = driver.find_element(By.CSS_SELECTOR, '#run-table th[data-column="ttft_p50"] button')
    head.click()
    up = values("#run-table", "ttft_p50")
    press(head, Keys.ENTER)
    down = values("#run-table", "ttft_p50")
    check("heads sort, by click and by key", up == sorted(up) and down == sorted(down, reverse=True) and up != down, (up, down))
    check("and say so", js("return document.querySelector('#run-table th[data-column=ttft_p50]').getAttribute('aria-sort')") == "descending")
    by("run-filter").send_keys("srpt")
    check("the filter filters", values("#run-table", "id") == [2] and "1 of 2 runs" in text("#run-count"))
    by("run-filter").send_keys(Keys.BACKSPACE * 4)
    Select(by("run-state")).select_by_value("done")
    check("so does the state", values("#run-table", "id") == [2, 1] or values("#run-table", "id") == [1, 2])
    js("document.querySelector('#run-table input[type=checkbox]').click()")
    check("a run can be taken off the chart", js("return document.querySelectorAll('#latency-chart path').length") == 2)
    js("document.querySelector('#run-table input[type=checkbox]').click()")

    # ── the timeline ─────────────────────────────────────────────────────────────────────
    bring("timeline")
    canvas = driver.find_element(By.CSS_SELECTOR, "#timeline canvas")
    span = lambda: float(canvas.get_attribute("data-to")) - float(canvas.get_attribute("data-from"))  # noqa: E731
    whole = span()
    press(canvas, "+")
    check("+ zooms in", span() < whole * 0.8)
    start = float(canvas.get_attribute("data-from"))
    press(canvas, Keys.ARROW_RIGHT)
    check("→ moves", float(canvas.get_attribute("data-from")) > start)
    press(canvas, "0")
    check("0 shows the whole run", abs(span() - whole) < whole * 0.1)
    js("""const c = arguments[0], b = c.getBoundingClientRect();
          for (let i = 0; i < 18; i++) c.dispatchEvent(new WheelEvent('wheel', { deltaY: -200, clientX: b.left + b.width / 2, clientY: b.top + 50, bubbles: true, cancelable: true }));""", canvas)
    frames()
    check("the wheel zooms, until each request has a bar", span() < whole / 100 and canvas.get_attribute("data-detail") == "requests", (span(), whole))
    check("which are drawn", pixels("#timeline canvas") > 6)
    press(canvas, ".")
    step = int(text("#timeline .readout").split()[1].replace("\u202f", ""))
    answer = sql("many.db", f"select requests, prefill_tokens, decode_tokens, waiting, (end_ns - start_ns) / 1e6 from step where run_id = 1 and id = {step}")[0]
    check(". selects a step, told as SQL has it", f"with {answer[0]} request" in text("#timeline .readout") and f"{answer[1]} token" in text("#timeline .readout")
          and f"{answer[2]} of decode" in text("#timeline .readout"), (text("#timeline .readout"), answer))
    company = sql("many.db", f"select request_id, tokens, context from step_request where run_id = 1 and step_id = {step} order by request_id")
    check("who was in it is step_request's", values("#timeline-step", "request") == [float(c[0]) for c in company] and values("#timeline-step", "context") == [float(c[2]) for c in company], company)
    press(canvas, ".")
    later = int(text("#timeline .readout").split()[1].replace("\u202f", ""))
    press(canvas, ",")
    check(". and , walk over steps", later > step == int(text("#timeline .readout").split()[1].replace("\u202f", "")), (step, later))
    press(canvas, Keys.ESCAPE)
    hover(canvas, 0.5, 0.1)
    check("hovering tells a step", text("#timeline .readout").startswith("Step "))
    before = float(canvas.get_attribute("data-from"))
    js("""const c = arguments[0], b = c.getBoundingClientRect(), at = (type, x) => c.dispatchEvent(new PointerEvent(type, { clientX: b.left + x, clientY: b.top + 60, bubbles: true, pointerId: 1 }));
          c.setPointerCapture = () => {}; at('pointerdown', 400); at('pointermove', 380); at('pointermove', 300); at('pointerup', 300);""", canvas)
    frames()
    check("dragging moves it", float(canvas.get_attribute("data-from")) > before)
    for button in ("timeline-in", "timeline-out", "timeline-all", "timeline-after", "timeline-before"):
        by(button).click()
    frames()
    Select(by("timeline-run")).select_by_value("2")
    frames()
    check("a run of two replicas can be seen by each", by("timeline-replica").is_displayed())
    Select(by("timeline-replica")).select_by_value("1")
    frames()
    check("and is drawn", pixels("#timeline canvas") > 3)

    # ── memory ───────────────────────────────────────────────────────────────────────────
    bring("memory")
    answer = sql("many.db", "select avg(kv_blocks_used), max(kv_blocks_used), max(kv_blocks_total), max(waiting) from step where run_id = 1")[0]
    shown = values("#memory-table", "value")
    check("blocks in use are SQL's", len(shown) == 4 and all(near(s, a) for s, a in zip(shown, answer)), (shown, answer))

    # ── comparison ───────────────────────────────────────────────────────────────────────
    bring("comparison")
    rows = sqlite3.connect(here / "many.db").execute("""select (b.first_token_ns - b.planned_ns) / 1e6 - (a.first_token_ns - a.planned_ns) / 1e6
        from request a join request b on b.id = a.id where a.run_id = 1 and b.run_id = 2""").fetchall()
    differences = sorted(d for (d,) in rows)
    half = 1.96024 * statistics.stdev(differences) / math.sqrt(len(differences))  # Student's t, 7,999 degrees of freedom
    mean = statistics.fmean(differences)
    k = math.floor(len(differences) / 2 - 1.959963985 * math.sqrt(len(differences)) / 2)
    check("pairs", values("#compare-table", "n")[0] == len(differences))
    check("mean difference and the foot of its interval", near(values("#compare-table", "mean")[0], mean, 1e-4) and near(values("#compare-table", "meanLow")[0], mean - half, 1e-3), (mean, half))
    check("median difference and the foot of its interval", near(values("#compare-table", "median")[0], statistics.median(differences), 1e-3)
          and near(values("#compare-table", "medianLow")[0], differences[k - 1], 1e-3), (statistics.median(differences), differences[k - 1]))
    check("intervals are drawn", js("return document.querySelectorAll('#compare-forest circle').length") == 3)
    Select(by("compare-a")).select_by_value("1")
    check("a run against itself is refused", "two different" in text("#compare-lead"))
    Select(by("compare-b")).select_by_value("2")
    check("the other way round", near(values("#compare-table", "mean")[0], -mean, 1e-4))
    js("document.querySelector('#compare-figure input[value=e2e]').click()")
    press(driver.find_element(By.CSS_SELECTOR, "#compare-chart svg"), Keys.ARROW_LEFT)
    check("differences can be read off by key", "% of the pairs differ by" in text("#compare-chart .readout"))
    quiet("two runs")

    # ── attention, and strings that would be code ────────────────────────────────────────
    open_page("runs")
    for section in ("runs", "latency", "timeline", "attention", "memory", "comparison"):
        bring(section)
    check("a prompt, label or question with markup in it does nothing", js("return window.hacked") is None and js("return document.querySelectorAll('img').length") == 0)
    check("and is shown as it is", evil in js("return document.getElementById('run-table').textContent") and "<script>" in js("return document.title"))
    check("the policy forbids a script that isn't the page's", js("""const s = document.createElement('script'); s.textContent = 'window.hacked = 4'; document.body.append(s); return window.hacked""") is None)
    driver.get_log("browser")  # that one was provoked
    check("dropped rows are told", "dropped" in text("#run-table"))
    bring("attention")
    answers = {(int(layer), int(head)): value for layer, head, *value in sql("runs.db",
               "select layer, head, avg(first_mass), avg(entropy), avg(top_weight) from attention where run_id = 1 and request_id = 1 and position > 0 group by layer, head")}
    for place, key in enumerate(("first_mass", "entropy", "top_weight")):
        Select(by("attention-figure")).select_by_value(key)
        cells = js("return [...document.querySelectorAll('#attention-heads [data-head]')].map(c => [c.getAttribute('aria-label'), +c.dataset.value])")
        same = [near(value, answers[(int(label.split()[1].strip(',')), int(label.split()[3].strip(':')))][place], 1e-5) for label, value in cells]
        check(f"head grid: {key} is sqlite3's", len(cells) == len(answers) and all(same), (cells, answers))
    options = [o.text for o in Select(by("attention-part")).options]
    full = next(i for i, o in enumerate(options) if o.startswith("run 2 · request 1 "))
    Select(by("attention-part")).select_by_index(full)
    frames()
    canvas = driver.find_element(By.CSS_SELECTOR, "#attention-map canvas")
    check("a map is drawn", pixels("#attention-map canvas") > 8)
    before = text("#attention-map-title")
    press(driver.find_element(By.CSS_SELECTOR, "#attention-heads [tabindex='0']"), Keys.HOME)
    press(driver.switch_to.active_element, Keys.ARROW_RIGHT)
    check("arrow keys choose a head", text("#attention-map-title") == "Layer 0, head 1", (before, text("#attention-map-title")))
    press(canvas, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    said = text("#attention-map .readout")
    position, key = js("return document.querySelector('#attention-map .readout').textContent.match(/Query (\\d+)[^]*→ key (\\d+)/).slice(1).map(Number)")
    weight = float(said.split("weight ")[1].split(".\n")[0].split(". ")[0].rstrip("."))
    answer = sql("runs.db", f"select weight from attention_weights where run_id = 2 and request_id = 1 and position = {position} and layer = 0 and head = 1 and key = {key}")
    check("the keyboard reads a weight, and it is SQL's", len(answer) == 1 and abs(weight - float(answer[0][0])) <= 0.001 * max(weight, 1e-3), (said, answer))
    hover(canvas, 0.2, 0.6)
    check("hovering reads another", "→ key" in text("#attention-map .readout") and text("#attention-map .readout") != said)
    check("both tokens are told", "“" in text("#attention-map .readout"))
    zoom = float(canvas.get_attribute("data-zoom"))
    press(canvas, "+", "+")
    check("the map zooms", float(canvas.get_attribute("data-zoom")) > zoom)
    press(canvas, "0")
    check("and back", float(canvas.get_attribute("data-zoom")) == 1)
    for button in ("attention-in", "attention-out", "attention-all"):
        by(button).click()
    token = driver.find_element(By.CSS_SELECTOR, "#attention-strip [data-position='5']")
    js("arguments[0].click()", token)
    check("a token becomes the query", "query at 5 " in text("#attention-strip-lead"), text("#attention-strip-lead"))
    press(driver.find_element(By.CSS_SELECTOR, "#attention-strip [tabindex='0']"), Keys.ARROW_LEFT)
    answer = sql("runs.db", "select weight from attention_weights where run_id = 2 and request_id = 1 and position = 5 and layer = 0 and head = 1 and key = 4")
    check("arrow keys walk over tokens and tell their weights", abs(float(text("#attention-strip .readout").split(": ")[-1].rstrip(".")) - float(answer[0][0])) < 1e-3, (text("#attention-strip .readout"), answer))
    for run, kind in ((3, "top"), (4, "sinks"), (5, "long")):
        Select(by("attention-part")).select_by_index(next(i for i, o in enumerate(options) if o.startswith(f"run {run} ·")))
        frames()
        if kind == "sinks":
            press(canvas, Keys.ARROW_UP)
            check("dropped keys are told", "had dropped keys" in text("#attention-map") and "keys that it could see" in text("#attention-map .readout")
                  and "nothing is shaded" in text("#attention-strip-lead"), text("#attention-map"))
        check(f"a {kind} trace is drawn", pixels("#attention-map canvas") > 3)
    press(canvas, Keys.ARROW_UP, Keys.ARROW_RIGHT)
    said = text("#attention-map .readout")
    where = [int(word.rstrip(",:")) for word in said.split() if word.rstrip(",:").isdigit()]
    layer, head = [int(word.rstrip(",")) for word in text("#attention-map-title").split()[1::2]]
    answer = sql("runs.db", f"select max(weight) from attention_weights where run_id = 5 and request_id = 1 and position between {where[0]} and {where[1]}"
                            f" and key between {where[2]} and {where[3]} and layer = {layer} and head = {head}")
    check("a pooled cell is the largest weight that SQL finds there", near(said.split("at most ")[1].rstrip("."), answer[0][0], 1e-3), (said, answer))
    check("a long one is pooled, and says so", "a cell is the largest of" in text("#attention-map"), text("#attention-map"))
    check("a long one comes in pages of tokens", "of" in text("#attention-strip .buttons") and js("return document.querySelectorAll('#attention-strip [data-position]').length") <= 256)
    js("document.getElementById('strip-before').click()")
    bring("memory")
    check("room given out and filled is drawn", by("memory-room").is_displayed() and js("return document.querySelectorAll('#memory-room path').length") == 2)
    press(driver.find_element(By.CSS_SELECTOR, "#memory-room svg"), Keys.ARROW_RIGHT)
    check("and read by key", "positions given out" in text("#memory-room .readout"), text("#memory-room .readout"))
    check("rows of kv_usage are told", "positions evicted" in text("#memory-table") and "75" in text("#memory-table"))
    quiet("attention")

    # ── themes, phones, pictures ─────────────────────────────────────────────────────────
    ground = lambda: js("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    light = ground()
    names = [by("theme").text]
    js("scrollTo(0, 0)")
    for _ in range(2):
        press(by("theme"), Keys.ENTER)
        names.append(by("theme").text)
    check("the switch goes to light and dark", [n.split()[-1] for n in names] == ["auto", "light", "dark"] and ground() != light, names)
    press(by("theme"), Keys.ENTER)
    contrast = """const c = n => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim(),
        l = h => [1, 3, 5].map(i => parseInt(h.slice(i, i + 2), 16) / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0),
        r = (a, b) => { const [x, y] = [l(c(a)), l(c(b))].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
        return [['ink', 4.5], ['muted', 4.5], ['accent', 4.5], ['prefill', 3], ['decode', 3], ['mark', 3], ...[0, 1, 2, 3, 4, 5, 6, 7].map(i => ['c' + i, 3])].filter(([n, least]) => r(n, 'ground') < least).map(([n]) => n)"""
    sizes = {}
    for dark in (False, True):
        for width in (1280, 390):
            resize(driver, width, 900, dark)
            frames()
            kind = f"{width}-{'dark' if dark else 'light'}"
            sizes[kind] = picture(kind)
            check(f"{kind}: nothing is wider than the screen", js("return document.documentElement.scrollWidth") <= width, js("return document.documentElement.scrollWidth"))
            check(f"{kind}: the page isn't empty", sizes[kind] > 60000 and js("return [...document.querySelectorAll('canvas')].every(c => c.width > 0)"), sizes)
        check(f"{'dark' if dark else 'light'}: text and curves stand out from the ground", js(contrast) == [], js(contrast))
    check("the system's dark is followed", ground() != light)
    resize(driver, 1280, 900)
    # By keyboard alone: Tab reaches everything that can be used, and it shows where it is.
    js("scrollTo(0, 0); document.activeElement.blur()")
    reached = set()
    for _ in range(80):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(js("const e = document.activeElement; return e.id || e.closest('[id]')?.id"))
    wanted = {"theme", "run-filter", "run-state", "run-table", "latency-log", "latency-chart", "latency-figure", "timeline-run", "timeline-chart"}
    check("Tab reaches the parts", wanted <= reached, wanted - reached)
    check("focus can be seen", js("return getComputedStyle(document.activeElement).outlineStyle") == "solid")
    check("headings are in order, one h1", js("return [...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName).join('')").startswith("H1H2H2") and js("return document.querySelectorAll('h1').length") == 1)
    check("tables have captions and heads with scope", js("return [...document.querySelectorAll('table')].every(t => t.caption && [...t.querySelectorAll('th')].every(h => h.scope))"))
    unnamed = js("""return [...document.querySelectorAll('button, select, input, canvas, svg[role=img]')].filter(e => !(e.ariaHidden || e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim() || e.labels?.length)).map(e => e.outerHTML.slice(0, 80))""")
    check("everything that can be used has a name", unnamed == [], unnamed)
    quiet("themes and widths")

    r = call("report", "many.db", "-o", "window.html", "--window", "20,20.5")
    check("a window of steps is written", r.returncode == 0, r)
    open_page("window")
    bring("timeline")
    seen = js("const s = JSON.parse(document.getElementById('data').textContent).runs[0].steps; return [s.count, s.every, s.id.count, s.members.step.count]")
    answer = sql("many.db", "select count(*), 1, count(*), sum(requests) from step where run_id = 1 and end_ns >= 20000000000 and start_ns <= 20500000000")[0]
    check("all its steps with all their requests", seen == [int(v) for v in answer] and "from 20 to 20.5" in text("#timeline").replace("20.50", "20.5"), (seen, answer))
    canvas = driver.find_element(By.CSS_SELECTOR, "#timeline canvas")
    check("and the timeline begins there", near(canvas.get_attribute("data-from"), 20, 1e-3) and near(canvas.get_attribute("data-to"), 20.5, 1e-3))
    quiet("a window")

    # Scores before the softmax may be negative, and are no weights to take means of.
    shutil.copy(here / "runs.db", here / "scores.db")
    scores = sqlite3.connect(here / "scores.db")
    scores.execute("update probe set measure = 'score' where run_id = 2")
    data = scores.execute("select data, keys from attention_token where run_id = 2 and request_id = 1 and position = 2").fetchone()
    cells = [-3.5, 2.25, 0.5]
    scores.execute("update attention_token set data = ? where run_id = 2 and request_id = 1 and position = 2",
                   (struct.pack("<12e", *[c * (h + 1) for h in range(4) for c in cells]),))
    scores.commit()
    r = call("report", "scores.db", "--run", "2")
    check("scores are a report too", r.returncode == 0 and len(data[0]) == 24, r)
    open_page("scores")
    bring("attention")
    canvas = driver.find_element(By.CSS_SELECTOR, "#attention-map canvas")
    press(canvas, Keys.ARROW_UP)
    for _ in range(int(js("return document.querySelector('#attention-map .readout').textContent.match(/Query (\\d+)/)[1]")) - 2):
        canvas.send_keys(Keys.ARROW_UP)
    frames()
    check("a score is told with its sign", "score before the softmax −3.5" in text("#attention-map .readout"), text("#attention-map .readout"))
    check("there are no means to choose heads by", not by("attention-figure").is_displayed())
    quiet("scores")

    # ── choices of the command line ──────────────────────────────────────────────────────
    r = call("report", "runs.db", "-o", "some.html", "--run", "2,5", "--compare", "1,2", "--request", "2")
    check("runs can be named", r.returncode == 0 and r.stdout.startswith("some.html: 3 runs"), r)
    open_page("some")
    bring("comparison")
    check("the comparison begins with those named", [Select(by("compare-a")).first_selected_option.get_attribute("value"), Select(by("compare-b")).first_selected_option.get_attribute("value")] == ["1", "2"])
    bring("attention")
    check("attention of the request that was named", all("request 2 " in o.text for o in Select(by("attention-part")).options))
    quiet("choices")
finally:
    driver.quit()

# ── mistakes ─────────────────────────────────────────────────────────────────────────────
(here / "none.db").write_bytes(b"")
(here / "text.db").write_text("no database " * 500)
shutil.copy(here / "runs.db", here / "damaged.db")
damaged = sqlite3.connect(here / "damaged.db")
damaged.execute("update attention_token set data = x'00' where run_id = 2 and position = 3")
damaged.commit()
shutil.copy(here / "runs.db", here / "bare.db")
bare = sqlite3.connect(here / "bare.db")
bare.executescript("pragma foreign_keys = on; delete from run;")
bare.commit()
for words, status, said in ((("nix.db",), 1, "nix.db"), (("text.db",), 1, "text.db"), (("none.db",), 1, "none.db"), (("bare.db",), 1, "no run"),
                            (("runs.db", "-o", "runs.db"), 1, "itself"), (("runs.db", "-o", "no/such/x.html"), 1, "no/such/x.html"),
                            (("damaged.db", "-o", "d.html"), 1, "position 3 is damaged"), (("runs.db", "-o", "e.html", "--run", "99"), 1, "no run 99"),
                            (("runs.db", "-o", "e.html", "--compare", "1,99"), 1, "no run 99"), ((), 2, "one database"), (("runs.db", "many.db"), 2, "one database"),
                            (("runs.db", "--run", "x"), 2, "--run x"), (("runs.db", "--run", "1,,2"), 2, "--run"), (("runs.db", "--run", "0"), 2, "--run"),
                            (("runs.db", "--compare", "1"), 2, "--compare"), (("runs.db", "--compare", "2,2"), 2, "--compare"), (("runs.db", "--comapre", "1,2"), 2, "--compare"),
                            (("runs.db", "--window", "5"), 2, "--window"), (("runs.db", "--window", "5,4"), 2, "--window"), (("runs.db", "--run"), 2, "value")):
    r = call("report", *words)
    check(f"report {' '.join(words)}: one sentence", r.returncode == status and said in r.stderr and r.stderr.count("\n") == 1 and r.stdout == "", r)
check("no page is left of those", not (here / "d.html").exists() and not (here / "e.html").exists())
if os.path.exists("/dev/full"):
    (here / "full.html").symlink_to("/dev/full")
    r = call("report", "runs.db", "-o", "full.html")
    check("a full disk is one sentence", r.returncode == 1 and "full.html" in r.stderr and r.stderr.count("\n") == 1, r)
r = call("report", "--help")
check("--help", r.returncode == 0 and r.stdout.startswith("usage: lathe report"), r)
print(f"{len(failures)} failed; pictures are in {pictures}")
sys.exit(1 if failures else 0)
