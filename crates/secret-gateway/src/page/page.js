"use strict";
// Names come from others: everything is text, nothing is markup. The token is in this closure alone.
(() => {
  const EVERY = 5000;
  const at = (id) => document.getElementById(id);
  let token = "";
  let timer = 0;

  const say = (text, bad) => {
    at("message").textContent = text;
    at("message").classList.toggle("bad", Boolean(bad));
  };

  const ask = async (path) => {
    const answer = await fetch(path, {
      headers: { authorization: `Bearer ${token}` },
      cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
    });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail || `the gateway answered ${answer.status}`);
    error.forget = answer.status === 401 || answer.status === 403 || answer.status === 404;
    throw error;
  };

  const cell = (kind, text, name, style) => {
    const made = document.createElement(kind);
    made.textContent = text;
    if (name) made.dataset.name = name;
    if (style) made.className = style;
    return made;
  };

  const table = (id, columns, rows, none) => {
    const head = document.createElement("thead");
    const body = document.createElement("tbody");
    const line = document.createElement("tr");
    for (const name of columns) {
      const made = cell("th", name);
      made.scope = "col";
      line.append(made);
    }
    head.append(line);
    for (const row of rows) {
      const made = document.createElement("tr");
      row.forEach((value, index) => {
        const [text, style] = Array.isArray(value) ? value : [value];
        made.append(cell("td", text ?? "–", columns[index], style));
      });
      body.append(made);
    }
    if (rows.length === 0) {
      const made = document.createElement("tr");
      const empty = cell("td", none, columns[0]);
      empty.colSpan = columns.length;
      made.append(empty);
      body.append(made);
    }
    at(id).replaceChildren(head, body);
  };

  const age = (since) => {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(since)) / 1000));
    if (seconds < 120) return `${seconds} s`;
    if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
    return `${Math.round(seconds / 3600)} h`;
  };

  // One line of Prometheus text: name, labels, value. A label's value may hold escaped quotes.
  const samples = (text) => {
    const found = [];
    for (const line of text.split("\n")) {
      const match = /^([a-z_]+)(?:\{(.*)\})? ([0-9.eE+-]+)$/.exec(line);
      if (!match) continue;
      const labels = {};
      for (const [, name, value] of (match[2] || "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) {
        labels[name] = value.replace(/\\(.)/g, "$1");
      }
      found.push({ name: match[1], labels, value: Number(match[3]) });
    }
    return found;
  };

  const sum = (all, name, wanted) => all
    .filter((one) => one.name === name && (!wanted || wanted(one.labels)))
    .reduce((total, one) => total + one.value, 0);

  const show = (stores, status, metrics) => {
    table("stores", ["Id", "Store", "Who and where", "Health", "Latency", "Last check"], stores.stores.map((store) => [
      store.id,
      store.store,
      store.identity,
      store.healthy ? ["answers", "good"] : [`down (${store.error})${store.answers_from_cache ? ", the cache answers" : ""}`, "bad"],
      `${store.milliseconds} ms`,
      `${age(store.checked)} ago`,
    ]), "no store was asked yet");
    const writes = status.failed_writes;
    at("writes-total").textContent = `${writes.total} since the start`;
    at("writes-total").className = writes.total > 0 ? "bad" : "good";
    table("writes", ["When", "Who", "Name", "Why"], writes.last.map((one) => [one.at, one.actor, one.coordinate, one.kind]), "none");
    table("changes", ["State", "Changes", "Oldest"], status.changes.map((one) => [one.state, String(one.changes), age(one.oldest)]), "none");
    const journal = status.migration;
    at("migration").hidden = !journal;
    if (journal && journal.readable) {
      const states = ["pending", "intent", "written", "verified", "present", "conflict"];
      const total = states.reduce((all, state) => all + journal[state], 0);
      const done = journal.written + journal.verified + journal.present;
      at("copied").max = Math.max(1, total);
      at("copied").value = done;
      at("copied-text").textContent = `${done} of ${total}`;
      table("journal", ["State", "Secrets"], states.map((state) => [state, state === "conflict" && journal.conflict > 0 ? [String(journal.conflict), "bad"] : String(journal[state])]), "none");
    } else if (journal) {
      at("copied").removeAttribute("value");
      at("copied-text").textContent = "the journal cannot be read now: secret-migrate is using its file, or there is none";
      at("journal").replaceChildren();
    }
    const cached = sum(metrics, "secrets_cache_total", (labels) => labels.result === "hit");
    const looked = sum(metrics, "secrets_cache_total");
    const counts = {
      "Mirror": status.mirrored ? "two stores are kept alike" : "one store",
      "Read from the second store": String(sum(metrics, "secrets_mirror_fallbacks_total")),
      "Of these missing in the first (drift)": String(sum(metrics, "secrets_mirror_fallbacks_total", (labels) => labels.kind === "not_found")),
      "Cache hits": looked > 0 ? `${Math.round(100 * cached / looked)} % of ${looked}` : "no cache",
      "Quota used, in requests": String(sum(metrics, "secrets_limit_permits_total")),
      "Slowed down by the store": String(sum(metrics, "secrets_limit_slowed_total")),
      "Audit events lost": String(status.unaudited),
      "Requests": String(sum(metrics, "secret_gateway_requests_total")),
      "Requests told to come again": String(sum(metrics, "secret_gateway_shed_requests_total")),
      "Callers refused": String(sum(metrics, "secret_gateway_refused_callers_total")),
      "Version": status.version,
    };
    at("counts").replaceChildren(...Object.entries(counts).flatMap(([name, text]) => [cell("dt", name), cell("dd", text)]));
  };

  const forget = (why, bad) => {
    token = "";
    clearTimeout(timer);
    at("shown").hidden = true;
    at("forget").hidden = true;
    say(why, bad);
    at("token").focus();
  };

  const look = async () => {
    try {
      const [stores, status, metrics] = await Promise.all([
        ask("/api/v1/stores").then((answer) => answer.json()),
        ask("/api/v1/status").then((answer) => answer.json()),
        ask("/metrics").then((answer) => answer.text()).catch((error) => { if (error.forget) return ""; throw error; }),
      ]);
      if (!token) return;
      show(stores, status, samples(metrics));
      at("shown").hidden = false;
      at("forget").hidden = false;
      say(`As it was at ${new Date().toLocaleTimeString()}; looked at every ${EVERY / 1000} seconds.`);
    } catch (error) {
      if (error.forget) return forget(error.message, true);
      say(`${error.message}; trying again`, true);
    }
    if (token) timer = setTimeout(look, EVERY);
  };

  at("login").addEventListener("submit", (event) => {
    event.preventDefault();
    token = at("token").value.trim();
    at("token").value = "";
    clearTimeout(timer);
    if (token) look();
  });
  at("forget").addEventListener("click", () => forget("The token is forgotten."));
})();
