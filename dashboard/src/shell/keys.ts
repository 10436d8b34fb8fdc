/** The shortcuts of the help; keys in fields and dialogs are left to them. */
import { tinykeys } from "tinykeys";
import { confirmMany } from "../jobs/bulk";
import { confirmCancel, confirmRetry, canCancel, canRetry, remove } from "../jobs/actions";
import { pause, paused, rows } from "../jobs/list";
import { openJob } from "../jobs/listview";
import { selectAll, clear, cursorShown, moveFocus, selecting, focusNeighbour, toggle } from "../jobs/selection";
import { job } from "../job/record";
import { following } from "../job/messages";
import { copy } from "../parts/copyable";
import type { Row } from "../wire/types";
import { go, pageAt, place, TABS, type PageName } from "./address";
import { helpOpen } from "./help";
import { paletteOpen } from "./palette";
import { isAdmin, mayCancel, mayDelete, mayWrite, onlyJob, whenKnown } from "./session";
import { showToast, undoLast } from "./toasts";
import { nextTheme } from "./theme";

const FIELDS = "input:not([type=checkbox]), textarea, select, [contenteditable]";
const PRESSED = "button, a, summary, [role=tab], [role=option], input, textarea, select";

/** The job that keys act on: the focused one if it is visible, else the open one. */
function target(): Pick<Row, "job_id" | "job_type" | "status" | "run_by" | "started_at"> | null {
  const { page, job: open } = place.peek();
  if (page === "job") return job.peek();
  const at = cursorShown() ?? open;
  if (page !== "jobs" || at === null) return null;
  // Of the open job the newest state is known, also while the list is being read.
  const shown = job.peek();
  return shown?.job_id === at ? shown : (rows.get(at)?.peek() ?? null);
}

function plain(act: (event: KeyboardEvent) => void, yields = false): (event: KeyboardEvent) => void {
  return (event) => {
    const on = event.target instanceof Element ? event.target : null;
    if (event.defaultPrevented || document.querySelector("dialog[open]") !== null) return;
    if (on?.closest(FIELDS) != null || (yields && on?.closest(PRESSED) != null)) return;
    event.preventDefault();
    act(event);
  };
}

function step(by: number): void {
  if (place.peek().page !== "jobs") return;
  const at = moveFocus(by);
  document.getElementById("grid")?.focus({ preventScroll: true });
  if (at !== null && place.peek().job !== null) openSoon(at);
}

let opening: ReturnType<typeof setTimeout> | undefined;

/** The pane follows the focus, but skips rows while a key is held. */
function openSoon(id: string): void {
  clearTimeout(opening);
  opening = setTimeout(() => go({ job: id, part: null }, { replace: true }), 120);
}

function act(name: "cancel" | "retry" | "delete"): void {
  whenKnown(() => actNow(name));
}

function actNow(name: "cancel" | "retry" | "delete"): void {
  const allowed = { cancel: mayCancel, retry: mayWrite, delete: mayDelete }[name].peek();
  if (!allowed) return void showToast("Your key doesn't allow this", { seconds: 3 });
  if (selecting.peek() && place.peek().page === "jobs") return confirmMany(name);
  const one = target();
  if (one === null) return;
  if (name === "cancel" && canCancel(one)) confirmCancel(one);
  else if (name === "retry" && canRetry(one)) confirmRetry(one);
  else if (name === "delete") {
    focusNeighbour(one.job_id);
    remove(one.job_id);
  }
  else showToast(`A ${one.status} job cannot be ${name === "retry" ? "retried" : "cancelled"} here`, { seconds: 3 });
}

function back(): void {
  const { page, job: open } = place.peek();
  if (onlyJob.peek() !== null) return; // a share link shows one job, so there is no list to go back to
  if (selecting.peek() && page === "jobs") clear();
  else if (page === "job") go({ page: "jobs", part: null, job: null });
  else if (open !== null) {
    go({ job: null, part: null });
    requestAnimationFrame(() => document.getElementById("grid")?.focus({ preventScroll: true }));
  } else if (page === "jobs" && document.activeElement instanceof HTMLElement) document.activeElement.blur();
  else if (page !== "jobs") go(pageAt("jobs"));
}

const to = (name: PageName): ((event: KeyboardEvent) => void) =>
  plain(() => {
    if (onlyJob.peek() === null && (name !== "workers" || isAdmin.peek())) go(pageAt(name));
  });

export function startKeys(): void {
  const remove = plain(() => act("delete"));
  const help = plain(() => (helpOpen.value = true));
  const filter = plain(() => document.getElementById("filter")?.focus());
  const tabs = TABS.map((tab, at) => [String(at + 1), plain(() => onlyJob.peek() === null && go({ ...pageAt("jobs"), tab }))] as const);
  tinykeys(window, {
    // Sequences come first: a key that ends one is not a shortcut of its own.
    "g j": to("jobs"),
    "g f": to("failures"),
    "g o": to("overview"),
    "g t": to("types"),
    "g u": to("usage"),
    "g w": to("workers"),
    // On other keyboards than the American, Shift is a part of some of these: of "/" on a German one, of digits on a French one.
    "/": filter,
    "Shift+/": filter,
    j: plain(() => step(1)),
    k: plain(() => step(-1)),
    ArrowDown: plain(() => step(1), true),
    ArrowUp: plain(() => step(-1), true),
    PageDown: plain(() => step(10), true),
    PageUp: plain(() => step(-10), true),
    Enter: plain(() => {
      const at = cursorShown();
      if (place.peek().page !== "jobs" || at === null) return;
      openJob(at);
      focusJob();
    }, true),
    Escape: plain(back),
    x: plain(() => {
      const at = cursorShown();
      if (at !== null && place.peek().page === "jobs") toggle(at);
    }),
    a: plain(() => {
      if (place.peek().page === "jobs") selectAll();
    }),
    c: plain(() => act("cancel")),
    r: plain(() => act("retry")),
    "#": remove,
    "Shift+#": remove,
    u: plain(undoLast),
    Space: plain(() => pause(!paused.peek()), true),
    f: plain(() => {
      following.value = !following.peek();
      showToast(following.peek() ? "Following the log" : "No longer following the log", { seconds: 2 });
    }),
    y: plain(() => {
      const one = target();
      if (one !== null) void copy(one.job_id, "Id copied");
    }),
    t: plain(nextTheme),
    "?": help,
    "Shift+?": help,
    "$mod+k": (event) => {
      event.preventDefault();
      if (document.querySelector("dialog[open]") === null && onlyJob.peek() === null) paletteOpen.value = true;
    },
    ...Object.fromEntries(tabs.flatMap(([key, act]) => [[key, act], [`Shift+${key}`, act]])),
  });
}

/** On a narrow page the job replaces the list, and gets the focus. */
function focusJob(): void {
  requestAnimationFrame(() => {
    if (document.getElementById("grid") === null) document.getElementById("job-title")?.focus({ preventScroll: true });
  });
}
