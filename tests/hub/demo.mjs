// Goes a customer's way through a demo, by every method and into what can go wrong:
// node demo.mjs READY, where READY is a file with the line that `rolecall demo --json` prints.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import axe from "axe-core";
import { launch, watch } from "./browser.mjs";

const ready = JSON.parse(await readFile(process.argv[2], "utf8"));
const { base_url: base, auth_link_url: link, simulator, api_key: key } = ready;
const shots = process.env.SHOTS;
const faults = [];
const fault = (where, what) => faults.push(`${where}: ${what}`);
const api = `${simulator.api_base}`;

async function call(url, method, body) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${key}` };
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${url}: ${answer.status} ${await answer.text()}`);
  return answer.json().catch(() => null);
}

const invite = async (more = {}) => {
  const body = { origin_owner_id: "hub", origin_owner_name: "Example Ltd", ...more };
  return (await call(`${base}/connect_sessions`, "POST", body)).auth_link_url;
};

const register = (of) =>
  call(`${simulator.control_url}/clients`, "POST", {
    redirect_url: `${base}/connect/oauth2/${of}/callback`,
  });

/// A customer at a browser of their own, whose every page is looked at.
async function customer(browser, view, way) {
  const context = await browser.newContext({
    colorScheme: view.scheme,
    viewport: { width: view.width, height: 800 },
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  let at = way;
  const where = () => `${at} ${view.width} ${view.scheme}`;
  watch(page, where, fault, [base, new URL(api).origin]);
  const looked = async (name) => {
    at = `${way}-${name}`;
    const { violations } = await page.evaluate(
      `${axe.source};axe.run().then((found) => ({ violations: found.violations }))`,
    );
    for (const { id, impact, help, nodes } of violations) {
      const place = nodes.map((node) => node.target.join(" ")).join(", ");
      const line = `${impact} ${id}: ${help} (${place})`;
      if (impact === "serious" || impact === "critical") fault(where(), line);
      else console.log(`${where()}: ${line}`);
    }
    if (shots) {
      const path = join(shots, `demo-${at}-${view.width}-${view.scheme}.png`);
      await page.screenshot({ path, fullPage: true });
    }
  };
  const heading = (text) => page.getByRole("heading", { level: 1, name: text }).waitFor();
  const button = (name) => page.getByRole("button", { name }).click();
  return { context, page, looked, heading, button };
}

async function toTheEnd({ page, looked, heading, button }) {
  await heading("Check what was found");
  await looked("review");
  await button("Save and connect");
  await page.waitForURL("**/connect/done", { timeout: 60_000 });
  await heading("Smartsheet is connected");
  await looked("done");
}

const simulated = "Smartsheet simulator";

/// Each way from an invitation to its end.
const ways = {
  async "sign-in"(at) {
    await at.page.goto(link);
    await at.looked("start");
    await at.button(/Sign in/);
    await at.button("Allow");
    await toTheEnd(at);
  },
  async token(at) {
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use an access token" }).click();
    await at.looked("form");
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("Access token").fill(simulator.tokens.system_admin);
    await at.button("Check the token");
    await toTheEnd(at);
  },
  async "own-app"(at) {
    const app = await register("smartsheet_iam");
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use your own app" }).click();
    await at.looked("form");
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("App client id").fill(app.client_id);
    await at.page.getByLabel("App secret").fill(app.client_secret);
    await at.button("Continue to Smartsheet");
    await at.button("Allow");
    await toTheEnd(at);
  },
  async denied(at) {
    await at.page.goto(await invite());
    await at.button(/Sign in/);
    await at.button("Deny");
    await at.heading("You did not allow access");
    await at.looked("problem");
  },
  async "unknown-token"(at) {
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use an access token" }).click();
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("Access token").fill(simulator.tokens.revoked);
    await at.button("Check the token");
    await at.page.getByRole("alert").waitFor();
    await at.looked("form");
  },
  async "no-rights"(at) {
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use an access token" }).click();
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("Access token").fill(simulator.tokens.no_read_users);
    await at.button("Check the token");
    await at.heading("This account may not list people");
    await at.looked("problem");
  },
  async "wrong-secret"(at) {
    const app = await register("smartsheet_iam");
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use your own app" }).click();
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("App client id").fill(app.client_id);
    await at.page.getByLabel("App secret").fill("mistyped");
    await at.button("Continue to Smartsheet");
    await at.button("Allow");
    await at.heading("Smartsheet does not take the app secret");
    await at.looked("problem");
  },
  async "wrong-redirect"(at) {
    const app = await register("smartsheet");
    await at.page.goto(await invite());
    await at.page.getByRole("link", { name: "Use your own app" }).click();
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("App client id").fill(app.client_id);
    await at.page.getByLabel("App secret").fill(app.client_secret);
    await at.button("Continue to Smartsheet");
    await at.heading("The app has another redirect URL");
    await at.looked("problem");
  },
  async "other-browser"(at) {
    await at.page.goto(`${base}/connect/oauth2/smartsheet/callback?code=x&state=y`);
    await at.heading("This was started in another browser");
    await at.looked("problem");
  },
  async unknown(at) {
    await at.page.goto(`${base}/connect/${"x".repeat(43)}`);
    await at.heading("This invitation is not open");
    await at.looked("problem");
  },
  async used(at) {
    const once = await invite();
    await at.page.goto(once);
    await at.page.getByRole("link", { name: "Use an access token" }).click();
    await at.page.getByLabel(simulated).check();
    await at.page.getByLabel("Access token").fill(simulator.tokens.member);
    await at.button("Check the token");
    await toTheEnd(at);
    await at.page.goto(once);
    await at.heading("This invitation has been used");
    await at.looked("problem");
  },
};

const browser = await launch();
let seen = 0;
try {
  for (const scheme of ["light", "dark"]) {
    for (const width of [1280, 375]) {
      for (const [way, go] of Object.entries(ways)) {
        const at = await customer(browser, { scheme, width }, way);
        try {
          await go(at);
        } catch (error) {
          fault(`${way} ${width} ${scheme}`, `at ${at.page.url()}: ${error.message}`);
        }
        await at.context.close();
        seen += 1;
      }
    }
  }
} finally {
  await browser.close();
}
console.log(`${seen} ways gone, ${faults.length} faults`);
for (const line of faults) console.error(line);
process.exitCode = faults.length ? 1 : 0;
