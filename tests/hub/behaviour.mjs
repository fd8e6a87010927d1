// What the hub's script does, and what pages do without it.

const running = (pages, left) => ({
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    state: "running",
    pages,
    pages_total: 20,
    records: pages * 100,
    eta_seconds: 30,
    words: {
      pages: `${pages} of 20`,
      records: `${pages * 100}`,
      left,
      summary: `Page ${pages} of 20 read.`,
    },
  }),
});
const ended = (state) => ({
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ state, words: {} }),
});

export async function behaves(browser, site, { polled, posted, fault }) {
  const demand = (holds, what) => holds || fault("behaviour", what);

  // Progress moves by itself, is told of now and then, and leads on when all is read.
  {
    const page = await browser.newPage();
    polled.push({ status: 503 }, running(15, "a moment"), ended("sealed"));
    await page.goto(site.at("plain-progress"));
    await page.waitForFunction(() => document.getElementById("pages").textContent === "15 of 20");
    const bar = await page.evaluate(() => {
      const { value, max } = document.getElementById("bar");
      return `${value}/${max} ${document.getElementById("summary").textContent}`;
    });
    demand(bar === "15/20 Page 15 of 20 read.", `the bar is at ${bar}`);
    await page.waitForURL("**/connect/done");
    await page.close();
  }

  // A reading that failed, and a session that is over, are the server's to tell.
  for (const answer of [ended("failed"), { status: 404 }]) {
    const page = await browser.newPage();
    polled.push(answer);
    await page.goto(site.at("plain-progress"));
    await page.waitForRequest((request) => request.isNavigationRequest());
    polled.length = 0;
    await page.close();
  }

  // Without a script the page asks for itself anew.
  {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(site.at("plain-progress"));
    await page.waitForRequest((request) => request.isNavigationRequest(), { timeout: 15_000 });
    await context.close();
  }

  // Whoever is registered hears of the end, and nobody else does.
  for (const [origin, hears] of [
    ["https://app.example.com", true],
    ["https://elsewhere.example", false],
  ]) {
    const context = await browser.newContext();
    await context.route(`${origin}/`, (route) =>
      route.fulfill({
        contentType: "text/html",
        body: `<script>heard = []; onmessage = (event) => heard.push(event)</script>`,
      }),
    );
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    const opened = context.waitForEvent("page");
    await page.evaluate((url) => void window.open(url), site.at("plain-done"));
    const popup = await opened;
    await popup.waitForFunction(() => document.getElementById("returning").textContent !== "");
    const heard = await page.evaluate(() => heard.map(({ data, origin }) => ({ data, origin })));
    const expected = {
      data: {
        type: "AccountConnected",
        account: { id: "0198c3a2-5b6f-7c11-9d0e-2f4a6b8c0d1e", provider: "smartsheet" },
      },
      origin: site.origin,
    };
    demand(
      JSON.stringify(heard) === JSON.stringify(hears ? [expected] : []),
      `${origin} heard ${JSON.stringify(heard)}`,
    );
    await context.close();
  }

  // The way back is taken by itself, but not from somebody who wants to stay.
  {
    const page = await browser.newPage();
    await page.clock.install();
    await page.goto(site.at("plain-done"));
    await page.getByRole("button", { name: "Stay on this page" }).click();
    const returned = [];
    page.on("request", (request) => returned.push(request.url()));
    await page.clock.fastForward(60_000);
    demand(returned.length === 0, `who stays is led to ${returned}`);

    await page.route("https://app.example.com/**", (route) => route.fulfill({ body: "back" }));
    await page.goto(site.at("plain-done"));
    await page.clock.fastForward(20_000);
    await page.waitForURL("https://app.example.com/settings/directory?linked=1&x=2");
    await page.close();
  }

  // A form is sent once, and says that something is happening.
  {
    const page = await browser.newPage();
    await page.goto(site.at("plain-token"));
    await page.getByLabel("Europe").check();
    await page.getByLabel("Access token").fill("not-a-real-token");
    const button = page.getByRole("button", { name: "Check the token" });
    await button.dblclick();
    const busy = await page.getByText("Asking Smartsheet what this token may read").count();
    await button.click();
    demand(busy === 1, "nothing says that the token is tried");
    demand(posted.join() === "POST", `the form was sent as ${posted.join()}`);
    await page.close();
  }

  // A value is copied as it stands, and so is said.
  {
    const context = await browser.newContext();
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await context.newPage();
    await page.goto(site.at("plain-app"));
    await page.getByRole("button", { name: "Copy app redirect URL" }).click();
    await page.getByText("Copied").first().waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    demand(
      copied === "https://link.example.com/connect/oauth2/smartsheet/callback",
      `copied was ${copied}`,
    );
    await context.close();
  }

  // By keyboard alone: past the head of the page, through the form, with a focus that is seen.
  {
    const page = await browser.newPage();
    await page.goto(site.at("plain-token"));
    const reached = [];
    for (let step = 0; step < 12; step += 1) {
      await page.keyboard.press("Tab");
      const focus = await page.evaluate(() => {
        const at = document.activeElement;
        const ring = at.type === "radio" ? at.nextElementSibling : at;
        const style = getComputedStyle(ring);
        return {
          name: at.id || at.textContent.trim(),
          isSeen: style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2,
        };
      });
      if (focus.name) reached.push(focus.name);
      if (focus.name) demand(focus.isSeen || focus.name === "", `no focus is seen on ${focus.name}`);
      if (focus.name === "Connect another way") break;
    }
    demand(
      reached.join() === "Skip to content,region-1,token,Check the token,Connect another way",
      `the keyboard reaches ${reached.join()}`,
    );
    await page.close();
  }
}
