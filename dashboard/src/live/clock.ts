/** One clock for the page: ages and times left tick together. Uses the server's clock if that of this machine is far off. */
import { signal } from "@preact/signals";
import { noteServerTime, serverNow } from "./offset";

/** Milliseconds since the epoch, by the server's clock, renewed each second while the page is visible. */
export const now = signal(Date.now());

/** Reads the server's clock from the Date header of a response, which is exact to a second. */
export function noteDate(header: string | null): void {
  if (noteServerTime(header)) tick(); // at once, so that no age is shown by a clock that is known to be wrong
}

function tick(): void {
  if (document.visibilityState === "visible") now.value = serverNow();
}

setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
