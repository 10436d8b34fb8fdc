/** Which job the keyboard is at, and which are chosen for an action on many. */
import { computed, signal } from "@preact/signals";
import { filter, place } from "../shell/address";
import { held, shown } from "./list";

/** The job that the keyboard is at. */
export const cursor = signal<string | null>(null);
export const chosen = signal<ReadonlySet<string>>(new Set());
/** The filter whose every job is chosen, those that were not read too. */
export const allOf = signal<string | null>(null);
export const selecting = computed(() => chosen.value.size > 0 || allOf.value !== null);
export const pointerInside = signal(false);
export const scrolled = signal(false);

let anchor: string | null = null;

const holding = computed(() => pointerInside.value || scrolled.value || selecting.value);
holding.subscribe((on) => (held.value = on));

filter.subscribe(() => clear());

let opened: string | null = null;

// The keyboard is at the job that was opened, whichever way: what it does is done to what is looked at.
place.subscribe(({ job }) => {
  if (job !== null && job !== opened) cursor.value = job;
  opened = job;
});

/** The job that the keyboard is at, where the list shows it: nothing is done to a row that cannot be seen. */
export const cursorShown = (): string | null => {
  const at = cursor.peek();
  return at !== null && shown.peek().includes(at) ? at : null;
};

/** Steps off a job that is about to go: to the next, or else to the one before. */
export function stepOff(id: string): void {
  if (cursor.peek() !== id) return;
  const list = shown.peek();
  const at = list.indexOf(id);
  cursor.value = (at < 0 ? null : (list[at + 1] ?? list[at - 1])) ?? null;
}

export function clear(): void {
  if (chosen.peek().size > 0) chosen.value = new Set();
  allOf.value = null;
}

export function toggle(id: string): void {
  const next = new Set(allOf.peek() === null ? chosen.peek() : shown.peek());
  if (!next.delete(id)) next.add(id);
  allOf.value = null;
  chosen.value = next;
  anchor = id;
}

/** Chooses everything between the last choice and this job. */
export function extend(id: string): void {
  const list = shown.peek();
  const from = anchor === null ? -1 : list.indexOf(anchor);
  const to = list.indexOf(id);
  if (from < 0 || to < 0) return toggle(id);
  const next = new Set(chosen.peek());
  for (const one of list.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(one);
  allOf.value = null;
  chosen.value = next;
}

export function chooseAll(): void {
  allOf.value = filter.peek();
}

/** Moves the keyboard's place by so many rows; the new place, or null in an empty list. */
export function move(by: number): string | null {
  const list = shown.peek();
  if (list.length === 0) return null;
  const at = cursor.peek() === null ? -1 : list.indexOf(cursor.peek() as string);
  const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.max(0, Math.min(list.length - 1, at + by));
  cursor.value = list[next] ?? null;
  return cursor.value;
}
