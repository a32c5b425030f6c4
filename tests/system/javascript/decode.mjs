// Decodes event streams: a list of {"pieces": [base64, ...]} on standard input, one list of events each out.
import { EventDecoder } from "../../../docs/clients/ors.mjs";

let text = "";
for await (const piece of process.stdin) text += piece;
const decoded = JSON.parse(text).map(({ pieces }) => {
  const decoder = new EventDecoder();
  const events = [];
  try {
    for (const piece of pieces) events.push(...decoder.feed(Buffer.from(piece, "base64")));
    events.push(...decoder.finish());
  } catch (error) {
    return error.kind;
  }
  return events.map(({ event, data }) => [event, data]);
});
process.stdout.write(JSON.stringify(decoded));
