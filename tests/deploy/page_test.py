#!/usr/bin/env python3
"""Looks at the controller's page in a real browser: every view of a real job, by mouse and by keyboard.

    page_test.py BIN_FOLDER

Wants Debian's chromium, chromium-driver and python3-selenium; skipped, and said so, without them. Screenshots go to
$REIN_SCREENSHOTS when it is set.
"""
import json
import os
import pathlib
import re
import shutil
import socket
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    if sys.executable != "/usr/bin/python3" and pathlib.Path("/usr/bin/python3").exists():
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv])  # Debian's packages are for Debian's Python
    webdriver = None
if not webdriver or not shutil.which("chromium") or not shutil.which("chromedriver"):
    print("SKIPPED: the page was NOT looked at: apt-get install chromium chromium-driver python3-selenium", file=sys.stderr)
    sys.exit(77)
from stack import MODEL, Stack  # noqa: E402

JOB = """name: seen
model: {config: %s}
data: {train: data/train.jsonl, eval: {file: data/eval.jsonl, limit: 20}}
grpo: {updates: %d, prompts: 8, group_size: 4, max_completion_tokens: 3}
rewards: [{exact_match: {}}]
trainer: {learning_rate: 1e-3}
eval: {every: 4}
checkpoint: {every: 4}
"""

# What a reader of screens needs, and contrast: computed in the page.
ACCESSIBLE = """
const wrong = [];
const luminance = (c) => { const v = c.map((x) => { x /= 255; return x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const backOf = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length && (c.length < 4 || c[3] > 0)) return c; } return [255, 255, 255]; };
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (own && e.offsetParent && !e.closest("svg")) {
    const a = luminance(rgb(getComputedStyle(e).color).slice(0, 3)), b = luminance(backOf(e).slice(0, 3));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) wrong.push("contrast " + contrast.toFixed(1) + ": " + e.textContent.slice(0, 30));
  }
}
for (const e of document.querySelectorAll("input, select, textarea")) if (!e.closest("label") && !e.getAttribute("aria-label")) wrong.push("no label: " + e.name);
for (const e of document.querySelectorAll("svg[role=img]")) if (!e.getAttribute("aria-label")) wrong.push("svg without a label");
for (const e of document.querySelectorAll("a, button")) if (!e.textContent.trim() && !e.getAttribute("aria-label")) wrong.push("nothing to read: " + e.outerHTML);
for (const e of document.querySelectorAll("progress")) if (!e.getAttribute("aria-label")) wrong.push("progress without a label");
if (document.querySelectorAll("h1").length !== 1) wrong.push("h1");
if (!document.documentElement.lang || !document.title) wrong.push("lang or title");
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
if (new Set(ids).size !== ids.length) wrong.push("ids repeat");
return wrong;
"""


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = Stack("--references", "0")
        cls.addClassCleanup(cls.stack.down)
        cls.admin = json.loads((cls.stack.folder / "home/context.json").read_text())["admin"]
        cls.stack.submit(JOB % (MODEL, 8))
        cls.stack.rein("wait", "seen", "--timeout", "240")
        options = webdriver.ChromeOptions()
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000", "--disable-gpu"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = shutil.which("chromium")
        try:
            from selenium.webdriver.chrome.service import Service
            cls.browser = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        except TypeError:
            cls.browser = webdriver.Chrome(executable_path=shutil.which("chromedriver"), options=options)
        cls.addClassCleanup(cls.browser.quit)

    def tearDown(self):
        said = [entry for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        self.assertEqual(said, [], "the console")

    def text(self):
        return self.browser.find_element(By.ID, "main").text

    def until(self, condition, what, seconds=20):
        end = time.time() + seconds
        while time.time() < end:
            try:
                if condition():
                    return
            except Exception:  # drawn anew meanwhile
                pass
            time.sleep(0.1)
        self.fail(f"{what}: {self.text()[:500]}")

    def open(self, path, shows):
        self.browser.get("about:blank")
        self.browser.get(f"http://{self.admin}/{path}")
        self.until(lambda: shows in self.text(), f"{path} shows {shows}")

    def click(self, text):
        """Clicks a link once it is there; a page that was just drawn anew is asked again."""
        def try_it():
            self.browser.find_element(By.LINK_TEXT, text).click()
            return True
        self.until(try_it, f"a link {text}")

    def shot(self, name):
        folder = os.environ.get("REIN_SCREENSHOTS")
        if folder:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(f"{folder}/{name}.png")

    def views(self):
        return (("#/", "seen"), ("#/job/seen", "SUCCEEDED"), ("#/job/seen/rollouts?update=3", "sibling 0"),
                ("#/job/seen/chat", "Talks to the policy"), ("#/job/seen/ledger", "consumed"), ("#/job/seen/config", "group_size: 4"), ("#/actors", "trainer-0"),
                ("#/compare/seen/seen", "Figures of the last update"))

    def test_every_view_in_light_and_dark(self):
        for scheme in ("light", "dark"):
            self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            for path, shows in self.views():
                self.open(path, shows)
                self.assertEqual(self.browser.execute_script(ACCESSIBLE), [], f"{scheme} {path}")
                self.shot(f"{scheme}-{path.split('?')[0].strip('#/').replace('/', '-') or 'jobs'}")

    def test_jobs_are_found_by_name(self):
        self.open("#/", "seen")
        self.browser.find_element(By.TAG_NAME, "body").send_keys("/")
        self.assertEqual(self.browser.switch_to.active_element.get_attribute("name"), "contains")
        self.browser.switch_to.active_element.send_keys("nobody" + Keys.ENTER)
        self.until(lambda: "No job has that in its name" in self.text(), "no job")
        self.open("#/?contains=see&limit=1", "seen")
        self.browser.execute_script("""
          const real = window.fetch;
          window.fetch = async (path, o) => path.startsWith("/api/jobs?") ? new Response(JSON.stringify({ matching: 7, jobs: [{ name: path }] })) : real(path, o);
          location.hash = "#/?limit=1";""")
        self.until(lambda: "More of 7" in self.text(), "there are more")
        next(b for b in self.browser.find_elements(By.TAG_NAME, "button") if b.text == "More of 7").click()
        self.until(lambda: "limit=4" in self.text(), "four times as many")

    def test_the_first_paint_is_quick(self):
        self.open("#/", "seen")
        paint = self.browser.execute_script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
        self.assertLess(paint, 3000)
        hosts = self.browser.execute_script("return performance.getEntriesByType('resource').map((e) => new URL(e.name).host)")
        self.assertEqual(set(hosts), {self.admin}, "nothing comes from elsewhere")

    def test_a_job_has_curves_and_evaluations(self):
        self.open("#/job/seen", "SUCCEEDED")
        figures = [f.text for f in self.browser.find_elements(By.TAG_NAME, "figcaption")]
        for title in ("Reward", "Entropy", "Gradient norm", "Length", "Seconds", "Where the time goes"):
            self.assertTrue(any(f.startswith(title) for f in figures), f"{title}: {figures}")
        self.assertIn("Held-out data", self.text())
        self.assertIn("checkpoints/2", self.text())

    def test_rollouts_are_read_by_mouse_and_keyboard(self):
        self.open("#/", "seen")
        self.click("seen")
        self.until(lambda: "SUCCEEDED" in self.text(), "the job")
        self.click("Rollouts")
        self.until(lambda: "update 8: 32 of 32 rollouts" in self.text(), "the last update")
        body = self.browser.find_element(By.TAG_NAME, "body")
        body.send_keys("p")
        self.until(lambda: "update 7: 32 of 32" in self.text(), "the update before")
        self.browser.find_element(By.TAG_NAME, "body").send_keys("/")
        self.assertEqual(self.browser.switch_to.active_element.get_attribute("name"), "contains")
        self.browser.switch_to.active_element.send_keys("nobody said this" + Keys.ENTER)
        self.until(lambda: "0 of 0 rollouts" in self.text(), "the search")
        self.assertIn("contains=nobody+said+this", self.browser.current_url)
        self.open("#/job/seen/rollouts?update=3", "update 3: 32 of 32")
        self.click("link")
        self.until(lambda: "4 of 4 rollouts" in self.text(), "one prompt, by its link")
        self.assertTrue(self.browser.find_elements(By.CSS_SELECTOR, "svg.tokens rect"))

    def test_ten_thousand_rollouts_are_read_without_lag(self):
        """What is not on the screen is not drawn: the page stays as quick as with a few."""
        self.open("#/", "seen")
        self.browser.execute_script("""
          const rollouts = [...Array(10000)].map((_, i) => ({ answer: "7", prompt: [{ role: "user", content: "question " + (i >> 3) }], rollout: {
            group: { prompt: i >> 3 }, sibling: i & 7, advantage: (i & 7) - 3.5, reward: { reward: 1, parts: [{ name: "exact", score: 1 }] },
            completion: { text: "an answer ".repeat(30), token_ids: [...Array(60).keys()], behaviour_logprobs: Array(60).fill(-1.5), finish_reason: "FINISH_REASON_STOP" } } }));
          const body = JSON.stringify({ update: 3, matching: 10000, rollouts, token_texts: rollouts.map(() => [...Array(60)].map(() => " word")) });
          const real = window.fetch;
          window.fetch = async (path, o) => path.includes("/rollouts?") ? new Response(body) : real(path, o);
          window.long = [];
          new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => e.duration))).observe({ type: "longtask" });
          window.began = performance.now();
          location.hash = "#/job/seen/rollouts?update=3&limit=10000";""")
        self.until(lambda: "10000 of 10000 rollouts" in self.browser.execute_script("return (document.querySelector('[role=status]') || {}).textContent || ''"), "all of them", 60)
        count = lambda what: self.browser.execute_script(f"return document.querySelectorAll('{what}').length")
        self.until(lambda: count("svg.tokens rect") > 0 and count(".said span[class^=c]") > 0, "the first of them in full")
        drawn = self.browser.execute_script("return performance.now() - began")
        self.assertEqual(count(".rollout"), 10000)
        self.assertLess(count("svg.tokens rect"), 60 * 400, "bars of what nobody sees")
        self.assertLess(count(".said span"), 60 * 400, "tokens that nobody sees")
        self.browser.execute_script("long.length = 0")
        steps = []
        for part in range(1, 21):  # from end to end, in leaps
            steps.append(self.browser.execute_async_script("""
              const done = arguments[arguments.length - 1], began = performance.now();
              scrollTo(0, document.documentElement.scrollHeight * arguments[0] / 20);
              requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));""", part))
        self.until(lambda: self.browser.execute_script("return scrollY") > 100000, "the end")
        print(f"10,000 rollouts: {drawn:.0f} ms to the first in full; a leap of 500 of them {sorted(steps)[10]:.0f} ms (median), at most {max(steps):.0f}; "
              f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        self.assertLess(sorted(steps)[10], 500)
        self.assertLess(drawn, 20000)

    def test_tokens_are_coloured_as_chosen(self):
        self.open("#/job/seen/rollouts?update=1", "update 1: 32 of 32")  # the first: little is certain yet
        coloured = lambda: self.browser.find_elements(By.CSS_SELECTOR, ".said span[class^=c]")
        self.until(coloured, "tokens by log-prob")
        self.assertRegex(coloured()[0].get_attribute("title"), r"^token \d+, log-prob -\d")
        with urllib.request.urlopen(f"http://{self.admin}/api/jobs/seen/rollouts?update=1&limit=256&tokens=1", timeout=20) as answer:
            reply = json.loads(answer.read())
        self.assertEqual(len(reply["token_texts"]), 32)
        for texts, stored in zip(reply["token_texts"], reply["rollouts"], strict=True):
            completion = stored["rollout"]["completion"]
            self.assertEqual(len(texts), len(completion["token_ids"]))
            self.assertEqual("".join(t for t in texts if not t.startswith("<|")), completion.get("text", ""))
        options = {o.get_attribute("value"): o for o in self.browser.find_elements(By.CSS_SELECTOR, "select[name=colour] option")}
        self.assertTrue(options["logprob"].is_selected())
        for key in ("ratio", "policy-ratio", "entropy"):  # no reference scored these, and equal rewards teach nothing
            self.assertFalse(options[key].is_enabled(), key)
            self.assertIn("not stored", options[key].text)
        self.browser.find_element(By.TAG_NAME, "body").send_keys("c")
        self.until(lambda: "colour=none" in self.browser.current_url and not coloured(), "nothing is coloured")
        self.browser.find_element(By.TAG_NAME, "body").send_keys("c")
        self.until(lambda: "colour=logprob" in self.browser.current_url and coloured(), "and coloured again")

    def test_tokens_that_taught_are_coloured_by_what_the_trainer_said(self):
        job = (JOB % (MODEL, 1)).replace("name: seen", "name: taught").replace("[{exact_match: {}}]", "[{format: '(?s).*[0-4].*'}]")
        self.stack.submit(job)
        self.stack.rein("wait", "taught", "--timeout", "240")
        with urllib.request.urlopen(f"http://{self.admin}/api/jobs/taught/rollouts?update=1&limit=256&tokens=1", timeout=20) as answer:
            rollouts = [stored["rollout"] for stored in json.loads(answer.read())["rollouts"]]
        learned = [rollout for rollout in rollouts if rollout.get("policy_logprobs")]
        self.assertTrue(learned)
        for rollout in learned:
            self.assertEqual(len(rollout["policy_logprobs"]), len(rollout["completion"]["behaviour_logprobs"]))
            for trained, sampled in zip(rollout["policy_logprobs"], rollout["completion"]["behaviour_logprobs"], strict=True):
                self.assertAlmostEqual(float(trained), float(sampled), delta=1e-4, msg="sampled by the weights that learned")
            self.assertTrue(all(0 <= float(entropy) < 8 for entropy in rollout["policy_entropies"]))
        for key, title in (("entropy", r"log-prob -\d\S*, entropy \d"), ("policy-ratio", r"log-prob -\d\S*, ratio of trainer to generator 1")):
            self.open(f"#/job/taught/rollouts?update=1&colour={key}", "update 1: 32 of 32")
            self.assertTrue(self.browser.find_element(By.CSS_SELECTOR, f"select[name=colour] option[value={key}]").is_enabled(), key)
            titles = lambda: [span.get_attribute("title") for span in self.browser.find_elements(By.CSS_SELECTOR, ".said span")]
            self.until(lambda: any(re.search(title, one or "") for one in titles()), f"titles with {key}")
        self.open("#/job/taught/rollouts?update=1&colour=entropy", "update 1: 32 of 32")
        self.until(lambda: self.browser.find_elements(By.CSS_SELECTOR, ".said span[class^=c]"), "tokens by entropy")

    def test_ratios_and_folded_calls(self):
        self.open("#/", "seen")
        shown = self.browser.execute_script("""
          const texts = ["I", " think", "<tool_call>", '{"name": "add"', ', "arguments": {}}', "</tool_call>\\n", "done", "4"];
          const stored = { texts, rollout: { completion: { token_ids: [1, 2, 3, 4, 5, 6, 7, 8], behaviour_logprobs: [-1, -1, -1, -1, -1, -1, -1] },
            reference_logprobs: [-1, -2, -0.5, -1, -1, -1, -1],
            turns: [{ text: "", tokens: 6, observation: [{ role: "tool", content: "4" }], observation_tokens: 1 }, { text: "", tokens: 1 }] } };
          const ratio = COLOURS.find((c) => c.key === "ratio");
          const turns = saidIn(stored, ratio), first = turns[0], fold = first.querySelector("details.call");
          const plain = saidIn({ rollout: { completion: { text: '{"name": "f", "parameters": {}}' } } }, COLOURS[0]);
          return { all: first.querySelector(".said").textContent, open: fold.open, summary: fold.querySelector("summary").textContent,
            inside: fold.querySelector("div").textContent, classes: [...first.querySelectorAll("span")].map((s) => s.className),
            title: first.querySelectorAll("span")[1].title, last: turns[1].textContent, observed: first.querySelectorAll("details")[1].textContent,
            llama: plain.querySelector("summary").textContent };""")
        self.assertEqual(shown["all"], 'I thinkcalls add<tool_call>{"name": "add", "arguments": {}}</tool_call>\n')
        self.assertEqual((shown["open"], shown["summary"]), (False, "calls add"))
        self.assertEqual(shown["inside"], '<tool_call>{"name": "add", "arguments": {}}</tool_call>')
        self.assertEqual(shown["classes"][:3], ["", "c5", "d2"], "1, e and 0.61 times as likely as under the reference")
        self.assertEqual(shown["title"], "token 2, log-prob -1, ratio to the reference 2.72")
        self.assertEqual((shown["last"], shown["observed"], shown["llama"]), ("4", "tool4", "calls f"))

    def field(self, name):
        return self.browser.find_element(By.NAME, name)

    def test_a_person_talks_to_the_policy(self):
        self.stack.submit((JOB % (MODEL, 2)).replace("name: seen", "name: talk"))
        self.stack.rein("wait", "talk", "--timeout", "240")
        self.open("#/job/talk", "SUCCEEDED")
        self.click("Chat")
        self.until(lambda: "Talks to the policy" in self.text(), "the chat")
        self.assertEqual(self.browser.switch_to.active_element.get_attribute("name"), "text")
        said = lambda: self.browser.find_elements(By.CSS_SELECTOR, ".message.assistant")
        self.field("max_tokens").clear()
        self.field("max_tokens").send_keys("5")
        for turn in (1, 2):
            self.field("text").send_keys("max(1,2)" + Keys.ENTER)
            self.until(lambda: len(said()) == turn and "policy 1:2" in said()[-1].text, f"answer {turn}")
            self.assertTrue(said()[-1].find_element(By.CLASS_NAME, "said").text or "stop" in said()[-1].text)
        self.assertEqual(self.field("text").get_attribute("value"), "")
        self.assertEqual(self.browser.execute_script(ACCESSIBLE), [])
        self.shot("chat")
        self.open("#/job/seen/chat", "Talks to the policy")
        self.field("text").send_keys("max(1,2)" + Keys.ENTER)
        self.until(lambda: "the policy of seen is loaded nowhere" in self.text(), "another job's is not loaded")
        self.browser.get_log("browser")  # the browser itself notes the 404

    def test_an_answer_is_stopped(self):
        self.open("#/job/seen/chat", "Talks to the policy")
        self.browser.execute_script("""
          window.fetch = async (path, options) => {
            window.asked = JSON.parse(options.body);
            return new Response(new ReadableStream({ start(to) {
              to.enqueue(new TextEncoder().encode('data: {"choices": [{"index": 0, "delta": {"content": "a wo"}, "finish_reason": null}]}\\n\\ndata: {"cho'));
              options.signal.addEventListener("abort", () => to.error(new DOMException("x", "AbortError")));
            } }));
          };""")
        self.field("text").send_keys("one" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "two" + Keys.ENTER)
        stop = next(b for b in self.browser.find_elements(By.TAG_NAME, "button") if b.text == "Stop")
        self.until(lambda: "a wo" in self.text() and stop.is_enabled(), "the beginning of the answer")
        stop.click()
        self.until(lambda: "assistant · stopped" in self.text() and not stop.is_enabled(), "its end")
        asked = self.browser.execute_script("return window.asked")
        self.assertEqual(asked["messages"], [{"role": "user", "content": "one\ntwo"}])
        self.assertEqual((asked["model"], asked["stream"]), ("seen", True))

    def test_a_browser_that_goes_away_ends_its_answer(self):
        self.stack.submit((JOB % (MODEL, 2)).replace("name: seen", "name: gone"))
        self.stack.rein("wait", "gone", "--timeout", "240")
        host, port = self.admin.split(":")
        body = json.dumps({"model": "gone", "messages": [{"role": "user", "content": "max(1)"}], "stream": True, "n": 64, "max_tokens": 40, "ignore_eos": True})
        for _ in range(12):  # more than there are places
            with socket.create_connection((host, int(port))) as one:
                one.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                self.assertIn(b"HTTP/1.1 ", one.recv(64))
        load = lambda: next(a for a in json.loads(self.stack.rein("get", "actors", "-o", "json"))["actors"] if a["role"] == "rollout").get("load", "")
        self.until(lambda: load().startswith("0 running, 0 waiting"), "the generator is free")

    def test_tab_reaches_the_content(self):
        self.open("#/", "seen")
        self.browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        seen = []
        for _ in range(16):
            seen.append(self.browser.switch_to.active_element.text)
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
        self.assertEqual(seen[0], "Skip to content")
        self.assertIn("seen", seen)

    def test_a_running_job_is_live(self):
        self.stack.submit((JOB % (MODEL, 5000)).replace("name: seen", "name: live"))
        self.open("#/job/live", "live")
        number = lambda: int(self.text().split("update ")[1].split("/")[0])
        self.until(lambda: number() >= 1, "updates come")
        first = number()
        self.until(lambda: number() > first + 2, "by themselves")
        self.stack.rein("cancel", "live")
        self.until(lambda: "CANCELLED" in self.text(), "and the end")

    def test_what_is_not_there_is_told(self):
        self.open("#/job/nothing", "That did not work")
        self.assertIn("no job nothing", self.text())
        self.browser.get_log("browser")  # the browser itself notes the 404

    def test_text_from_outside_is_never_markup(self):
        answer = self.browser.execute_async_script("""
          const done = arguments[arguments.length - 1];
          const real = window.fetch;
          window.fetch = async (path, o) => path.startsWith("/api/jobs") ? new Response(JSON.stringify({jobs: [{name: "<img src=x onerror=window.hit=1>",
            state: "JOB_STATE_RUNNING", message: "<script>window.hit=1</script>"}]})) : real(path, o);
          const drawn = () => document.querySelector("main").textContent.includes("onerror");
          const end = (left) => !drawn() && left > 0 ? setTimeout(end, 100, left - 1) : setTimeout(() => { window.fetch = real;
            done([window.hit, document.querySelectorAll("main img, main script").length, document.querySelector("main").textContent]); }, 500);
          location.hash = "#/actors"; setTimeout(() => { location.hash = "#/"; end(200); }, 300);
        """)
        self.assertEqual(answer[:2], [None, 0])
        self.assertIn("<img src=x onerror=window.hit=1>", answer[2])

    def test_ten_thousand_rollouts_scroll(self):
        self.open("#/job/seen/rollouts?update=3", "update 3")
        took = self.browser.execute_script("""
          const group = document.querySelector(".group");
          const began = performance.now();
          for (let i = 0; i < 2500; i++) main.append(group.cloneNode(true));  // of four siblings each
          document.body.offsetHeight; window.scrollTo(0, document.body.scrollHeight / 2); document.body.offsetHeight;
          return performance.now() - began;""")
        self.assertLess(took, 5000)


if __name__ == "__main__":
    sys.argv = sys.argv[:1]
    unittest.main()
