// Play the scenarios of a file side by side: node run.mjs <file>. One line of JSON for each on stdout, as it ends.
import { clientOf, newUser, scenarios } from "./harness.mjs";

const SECONDS = 60;

function tell(result) {
  process.stdout.write(`RESULT ${JSON.stringify(result)}\n`);
}

process.on("unhandledRejection", (error) => tell({ name: "unhandled", error: shown(error) }));

function shown(error) {
  const causes = error?.cause ? `\ncaused by ${shown(error.cause)}` : "";
  return `${error?.stack ?? JSON.stringify(error)}${error?.status ? `\nstatus ${error.status}` : ""}${causes}`;
}

async function play(name, scenario) {
  const ends = [];
  const started = Date.now();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${SECONDS} s`)), SECONDS * 1000);
  });
  try {
    await Promise.race([scenario({ user, client: clientOf(user), atEnd: (end) => ends.push(end) }), late]);
    tell({ name, error: null, seconds: (Date.now() - started) / 1000 });
  } catch (error) {
    tell({ name, error: shown(error) });
  } finally {
    clearTimeout(timer);
    for (const end of ends) await end();
  }
}

await import(new URL(process.argv[2], import.meta.url));
const user = await newUser(); // one for all: two passwords' hashes would be most of what a scenario costs
// A few at a time: what is tested is the wire, not how much the machine bears.
const waiting = [...scenarios];
async function work() {
  for (let next = waiting.shift(); next; next = waiting.shift()) await play(...next);
}
await Promise.all(Array.from({ length: 4 }, work));
process.exit(0);
