"use strict";
// The page of runs. It shows updates: a frozen page holds one, a live page fetches them.
// Texts become text nodes; the only HTML that is put in was escaped by _page.py.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const files = data.names.map((name) => name.split("/").pop());
  const alike = new Set(files).size < files.length;
  const runs = data.names.map((name, run) =>
    ({ name, short: alike ? name : files[run], rows: [] }));
  const two = runs.length > 1;
  const sections = document.querySelectorAll(".run");
  const narrow = matchMedia("(max-width: 48rem)");
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  let tasks = [];
  let comparable = true;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "text") element.textContent = value;
      else if (value !== false && value !== null)
        element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const count = (number) => number.toLocaleString("en");
  const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
  const brief = (number) => String(Number(number.toPrecision(4)));
  const OUTCOMES = {
    won: ["✓", "success", "successes"],
    lost: ["✗", "failure", "failures"],
    without: ["–", "no outcome", "without an outcome"],
  };

  // A list of any length, of which only the visible rows are elements. The box keeps
  // the focus and names the active row, since the row's element may go.
  class List {
    constructor(root, noun, title, columns, describe, open) {
      Object.assign(this, { noun, columns, describe, open });
      this.all = this.shown = [];
      this.active = -1;
      this.sorted = null;
      this.reversed = false;
      this.filters = {};
      this.id = root.id;
      this.tools = make("div", { class: "tools" });
      this.said = make("p", { class: "said" });
      this.heads = columns.map((column) =>
        make("button", {
          type: "button",
          class: column.name,
          "aria-label": `sort by ${column.title}`,
          text: column.title,
          onclick: () => this.sort(column),
        })
      );
      this.space = make("div", { class: "space", role: "presentation" });
      this.box = make("div", {
        class: "box", tabindex: "0", role: "listbox", "aria-label": title,
        onscroll: () => this.later(),
        onkeydown: (event) => this.press(event),
        onclick: (event) => this.click(event),
      }, this.space);
      this.head = make(
        "div", { class: "heads", role: "group", "aria-label": "Sort" }, ...this.heads);
      this.frame = make("div", { class: "list" }, this.head, this.box);
      root.append(make("h2", { text: title }), this.tools, this.said, this.frame);
      narrow.addEventListener("change", () => this.draw());
      addEventListener("resize", () => this.later());
    }
    get height() {
      return (narrow.matches ? 4.25 : 2.25) * rem;
    }
    set(items) {
      this.all = items;
      // What the reader chose is told; what a run adds every second is not.
      this.said.setAttribute("aria-live", "off");
      this.refresh();
    }
    refresh() {
      const kept = this.shown[this.active];
      const wanted = Object.values(this.filters).filter(Boolean);
      this.shown = this.all.filter((item) => wanted.every((filter) => filter(item)));
      if (this.sorted) {
        const { value } = this.sorted, sign = this.reversed ? -1 : 1;
        const compare = (a, b) =>
          a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -sign : sign;
        this.shown.sort((a, b) => compare(value(a), value(b)));
      }
      this.active = kept === undefined ? -1 : this.shown.findIndex(this.same(kept));
      const [some, all] = [this.shown.length, this.all.length];
      const said = (some === all ? "" : `${count(some)} of `) + plural(all, this.noun);
      if (this.said.textContent !== said) this.said.textContent = said;
      this.draw();
    }
    same(kept) {
      return (item) => item.id === kept.id;
    }
    sort(column) {
      this.reversed = this.sorted === column && !this.reversed;
      this.sorted = column;
      this.heads.forEach((head, place) => {
        const mine = this.columns[place] === column;
        head.textContent =
          this.columns[place].title + (mine ? (this.reversed ? " ▼" : " ▲") : "");
        head.setAttribute("aria-pressed", String(mine));
      });
      this.refresh();
    }
    later() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw();
      });
    }
    draw() {
      const { box, space, height, shown } = this;
      space.style.height = `${shown.length * height}px`;
      this.frame.hidden = !shown.length;
      // As wide as the rows, which may have a scroll bar beside them.
      this.head.style.marginRight = `${box.offsetWidth - box.clientWidth}px`;
      const first = Math.max(0, Math.floor(box.scrollTop / height) - 4);
      const last = Math.min(
        shown.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + 4
      );
      while (space.children.length > Math.max(0, last - first)) space.lastChild.remove();
      for (let place = first; place < last; place++) {
        let row = space.children[place - first];
        if (!row) {
          row = make("div", { role: "option" });
          row.append(...this.columns.map(({ name }) => make("span", { class: name })));
          space.append(row);
        }
        this.fill(row, shown[place], place);
      }
      const there = this.active >= first && this.active < last;
      if (there) box.setAttribute("aria-activedescendant", `${this.id}-${this.active}`);
      else box.removeAttribute("aria-activedescendant");
    }
    fill(row, item, place) {
      row.id = `${this.id}-${place}`;
      row.className = `row ${item.outcome || ""}`;
      row.style.top = `${place * this.height}px`;
      row.setAttribute("aria-posinset", place + 1);
      row.setAttribute("aria-setsize", this.shown.length);
      row.setAttribute("aria-selected", String(place === this.active));
      row.setAttribute("aria-label", this.describe(item));
      this.columns.forEach((column, number) => {
        const cell = row.children[number];
        if (column.draw) column.draw(cell, item);
        else cell.textContent = column.text(item);
      });
    }
    move(place) {
      const { box, height, shown } = this;
      if (!shown.length) return;
      this.active = Math.min(Math.max(place, 0), shown.length - 1);
      const top = this.active * height;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + height > box.scrollTop + box.clientHeight)
        box.scrollTop = top + height - box.clientHeight;
      this.draw();
    }
    press(event) {
      const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key in steps) this.move(this.active + steps[event.key]);
      else if (event.key === "Home") this.move(0);
      else if (event.key === "End") this.move(this.shown.length - 1);
      else if (event.key === "Enter" || event.key === " ") this.choose(this.active);
      else return;
      event.preventDefault();
    }
    // By the place of the click: an update may have filled the row anew meanwhile.
    click(event) {
      const top = this.box.getBoundingClientRect().top + this.box.clientTop;
      const y = event.clientY - top + this.box.scrollTop;
      this.move(Math.floor(y / this.height));
      this.choose(this.active);
    }
    choose(place) {
      if (this.shown[place]) this.open(this.shown[place], this);
    }
    filter(name, wanted) {
      this.filters[name] = wanted;
      this.said.setAttribute("aria-live", "polite");
      this.box.scrollTop = 0;
      this.refresh();
    }
    // `more` may find further items by their ids, which comes later.
    search(label, text, more = null) {
      const find = async () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        const known = (item) => words.every((word) => text(item).includes(word));
        this.filter("search", words.length ? known : null);
        const asked = (this.asked = (this.asked || 0) + 1);
        if (!more || !words.length) return;
        await sleep(250);
        if (this.asked !== asked) return;
        const ids = await more(words.join(" ")).catch(() => null);
        if (this.asked === asked && ids)
          this.filter("search", (item) => ids.has(item.id) || known(item));
      };
      const input = make("input", {
        type: "search", "aria-label": label, placeholder: label, oninput: find,
      });
      this.tools.append(input);
    }
    // Choices between which one is taken; the texts come with each update.
    select(name, label) {
      const element = make("select", {
        "aria-label": label,
        onchange: () => this.filter(name, this.choices[name].get(element.value)),
      });
      this.choices = { ...this.choices, [name]: new Map() };
      this.tools.append(element);
      return (options) => {
        const texts = options.map(([key, text]) => `${key} ${text}`).join("\n");
        this.choices[name] = new Map(options.map(([key, , wanted]) => [key, wanted]));
        if (element.dataset.texts === texts) return;
        const before = element.value;
        element.dataset.texts = texts;
        element.replaceChildren(
          ...options.map(([value, text]) => make("option", { value, text }))
        );
        element.value = this.choices[name].has(before) ? before : options[0][0];
        this.filters[name] = this.choices[name].get(element.value);
      };
    }
  }

  const named = (split) => (split ? ` of ${split}` : "");
  const rewardText = ({ reward, outcome }) =>
    outcome === "without" ? "no outcome" : reward === null ? "?" : brief(reward);
  const bar = (cell, value, [low, high]) => {
    if (!cell.firstChild) cell.append(make("i"), make("b"));
    const share = high > low ? (value - low) / (high - low) : 1;
    cell.firstChild.style.width = `${value === null ? 0 : 100 * share}%`;
    cell.lastChild.textContent = value === null ? "–" : brief(value);
  };

  let range = [0, 1];
  const mine = (task, run) => (task.in[run] ? task.in[run][1] : null);
  const taskList = new List(
    document.getElementById("tasks"), "task", "Reward by task",
    [
      { name: "task", title: "task", value: ({ place }) => place,
        text: ({ task, split }) => `task ${task}${named(split)}` },
      ...runs.map((run, place) => ({
        name: "value", title: two ? run.short : "mean reward",
        value: (item) => mine(item, place),
        draw: (cell, item) => bar(cell, mine(item, place), range),
      })),
      ...(two ? [{
        name: "difference", title: "difference", value: ({ difference }) => difference,
        draw: (cell, { difference, outcome }) => {
          cell.textContent = difference === null ? "not in both"
            : (difference > 0 ? "+" : "") + brief(difference) +
              (outcome === "won" ? " ▲" : outcome === "lost" ? " ▼" : "");
        },
      }] : []),
      { name: "many", title: "successes",
        value: ({ in: found }) => found[0] && found[0][2],
        text: ({ in: found }) => found.map((one) =>
          one ? `${Math.round(one[0] * one[2])} of ${one[0]}` : "–").join(" · ") },
    ],
    ({ task, split, in: found }) => `task ${task}${named(split)}: ` +
      found.map((one, run) => (two ? `${runs[run].short} ` : "") + (one
        ? `mean reward ${brief(one[1])} in ${plural(one[0], "episode")}`
        : "no outcome")).join(", "),
    (item, list) => reader.show(list, item, runs.map((_, run) => episodesOf(run, item)[0]))
  );
  taskList.search("Find a task", ({ task, split }) => `task ${task}${named(split)}`.toLowerCase());
  const showTasks = taskList.select("differ", "Which tasks");

  const episodeList = new List(
    document.getElementById("episodes"), "episode", "Episodes",
    [
      { name: "mark", title: "outcome", value: ({ outcome }) => outcome,
        text: ({ outcome }) => OUTCOMES[outcome][0] },
      { name: "task", title: "task", value: ({ place }) => place,
        text: ({ task, split, number }) =>
          `task ${task}${named(split)}${number ? ` #${number}` : ""}` },
      ...(two ? [{ name: "of", title: "run", value: ({ run }) => run,
        text: ({ run }) => runs[run].short }] : []),
      { name: "reward", title: "reward", value: ({ reward }) => reward, text: rewardText },
      { name: "steps", title: "steps", value: ({ steps }) => steps,
        text: ({ steps }) => plural(steps, "step") },
      { name: "seconds", title: "seconds", value: ({ seconds }) => seconds,
        text: ({ seconds }) => `${brief(seconds)} s` },
      { name: "ended", title: "ended by", value: ({ ended, kind }) => kind || ended,
        text: ({ ended, kind }) => kind || ended },
      { name: "about", title: "prompt", value: ({ about }) => about,
        text: ({ about, error }) => error || about },
    ],
    (item) => `${OUTCOMES[item.outcome][1]}, task ${item.task}${named(item.split)}, ` +
      (two ? `${runs[item.run].short}, ` : "") +
      `reward ${rewardText(item)}, ${plural(item.steps, "step")}, ` +
      `ended by ${item.ended} ${item.kind}. ${item.error || item.about}`,
    (item, list) => reader.show(list, item, runs.map((_, run) =>
      run === item.run ? item : partnerOf(run, item)))
  );
  const cards = new Map(
    [...document.querySelectorAll("template")].map((card) => [card.dataset.of, card]));
  const text = (item) =>
    (item.text ??= [
      `task ${item.task}`, item.split, item.ended, item.kind, item.error, item.about,
      item.last, cards.get(item.id)?.content.textContent,
    ].join(" ").toLowerCase());
  const findOnServer = async (words) => {
    const reply = await fetch(`search?for=${encodeURIComponent(words)}`);
    const rows = await reply.json();
    return new Set(rows.flatMap((found, run) => found.map((row) => `${run}/${row}`)));
  };
  episodeList.search("Search transcripts", text, data.live ? findOnServer : null);
  const showOutcomes = episodeList.select("outcome", "Which outcomes");
  const showEnds = episodeList.select("ended", "Ended by");
  const showRuns = two ? episodeList.select("run", "Of which run") : () => {};

  // The episodes of a task in a run, in the order of their numbers.
  let byTask = null;
  const episodesOf = (run, { task, split }) => {
    byTask ??= runs.map(({ rows }) => {
      const found = new Map();
      for (const item of rows) {
        const key = `${item.split}\n${item.task}`;
        if (!found.has(key)) found.set(key, []);
        found.get(key).push(item);
      }
      for (const items of found.values()) items.sort((a, b) => a.number - b.number);
      return found;
    });
    return byTask[run].get(`${split}\n${task}`) || [];
  };

  const partnerOf = (run, { task, split, number }) => {
    const found = comparable ? episodesOf(run, { task, split }) : [];
    return found.find((other) => other.number === number) || found[0];
  };

  // A dialog with the transcripts of one task, those of two runs side by side.
  const reader = {
    element: document.getElementById("reader"),
    asked: 0,
    show(list, item, episodes) {
      Object.assign(this, { list, item, episodes });
      const button = (label, name, onclick) =>
        make("button", { type: "button", "aria-label": label, text: name, onclick });
      this.columns = runs.map(() => make("section", { class: "column" }));
      this.element.replaceChildren(
        make("header", {},
          make("h2", { id: "reading", text: `Task ${item.task}${named(item.split)}` }),
          button("previous in the list", "◀", () => this.step(-1)),
          button("next in the list", "▶", () => this.step(1)),
          button("close", "Close", () => this.element.close())),
        make("div", { class: `columns of-${runs.length}` }, ...this.columns)
      );
      runs.forEach((_, run) => this.fill(run, episodes[run]));
      if (!this.element.open) this.element.showModal();
      this.element.scrollTop = 0;
    },
    step(by) {
      const { list } = this;
      const place = list.shown.findIndex(list.same(this.item)) + by;
      if (!list.shown[place]) return;
      const label = document.activeElement?.getAttribute("aria-label");
      list.move(place);
      list.choose(place);
      if (label) this.element.querySelector(`[aria-label="${label}"]`)?.focus();
    },
    async fill(run, item) {
      const column = this.columns[run], asked = ++this.asked;
      if (!item) {
        column.replaceChildren(
          make("h3", { text: runs[run].name }), make("p", { text: "Not in this run." })
        );
        return;
      }
      const others = episodesOf(run, item);
      const choices = others.length < 2 ? [] : others.map((other) =>
        make("button", {
          type: "button", class: other.outcome, "aria-pressed": String(other === item),
          text: `#${other.number} ${OUTCOMES[other.outcome][0]}`,
          "aria-label": `episode ${other.number}, ${OUTCOMES[other.outcome][1]}`,
          onclick: () => this.fill(run, other),
        }));
      const holder = make("div", { class: "transcript" }, "Loading …");
      column.replaceChildren(
        make("h3", { text: `${runs[run].name}, row ${item.row}` }),
        make("div", { class: "choices", role: "group", "aria-label": "Episodes of the task" },
          ...choices),
        holder
      );
      column.asked = asked;
      const found = await transcript(run, item);
      if (column.asked === asked) holder.replaceChildren(found);
    },
  };
  reader.element.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.altKey && !event.ctrlKey && !event.metaKey) reader.step(by);
  });
  reader.element.addEventListener("click", (event) => {
    if (event.target === reader.element) reader.element.close();
  });
  const html = (text) => {
    const element = document.createElement("template");
    element.innerHTML = text;
    return element.content;
  };
  const command = (run, item) => `ors-gym show ${runs[run].name} --row ${item.row}`;
  const transcript = async (run, item) => {
    if (!data.live) {
      const kept = cards.get(item.id);
      return kept ? kept.content.cloneNode(true)
        : make("p", { text: `Not among the transcripts of this page. Run: ${command(run, item)}` });
    }
    try {
      const reply = await fetch(`transcript?run=${run}&row=${item.row}&of=${runs[run].of}`);
      const told = await reply.text();
      return reply.ok ? html(told) : make("p", { text: told });
    } catch {
      return make("p", { text: `ors-gym view has ended. Run: ${command(run, item)}` });
    }
  };

  const read = (run, values) => {
    const item = Object.fromEntries(data.fields.map((name, place) => [name, values[place]]));
    return Object.assign(item, { run, id: `${run}/${item.row}`, place: 0 });
  };
  const sameTask = new Intl.Collator("en", { numeric: true });
  const apply = (update) => {
    let changed = false;
    update.runs.forEach((news, run) => {
      const mine = runs[run];
      if (news.of !== undefined && news.of !== mine.of) {
        Object.assign(mine, { of: news.of, rows: [] });
        changed = true;
      }
      for (const values of news.rows) {
        const item = read(run, values);
        mine.rows[item.row] = item;
        changed = true;
      }
      for (const part of ["figures", "plots"])
        if (news[part] !== undefined)
          sections[run].querySelector(`.${part}`).replaceChildren(html(news[part]));
      if (news.progress) showProgress(sections[run], news.progress);
    });
    if (update.comparison !== undefined)
      document.getElementById("comparison").replaceChildren(html(update.comparison));
    if (update.tasks !== undefined) {
      comparable = update.tasks !== null;
      setTasks(update.tasks || []);
    }
    if (changed) setEpisodes();
  };

  const setTasks = (rows) => {
    tasks = rows.map(([task, split, ...found], place) => {
      const both = two && found.every(Boolean);
      const difference = both ? found[0][1] - found[1][1] : null;
      const won = both ? found[0][2] - found[1][2] : 0;
      const better = difference || won;
      const outcome = better > 0 ? "won" : better < 0 ? "lost" : "";
      return { id: `${split}\n${task}`, task, split, in: found, place, difference,
        differs: Boolean(better), outcome };
    });
    const rewards = tasks.flatMap(({ in: found }) => found.filter(Boolean).map((one) => one[1]));
    range = rewards.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [0, 0]);
    const differ = tasks.filter(({ differs }) => differs).length;
    const failed = tasks.filter(({ in: found }) => found.some((one) => one && !one[2])).length;
    showTasks([
      ...(two ? [["differ", `where the runs differ (${count(differ)})`,
        ({ differs }) => differs]] : []),
      ["all", `all tasks (${count(tasks.length)})`, null],
      ["failed", `without a success (${count(failed)})`,
        ({ in: found }) => found.some((one) => one && !one[2])],
    ]);
    taskList.set(tasks);
  };

  const setEpisodes = () => {
    byTask = null;
    const items = runs.flatMap(({ rows }) => rows.filter(Boolean));
    const order = [...items].sort((a, b) =>
      sameTask.compare(a.split, b.split) || sameTask.compare(a.task, b.task) ||
      a.number - b.number);
    order.forEach((item, place) => (item.place = place));
    const tally = (value) => {
      const found = new Map();
      for (const item of items) {
        const key = value(item);
        if (key !== null) found.set(key, (found.get(key) || 0) + 1);
      }
      return found;
    };
    const outcomes = tally(({ outcome }) => outcome);
    const refused = items.filter((item) => item.refused).length;
    const kept = items.filter((item) => item.kept).length;
    showOutcomes([
      ["all", `all outcomes (${count(items.length)})`, null],
      ...Object.entries(OUTCOMES).filter(([key]) => outcomes.has(key)).map(([key, words]) =>
        [key, `${words[2]} (${count(outcomes.get(key))})`, (item) => item.outcome === key]),
      ...(refused ? [["refused", `with refused calls (${count(refused)})`,
        (item) => item.refused > 0]] : []),
      ...(kept < items.length ? [["kept", `with a transcript here (${count(kept)})`,
        (item) => item.kept]] : []),
    ]);
    showEnds([
      ["all", "ended by anything", null],
      ...[...tally(({ ended, kind }) => (kind ? null : ended))].map(([ended, number]) =>
        [`end ${ended}`, `${ended || "?"} (${count(number)})`,
          (item) => !item.kind && item.ended === ended]),
      ...[...tally(({ kind }) => kind || null)].map(([kind, number]) =>
        [`kind ${kind}`, `error: ${kind} (${count(number)})`, (item) => item.kind === kind]),
    ]);
    showRuns([
      ["all", "both runs", null],
      ...runs.map(({ short }, run) => [String(run), short, (item) => item.run === run]),
    ]);
    episodeList.set(items);
  };

  // Seconds in words that a glance is enough for.
  const lasting = (seconds) =>
    seconds < 90 ? `${Math.round(seconds)} s`
    : seconds < 5400 ? `${Math.round(seconds / 60)} min`
    : `${brief(seconds / 3600)} h`;
  const showProgress = (section, { done, planned, idle, pace, problem }) => {
    const parts = [planned ? `${count(done)} of ${plural(planned, "episode")}`
      : plural(done, "episode")];
    const over = planned && done >= planned;
    if (over) parts.push("complete");
    else if (idle > 60) parts.push(`none for ${lasting(idle)}`);
    else if (pace) {
      parts.push(`${brief(pace * 60)} a minute`);
      if (planned) parts.push(`about ${lasting((planned - done) / pace)} left`);
    }
    const holder = section.querySelector(".progress");
    if (!holder.firstChild)
      holder.append(make("progress", { "aria-label": "episodes played" }), make("span"),
        make("p", { class: "warning", role: "alert", hidden: true }));
    const [meter, said, warning] = holder.children;
    meter.hidden = !planned;
    meter.max = planned || 1;
    meter.value = Math.min(done, planned || 0);
    said.textContent = parts.join(" · ");
    warning.hidden = !problem;
    if (warning.textContent !== problem) warning.textContent = problem;
  };

  const status = document.getElementById("status");
  const say = (text, lost) => {
    if (status.textContent !== text) status.textContent = text;
    status.className = lost ? "lost" : "live";
  };
  const follow = async () => {
    for (let cursor = ""; ; ) {
      try {
        if (document.hidden)
          await new Promise((done) =>
            document.addEventListener("visibilitychange", done, { once: true }));
        const reply = await fetch(`state?cursor=${encodeURIComponent(cursor)}`);
        if (!reply.ok) throw new Error(await reply.text());
        const update = await reply.json();
        cursor = update.cursor;
        apply(update);
        say("● live");
        if (!update.more) await sleep(1000);
      } catch {
        say("○ ors-gym view has ended; this is what it showed last", true);
        await sleep(3000);
      }
    }
  };

  if (data.live) follow();
  else apply(data.update);
})();
