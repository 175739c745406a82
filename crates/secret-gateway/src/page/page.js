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

  // A body makes it a POST.
  const ask = async (path, body) => {
    const headers = { authorization: `Bearer ${token}` };
    if (body) headers["content-type"] = "application/json";
    const answer = await fetch(path, {
      headers, method: body ? "POST" : "GET", body: body && JSON.stringify(body),
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

  // What was asked last, for the next page.
  let listing = null;
  const has = { ledger: false };

  const rowOf = (secret) => [
    secret.configuration, secret.place, secret.coordinate,
    [secret.standing, ["present", "restored", "external", "elsewhere"].includes(secret.standing) ? "" : "bad"],
    secret.created ? `${secret.created} (${Math.round(secret.age_seconds / 86400)} days)` : null,
    secret.expires, secret.owner, ...(has.ledger ? [readOf(secret)] : []), secret.detail,
  ];

  // No secret is called never read: its time may be that of a copy, and the ledger knows nothing of the store before.
  const readOf = (secret) => {
    const reads = secret.reads;
    if (!reads) return null;
    if (reads.last) return [`${reads.last}, ${reads.actor ?? "?"}${reads.genuine ? "" : " (not genuine)"}`, reads.genuine ? "" : "bad"];
    return reads.since ? `not since ${reads.since}` : "?";
  };

  // Reads pages until there is something to show: a filter may leave whole pages out.
  const list = async () => {
    const asked = listing;
    const before = asked.secrets.length;
    at("more").hidden = true;
    do {
      const path = asked.next ? `${asked.path}?after=${encodeURIComponent(asked.next)}` : asked.path;
      const page = await ask(path, asked.body).then((answer) => answer.json());
      if (!token || listing !== asked) return;
      asked.secrets.push(...page.secrets);
      asked.read += page.counts.configurations;
      asked.next = page.next;
      at("look-text").textContent = `${asked.secrets.length} places in ${asked.read} configurations${asked.next ? ", so far" : ""}`;
      at("look-text").className = "";
      // What is to be restored is on every page.
    } while (asked.next && (asked.body.dry_run === false || asked.secrets.length < before + 100));
    table("listed", ["Configuration", "Place", "Name", "Standing", "Written", "Expires", "Owner", ...(has.ledger ? ["Last read"] : []), "Detail"], asked.secrets.map(rowOf), "none");
    at("more").hidden = !asked.next;
    const pending = asked.secrets.some((secret) => secret.standing === "pending_deletion");
    at("restore").hidden = !(asked.what === "restore" && asked.body.dry_run && pending);
  };

  const begin = (what, body) => {
    listing = { what, path: `/api/v1/${what}`, body, secrets: [], read: 0, next: null };
    at("restore").hidden = true;
    return trying("look-text", list);
  };

  // What a person has asked for, and why it failed.
  const trying = async (id, work) => {
    try {
      await work();
    } catch (error) {
      at(id).textContent = error.message;
      at(id).className = "bad";
    }
  };

  const showRun = (run) => {
    const running = Boolean(run) && run.state === "running";
    at("stop").hidden = !running;
    at("stop").dataset.id = run ? run.id : "";
    const previewed = Boolean(run) && run.dry_run && run.state === "done";
    at("confirm").hidden = !previewed;
    at("delete").hidden = !previewed;
    if (at("delete").dataset.id !== (run ? run.id : "")) at("all").checked = false;
    at("delete").dataset.id = run ? run.id : "";
    at("delete").disabled = !(previewed && at("all").checked);
    if (!run) {
      at("run-text").textContent = "no run since the start";
      at("run").replaceChildren();
      return;
    }
    const bad = !["running", "done", "cancelled"].includes(run.state);
    const counts = run.counts;
    const figures = counts
      ? `: ${counts.owned} secrets of this installation, ${counts.names} names in ${counts.configurations} configurations; ${counts.orphaned} orphaned, ${counts.expired} expired, ${counts.ephemeral} short-lived, ${counts.waiting} waiting, ${counts.young} too young, ${counts.deleted} deleted, ${counts.failed} failed`
      : "";
    const why = {
      share: "; stopped, because more would go than allowed",
      unreadable: "; stopped, because a place cannot be understood",
      failures: "; stopped after too many failures",
      cancelled: "; stopped",
    }[run.state] || (run.failure ? `: ${run.failure.detail}; ${run.failure.deleted === null ? "nobody knows how many were" : run.failure.deleted} deleted before` : "");
    at("run-text").textContent = `${run.dry_run ? "dry run" : "run"} of ${run.actor}, ${age(run.began)} ago, ${run.state}${figures}${why}`;
    at("run-text").className = bad ? "bad" : "";
    const rows = run.secrets.map((secret) => [secret.coordinate, secret.reason, secret.fate, secret.created, secret.since])
      .concat(run.failures.map((failure) => [failure.coordinate || `${failure.configuration} ${failure.place || ""}`, [failure.kind, "bad"], failure.detail, null, null]));
    table("run", ["Name", "Reason", "Fate", "Written", "Superfluous since"], rows, "nothing is superfluous");
  };

  const forget = (why, bad) => {
    listing = null;
    for (const id of ["listed", "run"]) at(id).replaceChildren();
    for (const id of ["look-text", "run-text"]) at(id).textContent = "";
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
      const run = status.collects ? (await ask("/api/v1/collect").then((answer) => answer.json())).run : null;
      if (!token) return;
      show(stores, status, samples(metrics));
      at("secrets").hidden = status.sources === 0;
      at("collect").hidden = !status.collects;
      has.ledger = status.ledger;
      fields();
      if (status.collects) showRun(run);
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
  const fields = () => {
    for (const field of document.querySelectorAll("[data-for]")) {
      field.hidden = field.dataset.for !== at("what").value || ("ledger" in field.dataset && !has.ledger);
    }
  };
  at("what").addEventListener("change", fields);
  at("look").addEventListener("submit", (event) => {
    event.preventDefault();
    const what = at("what").value;
    const more = {};
    const days = (id, name) => { if (at(id).value !== "") more[name] = Math.round(Number(at(id).value) * 86400); };
    const time = (id, name) => { if (at(id).value) more[name] = new Date(at(id).value).toISOString(); };
    if (what === "ages") { days("older", "older_than_seconds"); days("expiring", "expiring_within_seconds"); if (has.ledger && at("unread").checked) more.never_read = true; }
    if (what === "affected") { time("since", "since"); time("until", "until"); }
    if (what === "restore") more.dry_run = true;
    const workspace = at("workspace").value.trim();
    if (workspace) more.workspaces = [workspace];
    begin(what, more);
  });
  at("more").addEventListener("click", () => trying("look-text", list));
  // What was listed, whatever the form says by now.
  at("restore").addEventListener("click", () => begin("restore", { ...listing.body, dry_run: false }));
  const run = (path, body) => trying("run-text", async () => {
    const begun = await ask(path, body).then((answer) => answer.json());
    if (token) showRun(begun);
  });
  at("preview").addEventListener("submit", (event) => {
    event.preventDefault();
    run("/api/v1/collect", { grace_seconds: Math.round(Number(at("grace").value) * 3600), max_percent: Number(at("percent").value) });
  });
  at("all").addEventListener("change", () => { at("delete").disabled = !at("all").checked; });
  at("delete").addEventListener("click", () => {
    at("delete").disabled = true;
    run(`/api/v1/collect/${at("delete").dataset.id}/delete`, { all_references: true });
  });
  at("stop").addEventListener("click", () => run(`/api/v1/collect/${at("stop").dataset.id}/stop`, {}));
  at("forget").addEventListener("click", () => forget("The token is forgotten."));
})();
