// An assistant in one room, as whereby-trigger starts it: trigger.assistant_command(["node", "assistant.mjs"]).
//
// Its room comes as JSON on stdin and in WHEREBY_ROOM_URL; ASSISTANT_KEY is the key from Whereby's dashboard.
// Its exit code is its answer: 0, it has left the room; 75, another try makes sense; anything else, a failure.
// TERM asks it to leave.
//
// Written to the documented API of Whereby's Assistant SDK (npm install @whereby.com/assistant-sdk), and tested
// against a stub of that module: no test of this project has been in a real room.

import { text } from "node:stream/consumers";

import "@whereby.com/assistant-sdk/polyfills";
import { ASSISTANT_LEFT_ROOM, Assistant } from "@whereby.com/assistant-sdk";

const LEFT = 0;
const FAILED = 1;
const TRY_AGAIN = 75;

// What may be otherwise in a moment. All other codes, such as invalid_assistant_key, stay as they are.
const PASSING = ["room_empty", "room_full", "room_concurrency_control_error", "internal_server_error"];

// A join that is never answered must not pass for an assistant; leaving must be over before stop_grace (10 s) is.
const JOIN_WITHIN = 60_000;
const LEAVE_WITHIN = 3_000;

let assistant = null;
let joined = false;

// The SDK's connections keep Node.js running, so that nothing here ends by itself.
function end(code, why) {
  if (code !== LEFT) {
    console.error(why);
  }
  process.exit(code);
}

function leave() {
  if (!joined) {
    end(LEFT);
  }
  setTimeout(end, LEAVE_WITHIN, LEFT);
  assistant.getRoomConnection().leaveRoom();
}

async function ownRoom() {
  const input = await text(process.stdin);
  return input.trim() ? JSON.parse(input).roomUrl : process.env.WHEREBY_ROOM_URL;
}

process.once("SIGTERM", leave);

if (!process.env.ASSISTANT_KEY) {
  end(FAILED, "ASSISTANT_KEY is not set: create an assistant in Whereby's dashboard, and set it to its key");
}

const roomUrl = await ownRoom();
assistant = new Assistant({ assistantKey: process.env.ASSISTANT_KEY });
assistant.on(ASSISTANT_LEFT_ROOM, () => end(LEFT));

const unanswered = setTimeout(end, JOIN_WITHIN, TRY_AGAIN, "the join was not answered");
try {
  await assistant.joinRoom(roomUrl);
} catch (error) {
  const code = error instanceof Error ? error.message : String(error);
  end(PASSING.includes(code) ? TRY_AGAIN : FAILED, `not let into the room: ${code}`);
}
clearTimeout(unanswered);
joined = true;
// The SDK says ASSISTANT_LEFT_ROOM after a leave or a removal, but not when the connection is lost.
assistant.getRoomConnection().subscribeToConnectionStatus((status) => {
  if (status === "disconnected") {
    end(TRY_AGAIN, "the connection to the room was lost");
  }
});

// What your assistant does in the room begins here.
assistant.getRoomConnection().sendChatMessage("Hello, the assistant is here.");
