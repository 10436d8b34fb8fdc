/** One clock for the page: ages and times left tick together. Follows the server's clock when this machine's is far off. */
import { signal } from "@preact/signals";

let offset = 0;

/** Milliseconds since the epoch, by the server's clock, renewed each second while the page is visible. */
export const now = signal(Date.now());

export const serverNow = (): number => Date.now() + offset;

/** Learns of the server's clock from the Date of an answer, which is exact to a second. */
export function noteServerTime(header: string | null): void {
  const told = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(told)) return;
  const apart = told - Date.now();
  const before = offset;
  offset = Math.abs(apart) > 5000 ? apart : 0;
  if (Math.abs(offset - before) > 5000) tick(); // at once: nothing shows ages by a clock that is known to be wrong
}

function tick(): void {
  if (document.visibilityState === "visible") now.value = serverNow();
}

setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
