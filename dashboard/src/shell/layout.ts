/** How wide the window is. */
import { signal, type Signal } from "@preact/signals";

function matching(query: string): Signal<boolean> {
  const found = matchMedia(query);
  const matches = signal(found.matches);
  found.addEventListener("change", () => (matches.value = found.matches));
  return matches;
}

/** Wide enough to show a job beside the list; otherwise it replaces the list. */
export const isWide = matching("(min-width: 1100px)");
export const isPhone = matching("(max-width: 640px)");
