// The careful peer: what a careful developer writes with Express for the promises that whereby-trigger keeps. It checks
// the signature on the raw body, stores each webhook once with a sync to disk before it answers, asks the predicate,
// emits the event, and records the decision. Arguments: the database's file, the file in which the listener's calls are
// noted, and "times" to note when each came.

import { createHmac, timingSafeEqual } from "node:crypto";
import { EventEmitter } from "node:events";
import { closeSync, openSync, writeSync } from "node:fs";
import Database from "better-sqlite3";
import express from "express";

const SUCCESS = "trigger_event_success";
const BOTS = new Set(["recorder", "streamer", "captioner", "assistant"]);
const SECRET = process.env.WEBHOOK_SECRET;
const TOLERANCE = 3600;
const NOTED_AT_ONCE = 500;

const [file, notes, mode] = process.argv.slice(2);
const predicates = { "room.client.joined": async (webhook) => !BOTS.has(webhook.data.roleName) };
const emitter = new EventEmitter();
const notebook = openSync(notes, "w");
let lines = [];
let heard = 0;

const database = new Database(file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec(`CREATE TABLE webhooks (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, body BLOB NOT NULL, received_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', reason TEXT NOT NULL DEFAULT '', decided_at REAL
)`);
const insert = database.prepare(
    "INSERT INTO webhooks (id, type, body, received_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
);
const decide = database.prepare("UPDATE webhooks SET state = ?, reason = ?, decided_at = ? WHERE id = ?");

function write() {
    writeSync(notebook, lines.join(""));
    lines = [];
}

emitter.on(SUCCESS, ({ triggerWebhook }) => {
    heard += 1;
    if (mode === "times" && lines.push(`${triggerWebhook.id} ${process.hrtime.bigint()}\n`) === NOTED_AT_ONCE) write();
});

function isAuthentic(header, body) {
    const parts = Object.fromEntries((header ?? "").split(",").map((part) => part.split("=")));
    if (Math.abs(Date.now() / 1000 - Number(parts.t)) > TOLERANCE) return false;
    const expected = createHmac("sha256", SECRET).update(`${parts.t}.`).update(body).digest();
    const given = Buffer.from(parts.v1 ?? "", "hex");
    return given.length === expected.length && timingSafeEqual(given, expected);
}

async function handle(webhook) {
    const fired = (await predicates[webhook.type]?.(webhook)) === true;
    if (fired) {
        const roomUrl = `https://${webhook.data.subdomain}.whereby.com${webhook.data.roomName}`;
        emitter.emit(SUCCESS, { roomUrl, triggerWebhook: webhook });
    }
    decide.run(fired ? "fired" : "skipped", `the predicate returned ${fired}`, Date.now() / 1000, webhook.id);
}

const app = express();
app.post("/", express.raw({ type: () => true }), (request, response) => {
    if (!isAuthentic(request.get("whereby-signature"), request.body)) return response.status(401).end();
    const webhook = JSON.parse(request.body.toString("utf8"));
    const stored = insert.run(webhook.id, webhook.type, request.body, Date.now() / 1000);
    response.status(200).end();
    if (stored.changes === 1) setImmediate(handle, webhook);
});

const server = app.listen(0, "127.0.0.1", () => {
    console.error(`http://127.0.0.1:${server.address().port}/`);
});

process.on("SIGTERM", () => {
    lines.push(`heard ${heard}\n`);
    write();
    closeSync(notebook);
    database.close();
    process.exit(0);
});
