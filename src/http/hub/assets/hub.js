// What the hub's pages do beyond forms and links. Every page works without it, but that progress
// then moves in steps of a few seconds and values are copied by hand.
"use strict";

const element = (id) => document.getElementById(id);

// What is wrong is where the reader begins.
element("faults")?.focus();

// A form is sent once, and says that something is happening: the provider may take its time.
for (const form of document.querySelectorAll("form")) {
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    const busy = form.querySelector(".busy");
    if (busy && form.dataset.busy && event.submitter?.value !== "cancel") {
      busy.textContent = form.dataset.busy;
    }
  });
  // Whoever comes back to the page finds it as it was.
  window.addEventListener("pageshow", () => {
    sent = false;
    const busy = form.querySelector(".busy");
    if (busy) {
      busy.textContent = "";
    }
  });
}

// Values to type elsewhere can be copied.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const words = button.firstChild;
    const before = words.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(element(button.dataset.copy).textContent);
      } catch {
        getSelection().selectAllChildren(element(button.dataset.copy));
        return;
      }
      words.textContent = "Copied";
      element("copied").textContent = "Copied";
      setTimeout(() => {
        words.textContent = before;
        element("copied").textContent = "";
      }, 2000);
    });
  }
}

// The first reading, as it goes on.
const progress = element("progress");
if (progress) {
  const bar = element("bar");
  let told = null;

  // A listener hears of every tenth, not of every page.
  const tell = (now) => {
    const tenth = now.pages_total ? Math.floor((10 * now.pages) / now.pages_total) : -1;
    if (tenth !== told) {
      told = tenth;
      element("summary").textContent = now.words.summary;
    }
  };

  const show = (now) => {
    if (now.pages_total) {
      bar.max = now.pages_total;
      bar.value = now.pages;
    }
    for (const figure of ["pages", "records", "left"]) {
      element(figure).textContent = now.words[figure];
    }
    tell(now);
  };

  const look = async () => {
    let pause = 1000;
    try {
      const answer = await fetch(progress.dataset.source, { cache: "no-store" });
      if (answer.status >= 400 && answer.status < 500) {
        // This page has nothing to show any more; the server says why.
        location.reload();
        return;
      }
      const now = await answer.json();
      if (now.state === "sealed") {
        location.replace(progress.dataset.next);
        return;
      }
      if (now.state === "failed") {
        location.reload();
        return;
      }
      show(now);
    } catch {
      // No answer, or none that can be read: ask again, less often.
      pause = 5000;
    }
    setTimeout(look, pause);
  };
  setTimeout(look, 500);
}

// The end: tell whoever opened this page, if they are registered, and lead back.
const done = element("done");
if (done) {
  const { opener, account, provider } = done.dataset;
  if (opener && window.opener) {
    const message = { type: "AccountConnected", account: { id: account, provider } };
    window.opener.postMessage(message, opener);
  }
  const back = done.dataset.return && element(done.dataset.return);
  if (back) {
    const stay = element("stay");
    const words = element("returning");
    const leave = setTimeout(() => location.assign(back.href), 15000);
    words.textContent = "You will be taken back in 15 seconds.";
    stay.hidden = false;
    stay.addEventListener("click", () => {
      clearTimeout(leave);
      words.textContent = "You stay on this page.";
      stay.hidden = true;
      back.focus();
    });
  }
}
