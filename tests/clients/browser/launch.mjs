// Starts Chromium.
import { chromium } from "playwright-core";

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox", // as root there is none
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      // Only the tests' own requests go over the network.
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
