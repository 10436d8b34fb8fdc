/** What a job says while it works: its messages and the lines of its log, followed to the end. */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { clockTime, localTime, utcTime } from "../text/time";
import type { EventRecord } from "../wire/types";
import { events } from "./watched";

/** Whether the newest line is kept in view. */
export const following = signal(true);

interface Line {
  at: string | null;
  level: string;
  text: string;
}

function lines(told: readonly EventRecord[]): Line[] {
  const found: Line[] = [];
  let said = "";
  for (const event of told) {
    if (event.kind === "log") {
      const logged = event.data?.["lines"];
      if (!Array.isArray(logged)) continue;
      for (const line of logged as { at?: unknown; level?: unknown; text?: unknown }[]) {
        const at = typeof line.at === "number" ? new Date(line.at / 1000).toISOString() : typeof line.at === "string" ? line.at : null;
        found.push({ at: at ?? event.at ?? null, level: String(line.level ?? "info").toLowerCase(), text: String(line.text ?? "") });
      }
    } else if (typeof event.message === "string" && event.message !== "" && event.message !== said) {
      said = event.message;
      found.push({ at: event.at ?? null, level: "message", text: said });
    }
  }
  return found;
}

export function Messages() {
  const box = useRef<HTMLDivElement>(null);
  const all = lines(events.value);
  useEffect(() => {
    if (following.value && box.current !== null) box.current.scrollTop = box.current.scrollHeight;
  }, [all.length, following.value]);
  if (all.length === 0) return <p class="muted">Nothing was said yet.</p>;
  return (
    <>
      <label class="check small muted">
        <input type="checkbox" checked={following.value} onChange={(event) => (following.value = event.currentTarget.checked)} />{" "}
        Follow the newest line
      </label>
      <div
        ref={box}
        class="well log"
        role="log"
        aria-label="Messages"
        aria-live="off"
        tabIndex={0}
        onScroll={(event) => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          const end = scrollTop + clientHeight >= scrollHeight - 24;
          if (following.peek() !== end) following.value = end;
        }}
      >
        <ul>
          {all.map((line, at) => (
            <li key={at} class={line.level}>
              <time title={`${localTime(line.at)} · ${utcTime(line.at)}`}>{clockTime(line.at)}</time>
              <span>{line.text}</span>
            </li>
          ))}
        </ul>
      </div>
    </>
  );
}
