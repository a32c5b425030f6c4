// Plays what it is told with docs/clients/ors.mjs and prints what came as one line of JSON:
//     node play.mjs '{"url": ..., "environment": ..., "task": {...}, "calls": [[tool, input], ...]}'
import { ORSClient, ORSError } from "../../../docs/clients/ors.mjs";

const told = JSON.parse(process.argv[2]);

async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof ORSError)) throw error;
    return { raised: error.kind, message: error.message, status: error.status, taskId: error.taskId };
  }
}

async function offer(client, environment) {
  const splits = await client.listSplits(environment);
  const split = splits[0].name;
  return {
    environments: await client.listEnvironments(),
    tools: await client.listTools(environment),
    splits,
    count: await client.numTasks(environment, split),
    task: await client.getTask(environment, split, 2),
  };
}

async function play(session) {
  const results = [];
  for (const [tool, input] of told.calls ?? []) {
    let result = await attempt(() => session.callTool(tool, input, { timeout: told.timeout ?? 20 }));
    if (told.resume && result.taskId) result = await attempt(() => session.resumeCall(result.taskId));
    results.push(result);
  }
  const { messages, prompt, tools, finished } = session;
  return { messages, prompt, tools, finished, results };
}

const client = new ORSClient(told.url, told.client);
const offered = told.offer ? await attempt(() => offer(client, told.environment)) : null;
const options = { secrets: told.secrets ?? {}, timeout: told.setup ?? 20 };
const episode = told.task
  ? await attempt(() => client.withSession(told.environment, told.task, play, options))
  : null;
process.stdout.write(`${JSON.stringify({ offered, episode })}\n`);
