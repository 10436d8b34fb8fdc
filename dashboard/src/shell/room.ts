/** Whether there is room for a job beside the list; where there is none, it takes the list's place. */
import { signal } from "@preact/signals";

const room = matchMedia("(min-width: 1100px)");

export const roomy = signal(room.matches);
room.addEventListener("change", () => (roomy.value = room.matches));
