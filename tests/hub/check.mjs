// Opens every page of the gallery as a customer would: node check.mjs GALLERY
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import axe from "axe-core";
import { behaves } from "./behaviour.mjs";
import { launch, watch } from "./browser.mjs";
import { serve } from "./gallery.mjs";

const gallery = JSON.parse(await readFile(process.argv[2], "utf8"));
const shots = process.env.SHOTS;
const faults = [];
const fault = (where, what) => faults.push(`${where}: ${what}`);

// Too wide for the screen, or too small for a finger.
const measure = () => {
  const found = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    found.push(`scrolls sideways: ${root.scrollWidth} of ${root.clientWidth} px`);
  }
  for (const target of document.querySelectorAll(".button, .copy, .choice label, .field input")) {
    const { width, height } = target.getBoundingClientRect();
    const isShown = width > 0 && height > 0;
    if (isShown && (width < 44 || height < 44)) {
      found.push(`${Math.round(width)} × ${Math.round(height)} px: ${target.textContent.trim()}`);
    }
  }
  const alert = document.querySelector("[role=alert]");
  if (alert && document.activeElement !== alert) found.push("what is wrong has no focus");
  return found;
};

async function looks(browser, site) {
  let seen = 0;
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 375, 320]) {
      const context = await browser.newContext({
        colorScheme,
        viewport: { width, height: 800 },
        reducedMotion: "reduce",
      });
      await context.addInitScript({ content: axe.source });
      // Pages that move by themselves stand still for their picture.
      await context.route("**/connect/progress.json", () => {});
      const page = await context.newPage();
      let name;
      watch(page, () => `${name} ${width} ${colorScheme}`, fault, [site.origin]);
      for (const each of gallery.pages) {
        name = each.name;
        const where = `${name} ${width} ${colorScheme}`;
        await page.goto(site.at(name));
        for (const found of await page.evaluate(measure)) fault(where, found);
        if (width === 320) continue;
        const { violations } = await page.evaluate(() => globalThis.axe.run());
        for (const { id, impact, help, nodes } of violations) {
          const place = nodes.map((node) => node.target.join(" ")).join(", ");
          const line = `${impact} ${id}: ${help} (${place})`;
          if (impact === "serious" || impact === "critical") fault(where, line);
          else console.log(`${where}: ${line}`);
        }
        if (shots) {
          const path = join(shots, `${name}-${width}-${colorScheme}.png`);
          await page.screenshot({ path, fullPage: true });
        }
        seen += 1;
      }
      await context.close();
    }
  }
  return seen;
}

// What axe must find, if it looks at all.
async function axeIsAwake(browser) {
  const page = await browser.newPage();
  await page.setContent("<main><h1>x</h1><input><p style='color:#aaa'>pale</p></main>");
  await page.addScriptTag({ content: axe.source });
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const ids = violations.map((violation) => violation.id);
  for (const id of ["label", "color-contrast"]) {
    if (!ids.includes(id)) fault("axe", `does not find what was planted: ${id}`);
  }
  await page.close();
}

const browser = await launch();
const polled = [];
const posted = [];
const site = await serve(gallery, {
  "/connect/progress.json": () => polled.shift() ?? { status: 503 },
  "/connect/token": (request) => {
    posted.push(request.method);
    // Long enough for a second click.
    return { status: 204 };
  },
  "/connect/done": () => ({ headers: { "content-type": "text/html" }, body: "<title>end</title>" }),
});
try {
  await axeIsAwake(browser);
  const seen = await looks(browser, site);
  await behaves(browser, site, { polled, posted, fault });
  console.log(`${seen} views of ${gallery.pages.length} pages, ${faults.length} faults`);
} finally {
  await browser.close();
  site.close();
}
for (const line of faults) console.error(line);
process.exitCode = faults.length ? 1 : 0;
