/** Server-sent events over fetch, which gives access to the status, the headers and the time of each failure. */
import { problemOf } from "./api";

export interface Message {
  id: string | null;
  event: string;
  data: string;
}

/** Splits a stream of text into messages (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export class Cutter {
  #rest = "";
  #id: string | null = null;

  *feed(text: string): Generator<Message> {
    this.#rest += text;
    let end: number;
    while ((end = this.#rest.indexOf("\n\n")) >= 0) {
      const block = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + 2);
      let event = "message";
      const data: string[] = [];
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon === 0 || line === "") continue;
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
        if (field === "event") event = value;
        else if (field === "data") data.push(value);
        else if (field === "id") this.#id = value;
      }
      if (data.length > 0) yield { id: this.#id, event, data: data.join("\n") };
    }
  }
}

/** Reads a stream to its end. Throws Problem, TypeError for a broken connection, AbortError when stopped. */
export async function readStream(
  url: URL,
  lastId: string | null,
  signal: AbortSignal,
  on: { open: () => void; message: (message: Message) => void; alive: () => void },
): Promise<void> {
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const answer = await fetch(url, { headers, signal, credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) throw await problemOf(answer);
  if (answer.body === null || answer.status === 204) return;
  on.open();
  const cutter = new Cutter();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    on.alive();
    for (const message of cutter.feed(value)) on.message(message);
  }
}
