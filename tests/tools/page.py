#!/usr/bin/env python3
"""Uses the chat page in a headless Chromium, against a real server on the CPU.

By hand, not in CI:

    apt-get install chromium chromium-driver
    pip install selenium
    cargo build --release
    tests/tools/page.py target/release/hyperion pictures

The second argument is a folder for screenshots, which are to be looked at. It takes a minute or
two, and ends with an exit code of 1 at the first thing that is not as it should be.
"""

import json
import pathlib
import subprocess
import sys
import time

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

MODEL = "smollm2"
# A text of a model that would like to be a script.
HOSTILE = r"""# Title <script>window.hacked = 1</script>

<script>window.hacked = 2</script> <img src=x onerror="window.hacked = 3">
![picture](https://example.com/a.png) ![x](javascript:window.hacked=4)
[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](data:text/html,<script>alert(1)</script>)
[relative](/metrics) [good](https://example.com/a_(b)?c=d) <https://example.com/e> https://example.com/f.
[a "title"](https://example.com/" onmouseover="window.hacked=5)

| a | <b>b</b> |
| --- | ---: |
| <svg onload="window.hacked=6"> | `c` |

```html"><script>window.hacked = 7</script>
<script>window.hacked = 8</script>
</code></pre></script><script>window.hacked = 9</script>
```
"""
RICH = r"""## A list of things

Some **bold**, *slanted*, ~~struck~~ and `inline code`, and a [link](https://www.rust-lang.org/).

1. First
   - inner one
   - inner two, with **bold** text
2. Second

   ```rust
   fn main() {
       println!("a rather long line of code that does not fit on a phone, to see whether it scrolls");
   }
   ```
3. Third

> A quote that
> has two lines.

| language | typed | year |
| :--- | :---: | ---: |
| Rust | yes | 2015 |
| Python | no | 1991 |

---

snake_case_name, 2 * 3 * 4, and \*no emphasis\*."""


class Page:
    """The page in a browser of its own."""

    def __init__(self, address, folder, *, dark=False):
        options = webdriver.ChromeOptions()
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options)
        self.driver.set_window_size(1200, 850)
        self.folder = folder
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": theme})
        self.driver.get(address + "/")

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector):
        return [element.text for element in self.all(selector)]

    def wait(self, condition, what, seconds=30):
        WebDriverWait(self.driver, seconds, 0.05).until(lambda _: condition(), what)

    def press(self, *keys):
        """Sends keys to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focus(self):
        """What has the focus: its id, or its label."""
        element = self.driver.switch_to.active_element
        return element.get_attribute("id") or element.get_attribute("aria-label")

    def say(self, text):
        self.find("#input").send_keys(text, Keys.ENTER)

    def is_idle(self):
        return self.find("#send").is_displayed()

    def answered(self):
        self.wait(self.is_idle, "the answer ends")
        assert not self.find("#problem").text, self.find("#problem").text

    def settings(self, **values):
        self.find("#open-settings").click()
        for name, value in values.items():
            field = self.find(f"#settings [name={name}]")
            self.script("arguments[0].value = arguments[1]", field, value)
        self.find("#close-settings").click()

    def picture(self, name):
        self.driver.save_screenshot(str(self.folder / f"{name}.png"))

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def phone(self):
        metrics = {"width": 375, "height": 720, "deviceScaleFactor": 2, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def keep(self, name, *contents):
        """Puts a conversation into the browser's store, as if it had been held, and shows it."""
        messages, parent = [], ""
        for number, content in enumerate(contents):
            role = "assistant" if number % 2 else "user"
            message = {"id": f"{name}{number}", "parent": parent, "role": role, "content": content}
            if number % 2:
                message |= {"reasoning": HOSTILE, "figures": {"tokens": 5, "parts": 5, "end": "stop"}}
            messages.append(message)
            parent = message["id"]
        used = int(time.time() * 1000) + 10_000
        chat = {"id": name, "title": name, "used": used, "messages": messages, "chosen": {}, "settings": {}}
        self.script("localStorage.setItem(arguments[0], arguments[1])", "hyperion.chat." + name, json.dumps(chat))
        self.driver.refresh()


def start(binary, *arguments):
    """A server and its address."""
    command = [binary, "serve", MODEL, "--device", "cpu", "--port", "0", "--alias", MODEL, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    assert "ready at" in line, line
    return process, line.split()[-1]


def converse(page):
    """Streaming, stopping, regenerating, editing, branches."""
    page.wait(lambda: page.find("#model").text == MODEL, "the model's name")
    page.wait(lambda: "0 running · 0 waiting" in page.find("#load").text, "the load")
    assert page.focus() == "input"
    page.picture("1-empty")
    page.settings(max_tokens=400, seed=1, temperature=0, system="You are brief.")
    page.say("Tell me a long story about a river.")
    seen = set()
    answer = lambda: page.texts(".assistant .text")[0]
    page.wait(lambda: seen.add(answer()) or len(seen) > 4, "the text grows")
    page.wait(lambda: "1 running" in page.find("#load").text, "the load shows it")
    # Longer than the next answer may be.
    page.wait(lambda: len(answer()) > 200, "the text is long")
    page.picture("2-streaming")
    page.press(Keys.ESCAPE)
    page.answered()
    assert "stopped" in page.texts(".assistant .figures")[0]
    stopped = answer()
    assert stopped and page.focus() == "input"

    page.settings(max_tokens=24)
    page.find("[aria-label='Regenerate the answer']").click()
    page.answered()
    figures = page.texts(".assistant .figures")[0]
    for part in ["24 tokens", "tokens/s", "first token after", "prompt tokens cached", "seed 1", "limit"]:
        assert part in figures, figures
    short = answer()
    assert short != stopped and stopped.startswith(short[:20])
    assert "Answer: " in page.find("#said").get_attribute("textContent")
    page.find("[aria-label='Previous branch']").click()
    assert answer() == stopped
    assert page.focus() == "Next branch", page.focus()
    page.press(Keys.ENTER)
    assert answer() == short

    page.say("And its name?")
    page.answered()
    assert len(page.all("article")) == 4
    page.find(".user [aria-label='Edit the message']").click()
    field = page.driver.switch_to.active_element
    field.clear()
    page.picture("3-editing")
    field.send_keys("Name a colour.", Keys.ENTER)
    page.answered()
    assert page.texts(".user .text") == ["Name a colour."], page.texts(".user .text")
    assert page.texts(".user .tools span") == ["2/2"]
    page.picture("4-branch")
    page.find(".user [aria-label='Previous branch']").click()
    assert len(page.all("article")) == 4 and answer() == short


def keep_several(page):
    """A second conversation, names, and what is there after a reload."""
    page.find("#new").click()
    page.say("Say hello.")
    page.answered()
    assert page.texts(".user .text") == ["Say hello."]
    assert page.texts("#list .open") == ["Say hello.", "Tell me a long story about a river."]
    page.find("[aria-label='Rename Say hello.']").click()
    page.press("Greeting", Keys.ENTER)
    page.wait(lambda: page.texts("#list .open")[0] == "Greeting", "the new name")
    before = page.find("#log").text
    page.driver.refresh()
    assert page.texts("#list .open") == ["Greeting", "Tell me a long story about a river."]
    assert page.find("#log").text == before
    page.all("#list .open")[1].click()
    assert len(page.all("article")) == 4
    page.find("#open-settings").click()
    assert page.find("[name=system]").get_attribute("value") == "You are brief."
    page.picture("5-settings")
    page.press(Keys.ESCAPE)
    page.all("#list .open")[0].click()
    page.find("[aria-label='Delete Greeting']").click()
    page.driver.switch_to.alert.accept()
    assert page.texts("#list .open") == ["Tell me a long story about a river."]


def use_keys(page):
    """All of it by keyboard."""
    page.driver.refresh()
    page.press("First line", Keys.SHIFT, Keys.ENTER)
    page.press("second line")
    assert page.find("#input").get_attribute("value") == "First line\nsecond line"
    page.press(Keys.ENTER)
    page.answered()
    assert page.texts(".user .text")[-1] == "First line\nsecond line"
    reached = []
    for _ in range(40):
        page.press(Keys.SHIFT, Keys.TAB)
        reached.append(page.focus() or page.driver.switch_to.active_element.text)
    for name in ["Regenerate the answer", "Edit the message", "log", "new", "open-settings"]:
        assert name in reached, (name, reached)
    page.find("#input").click()
    page.press(Keys.SHIFT, Keys.TAB)
    page.picture("6-focus")
    assert page.focus() == "Regenerate the answer", page.focus()
    page.press(Keys.ENTER)
    page.answered()
    assert page.texts(".assistant .tools span")[-1] == "2/2"


def be_hostile(page):
    """No text of a model becomes more than a text."""
    page.keep("hostile", "Attack", HOSTILE)
    page.find("details summary").click()
    page.wait(lambda: page.find(".thought table").is_displayed(), "the reasoning opens")
    page.picture("7-hostile")
    time.sleep(0.5)
    assert page.script("return window.hacked") is None
    # Twice: the reasoning is the same text.
    links = page.script("return [...document.querySelectorAll('article a')].map((a) => [a.href, a.rel])")
    good = ["https://example.com/a.png", "https://example.com/a_(b)?c=d", "https://example.com/e", "https://example.com/f",
            "https://example.com/"]
    assert links == [[link, "noopener noreferrer nofollow"] for link in good * 2], links
    tags = page.script("return [...document.querySelectorAll('article *')].map((e) => e.tagName.toLowerCase())")
    assert not {"script", "img", "svg", "b", "iframe"} & set(tags), tags
    handlers = page.script(
        "return [...document.querySelectorAll('article *')].flatMap((e) => e.getAttributeNames())"
    )
    known = {"aria-label", "class", "data-id", "data-name", "dir", "hidden", "href", "open", "rel", "tabindex", "target"}
    assert set(handlers) <= known | {"title", "type", "disabled"}, set(handlers)
    # Nor would a script run that did get in.
    page.script(
        "const s = document.createElement('script'); s.setAttribute('nonce', ''); s.append('window.hacked = 10');"
        "try { document.body.append(s) } catch {}"
        "try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 11\">') } catch {}"
    )
    time.sleep(0.5)
    assert page.script("return window.hacked") is None
    # None of these takes long.
    for name, text in {
        "quotes": ">" * 20_000,
        "stars": "*" * 9_000 + " " + "**a " * 2_000,
        "brackets": "[" * 9_000 + "\n\n" + "![](" * 2_000,
        "ticks": "".join("`" * n + " " for n in range(1, 130)),
        "items": "- " * 5_000,
        "table": "|" * 5_000 + "\n" + "|-" * 5_000 + "|\n" + "|" * 5_000,
        "fences": "```\n" * 5_000,
    }.items():
        page.keep(name, "Long", text)
        begin = time.monotonic()
        page.wait(lambda: page.all(".assistant .text > *"), name, 20)
        page.find("#input").send_keys("x")
        took = time.monotonic() - begin
        assert took < 3, (name, took)
        print(f"  {name}: {took:.2f} s")


def be_rich(page):
    """What Markdown looks like."""
    page.keep("rich", "Show me", RICH)
    for selector, count in {
        "h4": 1, "strong": 2, "em": 1, "del": 1, ".code pre": 1, "ol": 1, "ol > li": 3, "ul > li": 2,
        "blockquote": 1, "td": 6, "hr": 1,
    }.items():
        assert len(page.all(f".assistant > .text {selector}")) == count, selector
    page.script("window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.find("[aria-label='Copy the code']").click()
    assert page.script("return window.copied").startswith("fn main() {\n    println!")
    # Also beside a scroll bar.
    [message, composer] = [
        page.script("return arguments[0].getBoundingClientRect().left", page.find(selector))
        for selector in ("#log > .assistant", "#input")
    ]
    assert abs(message - composer) < 1, (message, composer)
    page.picture("8-rich")


def be_narrow(page):
    """A phone."""
    page.phone()
    time.sleep(0.3)
    page.picture("9-phone")
    assert page.script("return document.documentElement.scrollWidth") == 375
    assert not page.find("nav").is_displayed()
    page.find("#menu").click()
    assert page.find("nav").is_displayed()
    page.picture("10-phone-menu")
    page.press(Keys.ESCAPE)
    assert not page.find("nav").is_displayed()
    page.find("#open-settings").click()
    page.picture("11-phone-settings")
    page.find("#close-settings").click()


def need_key(binary, folder):
    """A server with a key, in the dark."""
    process, address = start(binary, "--api-key", "secret")
    page = Page(address, folder, dark=True)
    try:
        page.wait(lambda: page.find("#key-form").is_displayed(), "the key is asked for")
        page.picture("12-key")
        assert page.find("#problem").text == "The server asks for an API key."
        page.find("#key").send_keys("wrong", Keys.ENTER)
        page.wait(lambda: "does not know" in page.find("#problem").text, "it is asked for again")
        page.find("#key").send_keys("secret", Keys.ENTER)
        page.wait(lambda: page.find("#model").text == MODEL, "the model's name")
        page.settings(max_tokens=16)
        page.say("Hello")
        page.answered()
        page.keep("dark", "Show me", RICH)
        page.picture("13-dark")
        # Errors are told in words.
        page.settings(top_p=1, system="word " * 20_000)
        page.say("Too long")
        page.wait(lambda: "context" in page.find("#problem").text, "the error in words")
        page.picture("14-error")
        process.kill()
        page.settings(system="x")
        page.say("Are you there?")
        page.wait(lambda: "cannot be reached" in page.find("#problem").text, "the server is gone")
    finally:
        page.driver.quit()
        process.kill()


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    process, address = start(binary)
    page = Page(address, folder)
    try:
        for step in [converse, keep_several, use_keys, be_hostile, be_rich, be_narrow]:
            print(step.__name__, flush=True)
            step(page)
        # What the browser refuses is in its log; of our own there must be nothing.
        errors = [entry["message"] for entry in page.driver.get_log("browser")]
        ours = [error for error in errors if "favicon" not in error and "Trusted" not in error]
        assert not [error for error in ours if "Uncaught" in error], ours
        print(*errors, sep="\n")
    except BaseException:
        page.picture("failed")
        raise
    finally:
        page.driver.quit()
        process.kill()
    print("need_key", flush=True)
    need_key(binary, folder)
    print("all is well")


if __name__ == "__main__":
    main()
