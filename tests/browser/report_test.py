"""The pages of `w4tune report` in a headless Chromium.

report_test.py W4TUNE SAMPLE_SEARCH [Pages.TEST]: the tool, and what writes a cache file of many trials. With
W4_SCREENSHOTS=FOLDER the pages are photographed there, light and dark, wide and narrow.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import chromium

ROOT = pathlib.Path(__file__).resolve().parents[2]
H200 = ROOT / "results" / "h200"
WIDE = 1200
NARROW = 390


def marks_of(report):
    """How many marks each plot of a report of ours must have."""
    rows = [row for row in report["rows"] if "time_us_median" in row]
    compared = [row for row in rows if row["baselines"]]
    lines = sum(len(row["baselines"]) + ("read" in row) + ("dependent" in row) for row in rows)
    return {"speedup": len(compared), "time": 2 * len(rows) + lines, "floor": len(rows),
            "families": len(rows)}


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.browser = chromium.Chromium(chromium.find())
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.browser.complaints.clear()
        self.browser.resize(WIDE, 900)
        self.browser.colours("light")

    def tearDown(self):
        self.assertEqual(self.browser.complaints, [], "the console is silent")

    def write(self, name, *arguments):
        page = self.folder / f"{name}.html"
        subprocess.run([TOOL, "report", *map(str, arguments), "-o", str(page)], check=True,
                       stdout=subprocess.DEVNULL)
        return page

    def photograph(self, page):
        folder = os.environ.get("W4_SCREENSHOTS")
        if not folder:
            return
        for scheme in ("light", "dark"):
            for words, width in (("wide", WIDE), ("narrow", NARROW)):
                self.browser.colours(scheme)
                self.browser.resize(width, 900)
                self.browser.open(page)
                self.browser.resize(width, self.browser.run("document.body.scrollHeight"))
                self.browser.screenshot(f"{folder}/{page.stem}_{scheme}_{words}.png")

    def counted(self):
        return self.browser.run(
            "Object.fromEntries([...document.querySelectorAll('section:not([hidden])')].map("
            "(each) => [each.id, each.querySelectorAll('svg .mark').length]))")

    def test_reports_of_the_h200(self):
        for name in ("pi05_f16", "small_m_f16", "small_m_chained_f16"):
            with self.subTest(name):
                page = self.write(name, H200 / f"{name}.json")
                self.photograph(page)
                for width in (WIDE, NARROW):
                    self.browser.resize(width, 900)
                    self.browser.open(page)
                    report = json.loads((H200 / f"{name}.json").read_text())
                    self.assertEqual(self.counted(), marks_of(report))
                    self.assertEqual(
                        self.browser.run("document.querySelectorAll('section table').length"), 4)
                    self.assertLessEqual(
                        self.browser.run("document.documentElement.scrollWidth"), width)
                    self.assertNotRegex(self.browser.run("document.body.innerText"),
                                        "undefined|NaN|null|object Object")

    def test_two_reports(self):
        page = self.write("two", H200 / "small_m_f16.json", H200 / "small_m_chained_f16.json")
        self.photograph(page)
        self.browser.open(page)
        report = json.loads((H200 / "small_m_f16.json").read_text())
        rows = len(report["rows"])  # B has the same
        problems = len({(row["op"], row["n"], row["k"]) for row in report["rows"]})
        counted = self.counted()
        self.assertEqual(counted["difference"], rows)
        self.assertGreater(counted["means"], problems)
        self.assertEqual(counted["time"], 5 * rows)  # A, B, FP16, read only, floor
        for plot in ("speedup", "floor", "families"):
            self.assertEqual((counted[plot + "_a"], counted[plot + "_b"]), (rows, rows))

    def test_hover_and_keyboard(self):
        self.browser.open(self.write("pi05_f16", H200 / "pi05_f16.json"))
        run = self.browser.run
        report = json.loads((H200 / "pi05_f16.json").read_text())
        rows = sorted(report["rows"], key=lambda row: (row["op"], row["n"], row["k"], row["m"]))
        row = rows[0]
        problems = list(dict.fromkeys(f"{row['op']} {row['n']}×{row['k']}" for row in rows))
        tokens = sorted({row["m"] for row in rows})

        def named(problem, m):
            return f"{problems[problem]}, M = {tokens[m]}"

        x, y = run("(() => { const box = document.querySelector('#speedup .mark')"
                   ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + 5]; })()")
        tip = "document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').innerText"
        self.assertEqual(run(tip), "")
        self.browser.point(x, y)
        said = run(tip)
        self.assertIn(named(0, 0), said)
        self.assertIn(f"w4tune {row['time_us_median']:.2f} µs", said)
        self.assertIn(f"FP16 {row['baselines']['cublaslt_f16']['time_us_median']:.2f} µs", said)
        self.browser.point(2, 2)
        self.assertEqual(run(tip), "")

        # Tab reaches the plots, arrow keys their marks, and what they say is read aloud.
        for _ in range(40):
            self.browser.press("Tab")
            if run("document.activeElement.closest('section')?.id === 'speedup' && "
                   "document.activeElement.tagName === 'svg'"):
                break
        self.assertIn("Speed-up over FP16", run("document.activeElement.getAttribute('aria-label')"))
        heard = "document.querySelector('[aria-live]').textContent"
        for key, words in (("ArrowRight", named(0, 0)), ("ArrowRight", named(0, 1)),
                           ("ArrowDown", named(1, 1)), ("ArrowLeft", named(1, 0)),
                           ("ArrowUp", named(0, 0))):
            self.browser.press(key)
            self.assertIn(words + ".", run(heard))
            self.assertIn(words, run(tip))
        self.assertEqual(run("document.querySelectorAll('.cursor').length"), 1)
        self.browser.press("Escape")
        self.assertEqual(run(tip), "")

    def test_dark_differs(self):
        page = self.write("pi05_f16", H200 / "pi05_f16.json")
        colours = ("[document.body, document.querySelector('#speedup text'),"
                   " document.querySelector('#speedup .mark')].map((each, i) =>"
                   " getComputedStyle(each)[i ? 'fill' : 'backgroundColor'])")
        seen = []
        for scheme in ("light", "dark"):
            self.browser.colours(scheme)
            self.browser.open(page)
            seen.append(self.browser.run(colours))
        for light, dark in zip(*seen):
            self.assertNotEqual(light, dark)
        self.assertEqual(seen[0][0], "rgb(255, 255, 255)")

    # In both schemes every text of a plot stands out from what it stands on.
    def test_contrast(self):
        pages = [self.write("pi05_f16", H200 / "pi05_f16.json"),
                 self.write("large_m", ROOT / "results" / "h100" / "large_m_f16.json"),
                 self.write("two", H200 / "small_m_f16.json", H200 / "small_m_chained_f16.json")]
        script = """(() => {
          const light = (text) => {
            const [r, g, b] = text.match(/[0-9.]+/g).map((v) => {
              v /= 255;
              return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const paper = getComputedStyle(document.body).backgroundColor;
          let least = [99, ""];
          for (const text of document.querySelectorAll("svg text")) {
            const kind = [...text.classList].find((name) => name.startsWith("on-"));
            const below = kind && text.closest("svg").querySelector("rect." + kind.slice(3));
            const fill = below ? getComputedStyle(below).fill : paper;
            const a = light(getComputedStyle(text).fill);
            const b = light(fill === "none" ? paper : fill);
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < least[0]) least = [ratio, text.getAttribute("class") + ": " + text.textContent];
          }
          return least;
        })()"""
        for page in pages:
            for scheme in ("light", "dark"):
                self.browser.colours(scheme)
                self.browser.open(page)
                ratio, where = self.browser.run(script)
                self.assertGreaterEqual(ratio, 4.5, f"{page.stem}, {scheme}: {where}")

    def test_twenty_thousand_trials(self):
        database = self.folder / "many.db"
        subprocess.run([SAMPLE_SEARCH, str(database), "14000", "3000", "2000", "1000"], check=True)
        page = self.write("many", database)
        # The least of three: other tests run at the same time.
        seconds = min(self.browser.open(page) for _ in range(3))
        counted = self.counted()
        self.assertEqual(counted["progress"], 14000)
        self.assertGreater(counted["landscape"], 10)
        print(f"20,000 trials: {seconds:.2f} s, {page.stat().st_size / 1e6:.1f} MB")
        self.assertLess(seconds, 2.0)
        self.photograph(page)
        self.browser.open(page)
        self.browser.run("(() => { const all = document.querySelector('#progress select');"
                         " all.value = '3'; all.dispatchEvent(new Event('change')); })()")
        self.assertEqual(self.counted()["progress"], 1000)

    # What a report says, in every place that a page shows, is never markup.
    def test_hostile_texts(self):
        evil = "</script><script>window.evil = 1</script><img src=x onerror='window.evil=1'>\"<b>"
        report = json.loads((H200 / "small_m_f16.json").read_text())
        report["environment"] = {key: evil for key in report["environment"]} | {evil: evil}
        report["environment"]["assumed"] = [evil]
        for row in report["rows"]:
            row["config"] = evil
            row["baselines"] = {evil: entry | {"detail": evil}
                                for entry in row["baselines"].values()}
        source = self.folder / "evil.json"
        source.write_text(json.dumps(report))
        for page in (self.write("evil", source), self.write("evil_two", source, source)):
            self.browser.open(page)
            self.browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            self.assertIsNone(self.browser.run("window.evil"))
            self.assertEqual(self.browser.run("document.querySelectorAll('img, b b').length"), 0)
            self.assertIn("<img src=x", self.browser.run("document.body.innerText"))


if __name__ == "__main__":
    if chromium.find() is None:
        print(f"skipped: none of {', '.join(chromium.NAMES)} is here")
        sys.exit(77)
    TOOL, SAMPLE_SEARCH = sys.argv[1:3]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
