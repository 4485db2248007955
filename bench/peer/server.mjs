// The peer: what a trigger does at the least. It parses a webhook, asks a predicate and emits an event, and neither
// verifies nor stores anything. Arguments: the file in which the listener's calls are noted; "times" for when each came.

import { EventEmitter } from "node:events";
import { closeSync, openSync, writeSync } from "node:fs";
import bodyParser from "body-parser";
import express from "express";

const SUCCESS = "trigger_event_success";
const BOTS = new Set(["recorder", "streamer", "captioner", "assistant"]);

const [notes, mode] = process.argv.slice(2);
const predicates = { "room.client.joined": async (webhook) => !BOTS.has(webhook.data.roleName) };
const emitter = new EventEmitter();
const notebook = openSync(notes, "w");
const NOTED_AT_ONCE = 500;
let lines = [];
let heard = 0;

function write() {
    writeSync(notebook, lines.join(""));
    lines = [];
}

emitter.on(SUCCESS, ({ triggerWebhook }) => {
    heard += 1;
    if (mode === "times" && lines.push(`${triggerWebhook.id} ${process.hrtime.bigint()}\n`) === NOTED_AT_ONCE) write();
});

const app = express();
app.post("/", bodyParser.json(), async (request, response) => {
    const webhook = request.body;
    if (await predicates[webhook.type]?.(webhook)) {
        const roomUrl = `https://${webhook.data.subdomain}.whereby.com${webhook.data.roomName}`;
        emitter.emit(SUCCESS, { roomUrl, triggerWebhook: webhook });
    }
    response.status(200).end();
});

const server = app.listen(0, "127.0.0.1", () => {
    console.error(`http://127.0.0.1:${server.address().port}/`);
});

process.on("SIGTERM", () => {
    lines.push(`heard ${heard}\n`);
    write();
    closeSync(notebook);
    process.exit(0);
});
