/* Talk to the page that holds this one in a frame, where the service's operator named its origin.

   The protocol is in docs/viewer.md. Whoever else sends a message is not heard. */

const PREFIX = "dermhybrid:";
const PROTOCOL_VERSION = 1;
const MAX_ID_LENGTH = 200;

/** The page around this one. */
export class Embedder {
  #origin = null;

  /**
   * @param {string[]} origins that are heard
   * @param {{open: (image: Blob, known: {name: string, messageId: string}) => void, clear: () => void}} receiver
   */
  constructor(origins, receiver) {
    if (window.parent === window) return;
    window.addEventListener("message", (event) => {
      if (event.source !== window.parent || !origins.includes(event.origin)) return;
      this.#origin = event.origin;
      this.#hear(event.data, receiver);
    });
    // The browser delivers to the one that is there; nothing about an image is in it.
    for (const origin of origins) {
      window.parent.postMessage({ type: `${PREFIX}ready`, version: PROTOCOL_VERSION }, origin);
    }
  }

  /** Tell what became of an image that came by a message. */
  tell(type, content) {
    if (this.#origin === null) return;
    window.parent.postMessage({ type: PREFIX + type, ...content }, this.#origin);
  }

  #hear(message, receiver) {
    const type = message?.type;
    if (type === `${PREFIX}clear`) {
      receiver.clear();
    } else if (type === `${PREFIX}open`) {
      const { id, image, name } = message;
      if (typeof id === "string" && id.length <= MAX_ID_LENGTH && image instanceof Blob) {
        receiver.open(image, { name: typeof name === "string" ? name : "", messageId: id });
      } else {
        this.tell("problem", {
          id: typeof id === "string" ? id : null,
          problem: { status: 0, type: "message", detail: "Expected an id of text and an image that is a Blob." },
        });
      }
    }
  }
}
