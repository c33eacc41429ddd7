// Chromium's own EventSource: `node events.mjs URL`, URL being that of a group's events. Prints `open` as soon as it
// listens, and when the text `end` has come `received` and the texts before it as JSON, with `reset` where that was said.
import { launch } from "./launch.mjs";

const BOUND = 120_000;
const url = new URL(process.argv[2]);

const browser = await launch();
const page = await browser.newPage();
page.setDefaultTimeout(BOUND);
await page.goto(url.origin);
await page.evaluate((address) => {
  const checked = { received: [], lost: 0, ended: false, failed: false };
  window.checked = checked;
  const source = new EventSource(address);
  source.addEventListener("GroupMessage", (event) => {
    const [, text] = JSON.parse(event.data);
    if (text !== "end") return checked.received.push(text);
    checked.ended = true;
    source.close();
  });
  source.addEventListener("reset", () => checked.received.push("reset"));
  source.onerror = () => {
    checked.lost += 1;
    checked.failed = source.readyState === EventSource.CLOSED; // it never comes back
  };
  return new Promise((resolve) => { source.onopen = resolve; });
}, url.href);
console.log("open");
await page.waitForFunction(() => window.checked.ended || window.checked.failed);
const { received, lost, failed } = await page.evaluate(() => window.checked);
console.log(`received ${JSON.stringify({ received, lost, failed })}`);
await browser.close();
