/** What the runs of a job have written with `run.output`, live. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { plain } from "../text/plain";
import { apiUrl, jobPath, Problem } from "../wire/api";
import { readStream } from "../wire/sse";
import type { JobRecord } from "../wire/types";

const PAUSE = 2000;
/** The most text in the document. */
const CHARACTERS = 200_000;

interface Chunk {
  text: string;
  starts_over: boolean;
}

export function Output({ shown }: { shown: JobRecord }) {
  return shown.output_bytes > 0 ? <OutputText key={`${shown.job_id} ${shown.attempt}`} id={shown.job_id} /> : null;
}

function OutputText({ id }: { id: string }) {
  const text = useSignal("");
  useEffect(() => {
    const stop = new AbortController();
    void follow(id, stop.signal, ({ text: more, starts_over }) => {
      text.value = ((starts_over ? "" : text.peek()) + more).slice(-CHARACTERS);
    });
    return () => stop.abort();
  }, [id]);
  return (
    <section class="section">
      <h2>Output</h2>
      <pre class="well output" tabIndex={0} role="log" aria-label="Output" aria-live="off">
        {plain(text.value)}
      </pre>
    </section>
  );
}

/** Reads the output until the job has ended, and continues after a broken connection. */
async function follow(id: string, stop: AbortSignal, take: (chunk: Chunk) => void): Promise<void> {
  let position: string | null = null;
  let over = false;
  while (!over && !stop.aborted) {
    let opened = false;
    try {
      await readStream(apiUrl(jobPath(id, "/output")), position, stop, {
        open: () => (opened = true),
        message: (message) => {
          if (message.event === "output") take(JSON.parse(message.data) as Chunk);
          over ||= message.event === "end";
          position = message.id ?? position;
        },
        alive: () => undefined,
      });
      over ||= !opened; // all of it was read before
    } catch (error) {
      over = error instanceof Problem && error.status < 500 && error.status !== 429;
    }
    if (!over) await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}
