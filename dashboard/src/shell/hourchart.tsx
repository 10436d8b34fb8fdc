/** Jobs finished per minute in the last hour, failed ones stacked; a bar opens the jobs that it counts. */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { listen } from "../live/feed";
import { clockTime } from "../text/time";
import { get, Problem } from "../wire/api";
import type { Stats } from "../wire/types";
import { go } from "./address";

interface Step {
  at: string;
  completed: number;
  failed: number;
  cancelled: number;
}

const EVERY = 15_000;
const HEIGHT = 24;
/** The statistics cost the server more with more jobs, so they are requested less often then. */
const PATIENCE = 20;
const steps = signal<readonly Step[]>([]);
let next = 0;
const wide = matchMedia("(min-width: 1320px)");

async function read(): Promise<void> {
  if (!wide.matches || document.visibilityState !== "visible") return;
  if (performance.now() < next) return;
  const began = performance.now();
  try {
    steps.value = (await get<Stats>("stats", { window: "1h", step: "1m" })).steps as unknown as Step[];
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  } finally {
    next = performance.now() + PATIENCE * (performance.now() - began);
  }
}

export function HourChart() {
  const bars = useRef<HTMLDivElement>(null);
  useEffect(() => {
    void read();
    const timer = setInterval(() => void read(), EVERY);
    const stop = listen({ batch: () => undefined, onRestart: () => void read() });
    const grown = (): void => void read();
    wide.addEventListener("change", grown);
    return () => {
      clearInterval(timer);
      stop();
      wide.removeEventListener("change", grown);
    };
  }, []);
  const all = steps.value;
  const most = Math.max(0, ...all.map((step) => step.completed + step.failed));
  if (most === 0) return null;
  const filterBy = (step: Step): void => {
    const from = new Date(step.at).toISOString().replace(/\.\d+Z$/, "Z");
    const to = new Date(Date.parse(step.at) + 60_000).toISOString().replace(/\.\d+Z$/, "Z");
    go({ page: "jobs", tab: "all", q: `status:completed,failed ended:${from}..${to}` });
  };
  return (
    <div class="recent">
      <span class="small muted">Finished per minute</span>
      <div
        ref={bars}
        role="toolbar"
        aria-label="Finished per minute in the last hour"
        onKeyDown={(event) => {
          const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
          const buttons = [...(bars.current?.querySelectorAll("button") ?? [])];
          const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
          if (by === 0 || at < 0) return;
          buttons[(at + by + buttons.length) % buttons.length]?.focus();
          event.preventDefault();
        }}
      >
        {all.map((step, at) => {
          const text = `${clockTime(step.at).slice(0, 5)}: ${step.completed} completed, ${step.failed} failed`;
          return (
            <button
              key={at}
              type="button"
              title={`${text}. Shows the jobs that ended in this minute.`}
              aria-label={text}
              tabIndex={at === all.length - 1 ? 0 : -1}
              onClick={() => filterBy(step)}
            >
              <i style={{ height: `${Math.round((step.completed / most) * HEIGHT)}px` }} />
              <i class="bad" style={{ height: `${Math.ceil((step.failed / most) * HEIGHT)}px` }} />
            </button>
          );
        })}
      </div>
    </div>
  );
}
