// A stub of the module @whereby.com/assistant-sdk: as much of its documented API as examples/assistant.mjs uses.
//
// The test is the room. The stub tells it what the assistant does, a JSON object a line, and does what it answers:
// {"joined": true}, {"refused": CODE}, {"left": true} or {"status": STATUS}.

import { EventEmitter } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";

export const ASSISTANT_LEFT_ROOM = "ASSISTANT_LEFT_ROOM";

export class Assistant extends EventEmitter {
  #key;
  #room;
  #roomUrl;
  #toldStatus = [];

  constructor({ assistantKey }) {
    super();
    this.#key = assistantKey;
  }

  joinRoom(roomUrl) {
    this.#roomUrl = roomUrl;
    this.#room = connect(Number(process.env.STUB_PORT), "127.0.0.1");
    const variables = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("WHEREBY")));
    // As the SDK does in a room with a media server, of the window that its polyfills make.
    window.addEventListener("offline", () => {});
    this.#tell({ join: roomUrl, key: this.#key, variables });
    return new Promise((resolve, reject) => {
      createInterface({ input: this.#room }).on("line", (line) => {
        const { joined, refused, left, status } = JSON.parse(line);
        if (joined) {
          resolve({ roomUrl });
        } else if (refused) {
          reject(refused);
        } else if (left) {
          this.emit(ASSISTANT_LEFT_ROOM, { roomUrl: this.#roomUrl });
        } else if (status) {
          this.#toldStatus.forEach((told) => told(status));
        }
      });
    });
  }

  getRoomConnection() {
    return {
      sendChatMessage: (message) => this.#tell({ says: message }),
      leaveRoom: () => this.#tell({ leave: true }),
      subscribeToConnectionStatus: (told) => this.#toldStatus.push(told),
    };
  }

  #tell(what) {
    this.#room.write(`${JSON.stringify(what)}\n`);
  }
}
