// @ts-check
/**
 * A client for servers that speak the Open Reward Standard: one file, nothing to install.
 * Node 20 or later, Deno, Bun, browsers. It keeps to the same rules as the Python client:
 *
 * - A call is sent again only if it certainly did not run. Once the server has named it (`task_id`),
 *   its result is asked for by that name. What stays unknown is an error `ambiguous_call`, never a
 *   second run.
 * - What a tool does wrong is a value (`ok: false`); what the network does wrong is an `ORSError`.
 * - Sessions are deleted, also those that never came to life.
 *
 *     const client = new ORSClient("http://localhost:8080");
 *     await client.withSession("math", { split: "train", index: 0 }, async (session) => {
 *       console.log(session.prompt, session.tools);
 *       console.log(await session.callTool("submit", { answer: "7" }));
 *     });
 */

/** @typedef {{type: string, text?: string, data?: string, mimeType?: string, detail?: unknown}} Block */
/** @typedef {{role: string, blocks: Block[]}} Message A turn of a prompt with roles; its blocks may also be
 *   `reasoning`, `tool_call` and `tool_result`. */
/** @typedef {{name: string, description: string, input_schema: Record<string, unknown> | null, terminal?: boolean}} Tool */
/** @typedef {{name: string, type: string}} Split */
/** @typedef {Record<string, unknown>} Fields */
/** @typedef {{split: string, index: number} | {taskSpec: Fields}} Task */
/** @typedef {{ok: true, blocks: Block[], metadata: Fields | null, reward: number | null, finished: boolean}} ToolOutput */
/** @typedef {{ok: false, kind: "invalid_action" | "tool_failed", error: string, reason: string}} ToolError */
/** @typedef {"none" | "body" | "required body" | "header"} SecretsChannel */
/** @typedef {{secrets: SecretsChannel, createSession?: boolean, byIndex?: boolean, numTasks?: boolean, taskTools?: boolean, messages?: boolean, deleteSession?: boolean}} Dialect */
/** @typedef {{status: number, headers: Headers, failure: "" | "connect" | "broken" | "timeout", detail: string}} Outcome */
/** @typedef {{secrets?: Record<string, string>, createOptions?: Fields, sessionOptions?: Fields, timeout?: number}} SessionOptions */

/** Seconds without a byte, once a call is named, that mean a dead connection: three heartbeats. */
const HEARTBEATS_MISSED = 30;
const REPEATABLE = new Set([429, 502, 503, 504]);
const NOT_RUN = new Set([400, 401, 403, 422]);
const NEVER_SENT = new Set(
  "ECONNREFUSED ENOTFOUND EAI_AGAIN EHOSTUNREACH ENETUNREACH UND_ERR_CONNECT_TIMEOUT".split(" "),
);

/** What went wrong, with the same `kind`s as the Python client's errors. */
export class ORSError extends Error {
  /**
   * @param {string} kind `ambiguous_call`, `timeout`, `session_lost`, `connection`, `setup_failed`, ...
   * @param {string} message What happened, where, what to do.
   * @param {{status?: number, taskId?: string}} [details] The HTTP status; the call that may be resumed.
   */
  constructor(kind, message, { status = 0, taskId = "" } = {}) {
    super(message);
    this.name = "ORSError";
    this.kind = kind;
    this.status = status;
    this.taskId = taskId;
  }
}

/** Server-sent events: bytes in, cut anywhere, events out (WHATWG HTML, section 9.2). */
export class EventDecoder {
  // Strict; joins characters that are cut; drops one byte order mark at the start.
  #text = new TextDecoder("utf-8", { fatal: true });
  #tail = "";
  #afterReturn = false;
  #event = "";
  /** @type {string[]} */
  #data = [];

  /**
   * @param {Uint8Array} bytes The next piece.
   * @returns {{event: string, data: string}[]} The events that it completes.
   */
  feed(bytes) {
    let text;
    try {
      text = this.#text.decode(bytes, { stream: true });
    } catch {
      throw new ORSError("protocol", "the event stream is not UTF-8");
    }
    if (this.#afterReturn && text.startsWith("\n")) {
      text = text.slice(1); // the second half of a CRLF that was cut
      this.#afterReturn = false;
    }
    if (text === "") return [];
    this.#afterReturn = text.endsWith("\r");
    // Lines end here and nowhere else: U+2028, U+2029 and U+0085 are text.
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#tail + lines[0];
    this.#tail = lines.pop() ?? "";
    return lines.flatMap((line) => this.#line(line));
  }

  /** @returns {{event: string, data: string}[]} What a stream that ended too early holds. */
  finish() {
    const rest = this.#tail;
    this.#tail = "";
    return [...(rest ? this.#line(rest) : []), ...this.#line("")];
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") {
      const found = { event: this.#event || "message", data: this.#data.join("\n") };
      const complete = this.#data.length > 0;
      this.#event = "";
      this.#data = [];
      return complete ? [found] : [];
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    if (field === "data") this.#data.push(value);
    return [];
  }
}

/** Reads a reply as it arrives: the events of a stream, or one text. */
class Reply {
  status = 0;
  idleSeconds = 0;
  taskId = "";
  body = "";
  /** @type {string | null} */
  result = null;
  /** @type {string | null} */
  failed = null;
  /** @type {ORSError | null} */
  error = null;
  /** @type {EventDecoder | null} */
  #decoder = null;
  #text = new TextDecoder();
  #parts = "";

  /** @param {number} status @param {Headers} headers */
  start(status, headers) {
    this.status = status;
    const kind = (headers.get("content-type") ?? "").toLowerCase();
    if (status === 200 && kind.startsWith("text/event-stream")) this.#decoder = new EventDecoder();
  }

  /** @param {Uint8Array} bytes @returns {boolean} Whether the stream has said its last. */
  feed(bytes) {
    if (this.#decoder) return this.#take(this.#decoder.feed(bytes));
    this.body += this.#text.decode(bytes, { stream: true });
    return false;
  }

  /** Take an `end` that lacks only its blank line; anything else that was cut counts as not come. */
  finish() {
    if (!this.#decoder || this.decided) return;
    for (const event of this.#decoder.finish()) {
      if (event.event === "end" && parse(this.#parts + event.data) !== undefined) this.#take([event]);
    }
  }

  get decided() {
    return this.result !== null || this.failed !== null || this.error !== null;
  }

  /** @param {{event: string, data: string}[]} events */
  #take(events) {
    for (const { event, data } of events) {
      if (event === "chunk" || event === "end") this.#parts += data;
      if (event === "task_id") {
        this.taskId = data;
        this.idleSeconds = HEARTBEATS_MISSED;
      }
      if (event === "end") this.result = this.#parts;
      if (event === "error") this.failed = data;
      if (this.decided) return true;
    }
    return false;
  }
}

/** Seconds that an operation has, and its waits in between. */
class Budget {
  #start = performance.now();
  #delay = 0.05;

  /** @param {number} seconds */
  constructor(seconds) {
    this.seconds = seconds;
  }

  get spent() {
    return (performance.now() - this.#start) / 1000;
  }

  get left() {
    return this.seconds - this.spent;
  }

  /** @param {Outcome} outcome @returns {Promise<boolean>} Whether there is time for another attempt. */
  async pause(outcome) {
    const asked = Number(outcome.headers.get("retry-after")) || 0;
    const delay = Math.max(this.#delay * (1 - Math.random() / 2), asked);
    this.#delay = Math.min(this.#delay * 2, 5);
    if (delay >= this.left) return false;
    await new Promise((resolve) => setTimeout(resolve, delay * 1000));
    return true;
  }
}

/** One server. */
export class ORSClient {
  #url;
  #headers;
  #timeout;
  #maxBytes;
  #secure;
  #reached = false;
  /** @type {Promise<{dialect: Dialect, environments: string[]}> | null} */
  #known = null;

  /**
   * @param {string} baseUrl Such as `http://localhost:8080`.
   * @param {{apiKey?: string, headers?: Record<string, string>, timeout?: number, maxBytes?: number, allowInsecure?: boolean, repeatCallsAfter429?: boolean, pingSeconds?: number}} [options]
   *   `timeout`: seconds for a request that is neither a call nor part of set-up. `maxBytes`: how large a
   *   reply may be. `allowInsecure`: let a key or secrets travel over plain http to another machine.
   *   `repeatCallsAfter429`: false where a gateway answers 429 although the tool ran. `pingSeconds`: how
   *   often each session gives a sign of life; a server gives up after 900 without one.
   */
  constructor(baseUrl, options = {}) {
    const { apiKey = "", headers = {}, timeout = 60, maxBytes = 128 * 2 ** 20 } = options;
    const url = new URL(baseUrl);
    if (url.username || url.password || url.search || url.hash) {
      throw new ORSError("invalid_request", "the base URL must end with its path and hold no password");
    }
    const loopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(url.hostname);
    this.#secure = url.protocol === "https:" || loopback || options.allowInsecure === true;
    if (apiKey && !this.#secure) throw insecure("the API key");
    this.#url = url.href.replace(/\/+$/, "");
    this.#headers = { ...headers, ...(apiKey ? { "X-API-Key": apiKey } : {}) };
    this.#timeout = timeout;
    this.#maxBytes = maxBytes;
    this.pingSeconds = options.pingSeconds ?? 30;
    /** Whether 429 proves that a call was not run. */
    this.repeatCallsAfter429 = options.repeatCallsAfter429 ?? true;
  }

  /** @returns {Promise<string[]>} The names of the server's environments. */
  async listEnvironments() {
    return (await this.#connect()).environments;
  }

  /** @param {string} environment @returns {Promise<Tool[]>} The tools that every session has. */
  async listTools(environment) {
    return readTools(await this.#ask(environment, "tools"));
  }

  /** @param {string} environment @returns {Promise<Split[]>} */
  async listSplits(environment) {
    const splits = list(await this.#ask(environment, "splits"), "the splits");
    return splits.map((split) => {
      const { name, type } = typeof split === "string" ? { name: split, type: undefined } : fields(split);
      if (typeof name !== "string") throw protocol("a split has no name");
      const kind = ["train", "validation", "test"].includes(name) ? name : "validation";
      return { name, type: typeof type === "string" ? type : kind };
    });
  }

  /** @param {string} environment @param {string} split @returns {Promise<number>} */
  async numTasks(environment, split) {
    const { dialect } = await this.#connect();
    if (dialect.numTasks === false) return (await this.listTasks(environment, split)).length;
    const count = fields(await this.#ask(environment, "num_tasks", { split })).num_tasks;
    if (typeof count !== "number" || !Number.isInteger(count) || count < 0) throw protocol("num_tasks is no count");
    return count;
  }

  /** @param {string} environment @param {string} split @param {number} index @returns {Promise<Fields>} */
  async getTask(environment, split, index) {
    if (!Number.isInteger(index) || index < 0) throw new ORSError("unknown_task", `no task has the index ${index}`);
    const { dialect } = await this.#connect();
    if (dialect.numTasks !== false) return fields(fields(await this.#ask(environment, "task", { split, index })).task);
    const task = (await this.listTasks(environment, split))[index];
    if (task === undefined) throw new ORSError("unknown_task", `split ${split} has no task ${index}`);
    return task;
  }

  /** All tasks of a split. Prefer `numTasks` and `getTask`: a split may hold millions.
   * @param {string} environment @param {string} split @returns {Promise<Fields[]>} */
  async listTasks(environment, split) {
    return list(fields(await this.#ask(environment, "tasks", { split })).tasks, "the tasks").map(fields);
  }

  /**
   * Open a session, play, delete it whatever happens.
   * @template T
   * @param {string} environment @param {Task} task
   * @param {(session: Session) => Promise<T>} play
   * @param {SessionOptions} [options] See `openSession`.
   * @returns {Promise<T>} What `play` returned.
   */
  async withSession(environment, task, play, options) {
    const session = await this.openSession(environment, task, options);
    try {
      return await play(session);
    } finally {
      await session.close();
    }
  }

  /**
   * Open a session and wait until it is set up. `close()` it.
   * @param {string} environment Its name, in any case.
   * @param {Task} task `{split, index}` or `{taskSpec}`.
   * @param {SessionOptions} [options] `timeout`: seconds for all of it. `createOptions`, `sessionOptions`:
   *   further fields of the bodies of /create and /create_session.
   * @returns {Promise<Session>}
   */
  async openSession(environment, task, { secrets = {}, createOptions = {}, sessionOptions, timeout = 600 } = {}) {
    const budget = new Budget(timeout);
    const { dialect } = await this.#connect();
    const name = await this.#resolve(environment);
    this.#checkSecrets(dialect, secrets);
    /** @type {Fields} */
    const body = { ...createOptions, env_name: name };
    if ("taskSpec" in task) body.task_spec = task.taskSpec;
    else if (dialect.byIndex) Object.assign(body, { split: task.split, index: task.index });
    else body.task_spec = await this.getTask(name, task.split, task.index);
    /** @type {Record<string, string>} */
    const headers = {};
    const given = Object.keys(secrets).length > 0;
    if (dialect.secrets === "required body" || (dialect.secrets === "body" && given)) body.secrets = secrets;
    if (dialect.secrets === "header" && given) headers["X-Secrets"] = secretsHeader(secrets);
    const redact = redactor(Object.values(secrets));
    const id = await this.#create(dialect, body, headers, sessionOptions, budget, redact);
    const session = new Session(this, id, name, redact, dialect.deleteSession === true);
    try {
      await session.start(budget, dialect);
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /**
   * Start an episode on a fresh id. An id whose /create was not answered is given up, never used again:
   * a second /create could build a second environment.
   * @param {Dialect} dialect @param {Fields} body @param {Record<string, string>} extra
   * @param {Fields | undefined} options @param {Budget} budget @param {(text: string) => string} redact
   */
  async #create(dialect, body, extra, options, budget, redact) {
    for (;;) {
      const id = await this.#sessionId(dialect, options, budget);
      const headers = { "X-Session-ID": id, ...extra };
      const reply = new Reply();
      const outcome = await this.exchange("POST", "/create", headers, body, reply, budget.left);
      if (!outcome.failure && outcome.status === 200) return id;
      this.#abandon(id);
      if (!this.#mayRepeat(outcome, budget) || !(await budget.pause(outcome))) {
        if (outcome.failure) throw failure(outcome, "POST /create");
        const said = `POST /create was answered ${outcome.status}: ${redact(excerpt(reply.body))}`;
        const kinds = { 400: "unknown_task", 404: "unknown_environment", 500: "setup_failed" };
        throw new ORSError(Object(kinds)[outcome.status] ?? statusKind(outcome.status), said, outcome);
      }
    }
  }

  /** @param {Dialect} dialect @param {Fields | undefined} options @param {Budget} budget */
  async #sessionId(dialect, options, budget) {
    if (dialect.createSession === false) return crypto.randomUUID();
    const { outcome, reply } = await this.fetch("POST", "/create_session", {}, options, budget);
    if (outcome.status === 404 || outcome.status === 405) return crypto.randomUUID();
    if (outcome.status !== 200) throw statusError(outcome, reply.body, "POST /create_session");
    const id = reply.taskId || Object(parse(reply.body)).sid;
    if (typeof id !== "string" || !/^[\x21-\x7e]{1,512}$/.test(id)) throw protocol("/create_session named no session id");
    return id;
  }

  /** Delete a session that may exist: now, and once more, since a delete during its constructor is lost.
   * @param {string} id */
  #abandon(id) {
    const remove = () => this.exchange("POST", "/delete", { "X-Session-ID": id }, undefined, new Reply(), 10);
    void remove();
    background(setTimeout(remove, 5000));
  }

  /** @param {Dialect} dialect @param {Record<string, string>} secrets */
  #checkSecrets(dialect, secrets) {
    if (Object.keys(secrets).length === 0) return;
    if (!this.#secure) throw insecure("the secrets");
    if (dialect.secrets === "none") {
      throw new ORSError("invalid_request", "this server has no channel for secrets; they were not sent");
    }
  }

  /** Learn what the server speaks and serves, once. */
  #connect() {
    this.#known ??= this.#learn().catch((error) => {
      this.#known = null;
      throw error;
    });
    return this.#known;
  }

  async #learn() {
    const description = await this.#lasting("GET", "/openapi.json");
    let dialect = description.outcome.status === 200 ? readOpenapi(parse(description.reply.body)) : null;
    if (!dialect) {
      // A /create that must be refused: it creates nothing and carries no secret.
      const id = crypto.randomUUID();
      const probe = await this.#lasting("POST", "/create", { "X-Session-ID": id }, { secrets: {} });
      if (probe.outcome.status === 200) this.#abandon(id);
      dialect = readProbe(probe.outcome.status, parse(probe.reply.body));
    }
    const { outcome, reply } = await this.fetch("GET", "/list_environments");
    if (outcome.status !== 200) throw statusError(outcome, reply.body, "GET /list_environments");
    const environments = list(parse(reply.body), "/list_environments").map(String);
    if (environments.length === 0) throw protocol("the server has no environment");
    return { dialect, environments };
  }

  /** Ask what the server speaks: an answer that passes must not be taken for it.
   * @param {string} method @param {string} path @param {Record<string, string>} [headers] @param {unknown} [body] */
  async #lasting(method, path, headers, body) {
    const { outcome, reply } = await this.fetch(method, path, headers, body);
    if (REPEATABLE.has(outcome.status)) throw statusError(outcome, reply.body, `${method} ${path}`);
    return { outcome, reply };
  }

  /** @param {string} name */
  async #resolve(name) {
    const { environments } = await this.#connect();
    const same = (/** @type {string} */ known) => known.toLowerCase() === name.toLowerCase();
    const found = environments.includes(name) ? name : environments.find(same);
    if (found === undefined) {
      throw new ORSError("unknown_environment", `the server has no environment ${name}; it has ${environments.join(", ")}`);
    }
    return found;
  }

  /** @param {string} environment @param {string} endpoint @param {Fields} [body] @returns {Promise<unknown>} */
  async #ask(environment, endpoint, body) {
    const path = `/${encodeURIComponent(await this.#resolve(environment))}/${endpoint}`;
    const { outcome, reply } = await this.fetch(body ? "POST" : "GET", path, {}, body);
    if (outcome.status === 200) return parse(reply.body);
    const error = statusError(outcome, reply.body, path);
    if (outcome.status === 400) error.kind = "unknown_task";
    throw error;
  }

  /** @param {Outcome} outcome @param {Budget} budget */
  #mayRepeat(outcome, budget) {
    if (!outcome.failure) return REPEATABLE.has(outcome.status);
    return outcome.failure !== "timeout" && (this.#reached || budget.spent < 2);
  }

  /**
   * Send a request that may be sent again, until it is answered.
   * @param {string} method @param {string} path @param {Record<string, string>} [headers]
   * @param {unknown} [body] @param {Budget} [budget]
   */
  async fetch(method, path, headers = {}, body = undefined, budget = new Budget(this.#timeout)) {
    for (;;) {
      const reply = new Reply();
      const outcome = await this.exchange(method, path, headers, body, reply, budget.left);
      if (reply.error) throw reply.error;
      const settled = reply.taskId !== "" || !this.#mayRepeat(outcome, budget);
      if (settled || !(await budget.pause(outcome))) {
        if (outcome.failure && !reply.taskId) throw failure(outcome, `${method} ${path}`);
        return { outcome, reply };
      }
    }
  }

  /**
   * Send a request once.
   * @param {string} method @param {string} path @param {Record<string, string>} headers
   * @param {unknown} body @param {Reply} reply Reads the reply. @param {number} seconds
   * @returns {Promise<Outcome>}
   */
  async exchange(method, path, headers, body, reply, seconds) {
    /** @type {Outcome} */
    const outcome = { status: 0, headers: new Headers(), failure: "", detail: "" };
    const control = new AbortController();
    const giveUp = (/** @type {Outcome["failure"]} */ why) => () => control.abort(why);
    const deadline = setTimeout(giveUp("timeout"), Math.min(Math.max(seconds, 0.001) * 1000, 2 ** 31 - 1));
    let idle = setTimeout(() => {}, 0);
    const listen = () => {
      clearTimeout(idle);
      if (reply.idleSeconds) idle = setTimeout(giveUp("broken"), reply.idleSeconds * 1000);
    };
    try {
      listen();
      const answer = await fetch(this.#url + path, {
        method,
        headers: {
          ...this.#headers,
          ...headers,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          Accept: "text/event-stream, application/json",
          // A fresh connection each time: the loss of an idle one looks like the loss of a reply.
          // Browsers leave these two lines out and decide for themselves.
          Connection: "close",
          "Accept-Encoding": "identity",
        },
        body: body === undefined ? null : JSON.stringify(body),
        redirect: "manual", // nothing of ours may travel to another origin
        credentials: "omit",
        cache: "no-store",
        signal: control.signal,
      });
      this.#reached = true;
      outcome.status = answer.status;
      outcome.headers = answer.headers;
      reply.start(answer.status, answer.headers);
      const reader = answer.body?.getReader();
      for (let size = 0; reader; ) {
        listen();
        const { done, value } = await reader.read();
        if (done) break;
        size += value.length;
        if (size > this.#maxBytes) throw new ORSError("limit", `the reply of ${path} is larger than maxBytes`);
        if (reply.feed(value)) break;
      }
      reply.finish();
    } catch (error) {
      if (error instanceof ORSError) reply.error = error;
      else {
        outcome.failure = control.signal.aborted ? control.signal.reason : neverSent(error) ? "connect" : "broken";
        outcome.detail = String(Object(error).cause?.message ?? Object(error).message ?? error);
        reply.finish();
      }
    } finally {
      clearTimeout(deadline);
      clearTimeout(idle);
      control.abort("timeout"); // ends the connection; nothing is left to read
    }
    return outcome;
  }
}

/** One episode. Made by `ORSClient.openSession`. */
export class Session {
  /** @type {Message[]} The prompt with its roles; one turn of the user's where it has none. */
  messages = [];
  /** @type {Block[]} The same as text and images. */
  prompt = [];
  /** @type {Tool[]} */
  tools = [];
  finished = false;
  #client;
  #redact;
  #handBack;
  #headers;
  #path;
  #closed = false;
  #lost = "";
  #busy = false;
  /** @type {string | null} The call whose outcome is unknown, as far as it has a name. */
  #pending = null;
  #heartbeat;

  /**
   * @param {ORSClient} client @param {string} id @param {string} environment
   * @param {(text: string) => string} redact @param {boolean} handBack Whether the server wants the id back.
   */
  constructor(client, id, environment, redact, handBack) {
    this.id = id;
    this.environment = environment;
    this.#client = client;
    this.#redact = redact;
    this.#handBack = handBack;
    this.#headers = { "X-Session-ID": id };
    this.#path = `/${encodeURIComponent(environment)}`;
    this.#heartbeat = setInterval(() => void this.#ping(), client.pingSeconds * 1000);
    background(this.#heartbeat);
  }

  /** Wait for set-up: the prompt does; the tools are asked for after it, since their list does not wait.
   * @param {Budget} budget @param {Dialect} dialect */
  async start(budget, { messages, taskTools }) {
    // Once, and only one of the two: in some environments the question begins the game.
    this.messages = messages
      ? readMessages(await this.#get("messages", budget))
      : [{ role: "user", blocks: readBlocks(await this.#get("prompt", budget)) }];
    this.prompt = flatten(this.messages);
    this.tools = readTools(await this.#get(taskTools ? "task_tools" : "tools", budget));
  }

  /** @param {string} endpoint @param {Budget} budget @returns {Promise<unknown>} */
  async #get(endpoint, budget) {
    const path = `${this.#path}/${endpoint}`;
    const { outcome, reply } = await this.#client.fetch("GET", path, this.#headers, undefined, budget);
    if (outcome.status === 200) return parse(reply.body);
    this.#noteLoss(outcome, reply);
    const error = statusError(outcome, reply.body, `GET ${path}`, this.#redact);
    if (outcome.status === 500 || outcome.status === 503) error.kind = "setup_failed";
    throw error;
  }

  /**
   * Run a tool, once whatever breaks.
   * @param {string} name The tool's name. @param {Fields} input Its arguments, plain JSON.
   * @param {{timeout?: number}} [options] `timeout`: seconds, asking for a lost result included.
   * @returns {Promise<ToolOutput | ToolError>} What the tool gave; `ok: false` if the server refused the
   *   call or the tool raised.
   */
  async callTool(name, input, { timeout = 600 } = {}) {
    this.#checkOpen();
    if (this.finished) return refused("the episode is finished; open a new session", "episode_finished");
    if (this.#pending !== null) {
      throw new ORSError("invalid_request", "the outcome of an earlier call is unknown; resume it or open a new session");
    }
    return this.#exclusively(async () => {
      const budget = new Budget(timeout);
      this.#pending = "";
      let reply = await this.#send({ name, input }, budget);
      if (!reply.decided) {
        this.#pending = reply.taskId;
        reply = await this.#resume(reply.taskId, budget);
      }
      const result = this.#read(reply);
      this.#pending = null;
      return result;
    });
  }

  /**
   * Wait longer for a call whose result did not come.
   * @param {string} taskId The `taskId` of its error. @param {{timeout?: number}} [options]
   * @returns {Promise<ToolOutput | ToolError>}
   */
  async resumeCall(taskId, { timeout = 600 } = {}) {
    this.#checkOpen();
    if (!taskId) throw new ORSError("invalid_request", "a call without a task_id cannot be resumed");
    return this.#exclusively(async () => {
      const result = this.#read(await this.#resume(taskId, new Budget(timeout)));
      if (this.#pending === taskId) this.#pending = null;
      return result;
    });
  }

  /** Delete the session, once. Says nothing if the server is gone: it forgets the session by itself. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#heartbeat);
    const paths = this.#handBack ? ["/delete", "/delete_session"] : ["/delete"];
    for (const path of paths) {
      await this.#client.fetch("POST", path, this.#headers, undefined, new Budget(10)).catch(() => null);
    }
  }

  /** @template T @param {() => Promise<T>} call @returns {Promise<T>} */
  async #exclusively(call) {
    if (this.#busy) throw new ORSError("invalid_request", "a call is under way; one at a time in a session");
    this.#busy = true;
    try {
      return await call();
    } finally {
      this.#busy = false;
    }
  }

  /** Send a call until it was received once, and never again. @param {Fields} body @param {Budget} budget */
  async #send(body, budget) {
    const path = `${this.#path}/call`;
    for (;;) {
      const reply = new Reply();
      const outcome = await this.#client.exchange("POST", path, this.#headers, body, reply, budget.left);
      if (reply.taskId || reply.decided) return reply;
      const starting = outcome.status === 503 && outcome.headers.get("x-backend-state")?.toLowerCase() === "starting";
      const neverRan = outcome.failure === "connect" || starting || (outcome.status === 429 && this.#client.repeatCallsAfter429);
      if (neverRan && (await budget.pause(outcome))) {
        this.#checkOpen();
        continue;
      }
      if (neverRan || (!outcome.failure && NOT_RUN.has(outcome.status))) {
        this.#pending = null;
        if (outcome.failure) throw failure(outcome, path);
        throw statusError(outcome, reply.body, path, this.#redact);
      }
      this.#noteLoss(outcome, reply);
      if (outcome.failure === "timeout") throw new ORSError("timeout", `${path}: no answer in time; the tool may still run`);
      const what = outcome.failure ? outcome.detail : `${outcome.status} ${this.#redact(excerpt(reply.body))}`;
      throw new ORSError("ambiguous_call", `${path}: the tool may have run and its result is lost (${what})`, outcome);
    }
  }

  /** Ask for the result of a call by its name. @param {string} taskId @param {Budget} budget */
  async #resume(taskId, budget) {
    const path = `${this.#path}/call`;
    const body = { name: "", input: {}, task_id: taskId };
    const lost = (/** @type {string} */ why) => new ORSError("ambiguous_call", `the result of call ${taskId} is lost: ${why}`, { taskId });
    let obstacle = "";
    do {
      const reply = new Reply();
      reply.idleSeconds = HEARTBEATS_MISSED;
      const outcome = await this.#client.exchange("POST", path, this.#headers, body, reply, budget.left);
      if (reply.failed === "unknown task_id" && !reply.taskId) throw lost("the server no longer has it");
      if (reply.decided) return reply;
      obstacle = "";
      if (outcome.failure === "connect") obstacle = outcome.detail;
      else if (!outcome.failure && outcome.status !== 200) {
        this.#noteLoss(outcome, reply);
        obstacle = `${outcome.status} ${this.#redact(excerpt(reply.body))}`;
        if (![401, 429].includes(outcome.status) && outcome.status < 500) throw lost(obstacle);
      }
      if (!(await budget.pause(outcome))) break;
    } while (budget.left > 0);
    if (obstacle) throw lost(obstacle);
    throw new ORSError("timeout", `the result of call ${taskId} did not come in time; resumeCall waits longer`, { taskId });
  }

  /** @param {Reply} reply @returns {ToolOutput | ToolError} */
  #read(reply) {
    if (reply.error) throw reply.error; // it may have ended the episode: the session takes no further call
    if (reply.failed !== null) {
      return { ok: false, kind: "tool_failed", error: this.#redact(reply.failed), reason: "" };
    }
    const value = fields(parse(reply.result ?? ""));
    if (value.ok === false) {
      const reason = typeof value.reason === "string" ? value.reason : "";
      this.finished ||= reason === "episode_finished";
      return refused(this.#redact(String(value.error ?? "the server gave no reason")), reason);
    }
    if (value.ok !== true) throw protocol("the result does not say whether it is ok");
    const output = readOutput(value.output);
    this.finished ||= output.finished;
    return output;
  }

  async #ping() {
    const reply = new Reply();
    const outcome = await this.#client.exchange("POST", "/ping", this.#headers, undefined, reply, 10);
    if (!outcome.failure && (outcome.status === 404 || outcome.status === 410)) this.#lost ||= "a ping was answered 404";
    if (this.#lost) clearInterval(this.#heartbeat);
  }

  #checkOpen() {
    if (this.#closed) throw new ORSError("session_closed", "the session was closed; open a new one");
    if (this.#lost) throw new ORSError("session_lost", `the session is lost (${this.#lost}); open a new one`);
  }

  /** @param {Outcome} outcome @param {Reply} reply */
  #noteLoss(outcome, reply) {
    const gone = outcome.status === 404 && reply.body.includes("Active environment not found");
    if (outcome.failure || !(gone || outcome.status === 410)) return;
    this.#lost = `the server answered ${outcome.status}`;
    throw new ORSError("session_lost", `session ${this.id} is lost: the server answered ${outcome.status}`, outcome);
  }
}

/** @param {unknown} document @returns {Dialect | null} */
function readOpenapi(document) {
  const { paths, components } = Object(document);
  const known = new Set(Object.keys(Object(paths)).map((path) => path.replace(/\{[^}]*\}/g, "{}")));
  if (!known.has("/create") || !known.has("/{}/call")) return null;
  const declared = Object(Object(paths)["/create"]?.post?.requestBody?.content?.["application/json"]?.schema);
  const name = String(declared.$ref ?? "CreateSession").split("/").pop() ?? "";
  const schema = declared.properties ? declared : Object(components?.schemas?.[name]);
  const properties = Object.keys(Object(schema.properties));
  const createSession = known.has("/create_session");
  /** @type {SecretsChannel} */
  let secrets = createSession ? "header" : "none";
  if (properties.includes("secrets")) secrets = schema.required?.includes("secrets") ? "required body" : "body";
  return {
    secrets,
    createSession,
    byIndex: properties.includes("split") && properties.includes("index"),
    numTasks: known.has("/{}/num_tasks") && known.has("/{}/task"),
    taskTools: known.has("/{}/task_tools"),
    messages: known.has("/{}/messages"),
    deleteSession: known.has("/delete_session"),
  };
}

/** @param {number} status @param {unknown} document @returns {Dialect} */
function readProbe(status, document) {
  const detail = Object(document).detail;
  if (status !== 422 || !Array.isArray(detail)) return { secrets: "required body" };
  const place = (/** @type {unknown} */ error) => String(Object(error).loc);
  const forbidden = detail.some((error) => place(error) === "body,secrets" && error.type === "extra_forbidden");
  if (!forbidden) return { secrets: "required body" };
  return { secrets: detail.some((error) => place(error) === "body,env_name") ? "none" : "header" };
}

/** @param {unknown} value @returns {ToolOutput} */
function readOutput(value) {
  const { blocks, metadata = null, reward = null, finished } = fields(value);
  if (typeof finished !== "boolean") throw protocol("'finished' is not true or false");
  if (reward !== null && (typeof reward !== "number" || !Number.isFinite(reward))) throw protocol("the reward is no number");
  return { ok: true, blocks: readBlocks(blocks), metadata: metadata === null ? null : fields(metadata), reward, finished };
}

/** @param {unknown} value @returns {Block[]} A kind of block that is not known is kept as it came. */
function readBlocks(value) {
  return list(value, "the blocks").map((item) => {
    const block = fields(item);
    const wanted = { text: ["text"], image: ["data", "mimeType"] };
    for (const name of ["type", ...(Object(wanted)[String(block.type)] ?? [])]) {
      if (typeof block[name] !== "string") throw protocol(`a block has no ${name}`);
    }
    return /** @type {Block} */ (/** @type {unknown} */ (block));
  });
}

/** @param {unknown} value @returns {Message[]} */
function readMessages(value) {
  return list(value, "/messages").map((item) => {
    const message = fields(item);
    const { role } = message;
    if (typeof role !== "string") throw protocol("a message has no role");
    return { ...message, role, blocks: readBlocks(message.blocks) };
  });
}

const FLATTENED = new Set(["reasoning", "tool_call", "tool_result"]);

/** A conversation as blocks, as `/prompt` gives it: each message begins with its role.
 * @param {Message[]} messages @returns {Block[]} */
function flatten(messages) {
  const [first] = messages;
  const plain = messages.length === 1 && first.role === "user" && !first.blocks.some((block) => FLATTENED.has(block.type));
  if (plain) return first.blocks;
  return messages.flatMap(({ role, blocks }) => [
    { type: "text", text: `[${role}]`, detail: { role } },
    ...blocks.flatMap(flattenBlock),
  ]);
}

/** @param {Block} block @returns {Block[]} */
function flattenBlock(block) {
  if (!FLATTENED.has(block.type)) return [block];
  const { type, text, id, name, input, tool_call_id, is_error, blocks } = /** @type {any} */ (block);
  if (type === "reasoning") return [{ type: "text", text: `<think>${text ?? ""}</think>`, detail: { type } }];
  if (type === "tool_call") {
    return [{ type: "text", text: `[tool_call ${name ?? ""}] ${JSON.stringify(input ?? {})}`, detail: { type, id } }];
  }
  const said = is_error ? "[tool_result (error)]" : "[tool_result]";
  return [{ type: "text", text: said, detail: { type, tool_call_id } }, ...(Array.isArray(blocks) ? blocks : [])];
}

/** Read a listing; the terminal tool, which servers name beside it, is the last.
 * @param {unknown} value @returns {Tool[]} */
function readTools(value) {
  const { tools, terminal_tool: declared } = fields(value);
  const listed = list(tools, "the tools").map(readTool);
  if (!declared) return listed;
  const { arg } = fields(declared);
  if (arg != null && typeof arg !== "string") throw protocol("the terminal tool's argument has no name");
  const input_schema =
    arg == null ? null : { type: "object", properties: { [arg]: { type: "string" } }, required: [arg] };
  const terminal = { ...readTool(declared), input_schema, terminal: true };
  return [...listed.filter((tool) => tool.name !== terminal.name), terminal];
}

/** @param {unknown} value @returns {Tool} */
function readTool(value) {
  const { name, description, input_schema } = fields(value);
  if (typeof name !== "string") throw protocol("a tool has no name");
  const text = typeof description === "string" ? description : "";
  return { name, description: text, input_schema: input_schema == null ? null : fields(input_schema) };
}

/** @param {unknown} value @returns {Fields} */
function fields(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw protocol("not an object");
  return /** @type {Fields} */ (value);
}

/** @param {unknown} value @param {string} what @returns {unknown[]} */
function list(value, what) {
  if (!Array.isArray(value)) throw protocol(`${what} are not a list`);
  return value;
}

/** @param {string} text @returns {unknown} undefined if it is not JSON. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Where and why, from an error's body; not its `input`, which repeats what was sent.
 * @param {string} body */
function excerpt(body) {
  const detail = Object(parse(body)).detail ?? body;
  const say = (/** @type {unknown} */ item) => `${Object(item).loc}: ${Object(item).msg}`;
  return (Array.isArray(detail) ? detail.map(say).join("; ") : String(detail)).slice(0, 500);
}

/** @param {string[]} secrets @returns {(text: string) => string} */
function redactor(secrets) {
  const shown = secrets.filter((secret) => secret !== "").sort((a, b) => b.length - a.length);
  return (text) => shown.reduce((rest, secret) => rest.replaceAll(secret, "[secret]"), text);
}

/** @param {Record<string, string>} secrets Standard base64 of UTF-8. */
function secretsHeader(secrets) {
  const named = Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, { value }]));
  return btoa(Array.from(new TextEncoder().encode(JSON.stringify(named)), (byte) => String.fromCharCode(byte)).join(""));
}

/** @param {unknown} error Whether Node says that not a byte was sent; browsers do not say. */
function neverSent(error) {
  const cause = Object(Object(error).cause);
  return NEVER_SENT.has(cause.code) || cause.errors?.some((/** @type {any} */ inner) => NEVER_SENT.has(inner.code)) === true;
}

/** @param {number} status */
function statusKind(status) {
  if (status === 401 || status === 403) return "authentication";
  return status >= 500 || status === 429 ? "server" : status >= 400 ? "invalid_request" : "protocol";
}

/** @param {Outcome} outcome @param {string} body @param {string} request @param {(text: string) => string} [redact] */
function statusError(outcome, body, request, redact = (text) => text) {
  const said = `${request} was answered ${outcome.status}: ${redact(excerpt(body))}`;
  return new ORSError(statusKind(outcome.status), said, outcome);
}

/** @param {Outcome} outcome @param {string} request */
function failure(outcome, request) {
  return new ORSError("connection", `${request} failed: ${outcome.detail || outcome.failure}`);
}

/** @param {string} message */
function protocol(message) {
  return new ORSError("protocol", `${message}. Is this the address of an ORS server?`);
}

/** @param {string} what */
function insecure(what) {
  return new ORSError("insecure_transport", `${what} would travel in the clear; use https, or allowInsecure in a network that you trust`);
}

/** @param {string} error @param {string} reason @returns {ToolError} */
function refused(error, reason) {
  return { ok: false, kind: "invalid_action", error, reason };
}

/** Do not keep a Node process alive for a timer. @param {unknown} timer */
function background(timer) {
  Object(timer).unref?.();
}
