/** Whether the window is wide enough to show a job beside the list; otherwise it replaces the list. */
import { signal } from "@preact/signals";

const wide = matchMedia("(min-width: 1100px)");

export const isWide = signal(wide.matches);
wide.addEventListener("change", () => (isWide.value = wide.matches));
