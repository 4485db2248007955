// The peer: what a trigger does at the least. It parses a webhook, asks a predicate and emits an event, and neither
// verifies nor stores anything. Arguments: where to write at the end what the listener noted; "times" for all of it.

import { EventEmitter } from "node:events";
import { writeFileSync } from "node:fs";
import bodyParser from "body-parser";
import express from "express";

const SUCCESS = "trigger_event_success";
const BOTS = new Set(["recorder", "streamer", "captioner", "assistant"]);

const [notes, mode] = process.argv.slice(2);
const predicates = { "room.client.joined": async (webhook) => !BOTS.has(webhook.data.roleName) };
const emitter = new EventEmitter();
const times = mode === "times" ? {} : null;
let heard = 0;

emitter.on(SUCCESS, ({ triggerWebhook }) => {
    heard += 1;
    if (times) times[triggerWebhook.id] = Number(process.hrtime.bigint());
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
    writeFileSync(notes, JSON.stringify(times ? { heard, times } : { heard }));
    process.exit(0);
});
