// An assistant for tests: it holds a FIFO open for as long as it runs, and takes half a second to leave when told.
import { openSync, writeSync } from "node:fs";

const [fifo, name] = process.argv.slice(2);
const presence = openSync(fifo, "w");
const say = (text) => writeSync(presence, `${name} ${text}\n`);

process.on("SIGTERM", () => {
    say("was told to leave");
    setTimeout(() => {
        say("has left");
        process.exit(0);
    }, 500);
});

let input = "";
for await (const chunk of process.stdin) input += chunk;
say(`here ${process.pid} ${process.ppid} ${input.trim()}`);
setInterval(() => say(`ticks ${Date.now()}`), 20);
