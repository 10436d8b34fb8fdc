/** The log of a job: its messages and log lines. */
import { signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { clockTime, localTime, utcTime, formatCount } from "../text/time";
import { plain } from "../text/plain";
import type { EventRecord } from "../wire/types";
import { events } from "./record";

/** The maximum number of lines in the document. */
const LINES = 400;

/** Whether the view follows the newest line. */
export const following = signal(true);

interface Line {
  at: string | null;
  level: string;
  text: string;
}

function lines(events: readonly EventRecord[]): Line[] {
  const found: Line[] = [];
  let said = "";
  for (const event of events) {
    if (event.kind === "log") {
      const logged = event.data?.["lines"];
      if (!Array.isArray(logged)) continue;
      for (const line of logged as { at?: unknown; level?: unknown; text?: unknown }[]) {
        const at = typeof line.at === "number" ? new Date(line.at / 1000).toISOString() : typeof line.at === "string" ? line.at : null;
        found.push({ at: at ?? event.at ?? null, level: String(line.level ?? "info").toLowerCase(), text: String(line.text ?? "") });
      }
    } else if (event.kind !== "stalled" && typeof event.message === "string" && event.message !== "" && event.message !== said) {
      // A stall comes long after the message that it repeats.
      said = event.message;
      found.push({ at: event.at ?? null, level: "message", text: said });
    }
  }
  return found;
}

export function Messages() {
  const box = useRef<HTMLDivElement>(null);
  const every = lines(events.value);
  const most = useSignal(LINES);
  const all = every.slice(-most.value);
  const hidden = every.length - all.length;
  useEffect(() => {
    if (following.value && box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [every.length, following.value]);
  if (all.length === 0) return <p class="muted">No log output yet</p>;
  return (
    <>
      <label class="check small muted">
        <input type="checkbox" checked={following.value} onChange={(event) => (following.value = event.currentTarget.checked)} />{" "}
        Follow
      </label>
      <div
        ref={box}
        class="well log"
        role="log"
        aria-label="Log"
        aria-live="off"
        tabIndex={0}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          const end = scrollTop + clientHeight >= scrollHeight - 24;
          if (following.peek() !== end) following.value = end;
        }}
      >
        {hidden > 0 && (
          <button type="button" class="button plain" onClick={() => (most.value += LINES)}>
            Show earlier lines ({formatCount(hidden)})
          </button>
        )}
        <ul>
          {all.map((line, at) => (
            <li key={hidden + at} class={line.level}>
              <time title={`${localTime(line.at)} · ${utcTime(line.at)}`}>{clockTime(line.at)}</time>
              <span>{line.level === "message" || line.level === "info" ? "" : <b>{line.level} </b>}{plain(line.text)}</span>
            </li>
          ))}
        </ul>
      </div>
    </>
  );
}
