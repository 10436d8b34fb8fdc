/** The focused job, and the jobs selected for a bulk action. */
import { computed, signal } from "@preact/signals";
import { filter, place } from "../shell/address";
import { held, shown } from "./list";

/** The focused job. */
export const cursor = signal<string | null>(null);
export const selectedIds = signal<ReadonlySet<string>>(new Set());
/** The filter of which all jobs are selected, including those that were not read. */
export const allOf = signal<string | null>(null);
export const selecting = computed(() => selectedIds.value.size > 0 || allOf.value !== null);
export const pointerInside = signal(false);
export const scrolled = signal(false);

let anchor: string | null = null;

const holding = computed(() => pointerInside.value || scrolled.value || selecting.value);
holding.subscribe((on) => (held.value = on));

filter.subscribe(() => clear());

let opened: string | null = null;

// A job that was opened, in whatever way, gets the focus: keys act on the job that the user looks at.
place.subscribe(({ job }) => {
  if (job !== null && job !== opened) cursor.value = job;
  opened = job;
});

/** The focused job if the list shows it: no key acts on a row that is out of view. */
export const cursorShown = (): string | null => {
  const at = cursor.peek();
  return at !== null && shown.peek().includes(at) ? at : null;
};

/** Moves the focus from a job that is about to disappear: to the next one, or else to the previous one. */
export function focusNeighbour(id: string): void {
  if (cursor.peek() !== id) return;
  const list = shown.peek();
  const at = list.indexOf(id);
  cursor.value = (at < 0 ? null : (list[at + 1] ?? list[at - 1])) ?? null;
}

export function clear(): void {
  if (selectedIds.peek().size > 0) selectedIds.value = new Set();
  allOf.value = null;
}

export function toggle(id: string): void {
  const next = new Set(allOf.peek() === null ? selectedIds.peek() : shown.peek());
  if (!next.delete(id)) next.add(id);
  allOf.value = null;
  selectedIds.value = next;
  anchor = id;
}

/** Selects all jobs from the last selected one to this one. */
export function selectRange(id: string): void {
  const list = shown.peek();
  const from = anchor === null ? -1 : list.indexOf(anchor);
  const to = list.indexOf(id);
  if (from < 0 || to < 0) return toggle(id);
  const next = new Set(selectedIds.peek());
  for (const one of list.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(one);
  allOf.value = null;
  selectedIds.value = next;
}

export function selectAll(): void {
  allOf.value = filter.peek();
}

/** Moves the focus by this number of rows; returns the focused job, or null in an empty list. */
export function moveFocus(by: number): string | null {
  const list = shown.peek();
  if (list.length === 0) return null;
  const at = cursor.peek() === null ? -1 : list.indexOf(cursor.peek() as string);
  const next = at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.max(0, Math.min(list.length - 1, at + by));
  cursor.value = list[next] ?? null;
  return cursor.value;
}
