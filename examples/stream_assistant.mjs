// An assistant in one room that hears what happens there: trigger.assistant_command(["node", "stream_assistant.mjs"],
// stdin="stream").
//
// The first line on its stdin names the room. Each line after it is an event of the room; the end of file asks it to
// leave. It comes when the session ends, when somebody stops the assistant, and when the trigger dies.
// Its exit code is its answer: 0, it has left the room; 75, another try makes sense; anything else, a failure.
//
// Written to the documented API of Whereby's Assistant SDK (npm install @whereby.com/assistant-sdk), and tested
// against a stub of that module: no test of this project has been in a real room.

import { createInterface } from "node:readline";

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

async function join(roomUrl) {
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
  end(FAILED, "ASSISTANT_KEY is not set: create an assistant in Whereby's dashboard, and set it to its key");
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
