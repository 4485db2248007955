// An assistant in one room that hears what happens there: trigger.assistant_command(["node", "stream_assistant.mjs"],
// stdin="stream").
//
// The first line on its stdin names the room. Each line after it is an event of the room; the end of file asks it to
// leave. It comes when the session ends, when somebody stops the assistant, and when the trigger dies.
// Its exit code is its answer: 0, it has left the room; 75, another try makes sense; 69, no other try makes sense;
// anything else, a failure.
//
// Written to the documented API of Whereby's Assistant SDK (npm install @whereby.com/assistant-sdk), and tested
// against a stub of that module: no test of this project has been in a real room.

import { createInterface } from "node:readline";

import "@whereby.com/assistant-sdk/polyfills";
import { ASSISTANT_LEFT_ROOM, Assistant } from "@whereby.com/assistant-sdk";

// The SDK listens to events of a browser's window in rooms with a media server, since 1.2.99. Its polyfills for Node.js
// make a window that has none, up to 1.2.104 at least, and the join would never be answered.
if (globalThis.window) {
  globalThis.window.addEventListener ??= () => {};
  globalThis.window.removeEventListener ??= () => {};
}

const LEFT = 0;
const FAILED = 1;
const NEVER_AGAIN = 69;
const TRY_AGAIN = 75;

// The SDK rejects a join with one of these strings. What is true of the room now may be otherwise in a moment; what is
// true of the key, the account or the room's URL stays as it is. A code that is in neither list is a failure.
const PASSING = [
  "host_presence_controls_error",
  "internal_server_error",
  "max_viewer_limit_reached",
  "room_concurrency_control_error",
  "room_empty",
  "room_full",
  "room_locked",
  "unique_role_already_in_room",
];
const FINAL = [
  "free_tier_exhausted",
  "invalid_assistant_key",
  "invalid_key",
  "invalid_room_name",
  "organization_assistant_not_enabled",
  "organization_assistant_not_found",
  "room_join_permission_denied",
  "room_meeting_time_exhausted",
  "room_unclaimed",
];

// A join that is never answered must not pass for an assistant; leaving must be over before stop_grace (10 s) is.
const JOIN_WITHIN = 60_000;
const LEAVE_WITHIN = 3_000;

let assistant = null;
let joined = false;
let leaving = false;

// The SDK's connections keep Node.js running, so nothing here ends on its own.
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
  if (!leaving) {
    leaving = true;
    setTimeout(end, LEAVE_WITHIN, LEFT);
    assistant.getRoomConnection().leaveRoom();
  }
}

function exitCode(refusal) {
  if (PASSING.includes(refusal)) {
    return TRY_AGAIN;
  }
  return FINAL.includes(refusal) ? NEVER_AGAIN : FAILED;
}

async function join(roomUrl) {
  assistant = new Assistant({ assistantKey: process.env.ASSISTANT_KEY });
  assistant.on(ASSISTANT_LEFT_ROOM, () => end(LEFT));
  const unanswered = setTimeout(end, JOIN_WITHIN, TRY_AGAIN, "the join was not answered");
  try {
    await assistant.joinRoom(roomUrl);
  } catch (error) {
    const code = error instanceof Error ? error.message : String(error);
    end(exitCode(code), `not let into the room: ${code}`);
  }
  clearTimeout(unanswered);
  joined = true;
  // The SDK says ASSISTANT_LEFT_ROOM after a leave or a removal, but not when the connection is lost.
  assistant.getRoomConnection().subscribeToConnectionStatus((status) => {
    if (status === "disconnected") {
      end(leaving ? LEFT : TRY_AGAIN, "the connection to the room was lost");
    }
  });
}

// What your assistant does when something happens in its room begins here.
function hear(event) {
  switch (event.event) {
    case "webhook":
      if (event.webhook.type === "room.client.knocked") {
        assistant.getRoomConnection().sendChatMessage("Somebody is at the door.");
      }
      break;
    case "presence":
      if (event.humans === 0) {
        leave();
      }
      break;
  }
}

// The end of file says the same as TERM, also if the trigger is killed.
process.on("SIGTERM", leave);

if (!process.env.ASSISTANT_KEY) {
  end(NEVER_AGAIN, "ASSISTANT_KEY is not set: create an assistant in Whereby's dashboard, and set it to its key");
}

// Lines that come during the join are kept until it is over; the end of file is heard meanwhile, too.
let ready = null;
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const said = JSON.parse(line);
    if (ready === null) {
      ready = join(said.roomUrl);
    } else {
      ready.then(() => hear(said));
    }
  })
  .on("close", leave);
