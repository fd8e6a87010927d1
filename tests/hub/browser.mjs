// Chromium, and what must not happen in it.
import { chromium } from "playwright-core";

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

/// What must not be there, in the page's own words and in the browser's.
export function watch(page, where, fault, origins) {
  page.on("console", (message) => {
    const isExpected = /Failed to load resource.*status of [45]\d\d/.test(message.text());
    if (message.type() === "error" && !isExpected) fault(where(), `console: ${message.text()}`);
  });
  page.on("pageerror", (error) => fault(where(), `script: ${error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    const isOurs = origins.some((origin) => url.startsWith(origin)) || url.startsWith("data:");
    if (!isOurs) fault(where(), `fetches ${url}`);
  });
}
