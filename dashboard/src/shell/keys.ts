/** The keyboard: every shortcut of the help, and nothing that a field or a dialog needs for itself. */
import { tinykeys } from "tinykeys";
import { askMany } from "../jobs/bulk";
import { canCancel, canRetry, cancel, remove, retry } from "../jobs/actions";
import { pause, paused, rows } from "../jobs/list";
import { openJob } from "../jobs/listview";
import { chooseAll, clear, cursorShown, move, selecting, stepOff, toggle } from "../jobs/selection";
import { job } from "../job/watched";
import { following } from "../job/messages";
import { copy } from "../parts/holder";
import type { Row } from "../wire/types";
import { go, pageAt, place, TABS, type PageName } from "./address";
import { helpOpen } from "./help";
import { paletteOpen } from "./palette";
import { isAdmin, mayCancel, mayDelete, mayWrite, onlyJob } from "./session";
import { say, undoLast } from "./toasts";
import { turnTheme } from "./theme";

const FIELDS = "input:not([type=checkbox]), textarea, select, [contenteditable]";
const PRESSED = "button, a, summary, [role=tab], [role=option], input, textarea, select";

/** Which job the keys act on: the one at the keyboard's place, where it is seen, else the one that is open. */
function target(): Pick<Row, "job_id" | "status" | "driver"> | null {
  const { page, job: open } = place.peek();
  if (page === "job") return job.peek();
  const at = cursorShown() ?? open;
  if (page !== "jobs" || at === null) return null;
  return rows.get(at)?.peek() ?? (at === open ? job.peek() : null);
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
  const at = move(by);
  document.getElementById("grid")?.focus({ preventScroll: true });
  if (at !== null && place.peek().job !== null) openSoon(at);
}

let opening: ReturnType<typeof setTimeout> | undefined;

/** The pane follows the keyboard, but not through every row of a long walk. */
function openSoon(id: string): void {
  clearTimeout(opening);
  opening = setTimeout(() => go({ job: id, part: null }, { replace: true }), 120);
}

function act(name: "cancel" | "retry" | "delete"): void {
  const allowed = { cancel: mayCancel, retry: mayWrite, delete: mayDelete }[name].peek();
  if (!allowed) return void say("This is not allowed with your key", { seconds: 3 });
  if (selecting.peek() && place.peek().page === "jobs") return askMany(name);
  const one = target();
  if (one === null) return;
  if (name === "cancel" && canCancel(one)) void cancel(one.job_id);
  else if (name === "retry" && canRetry(one)) void retry(one.job_id);
  else if (name === "delete") {
    stepOff(one.job_id);
    remove(one.job_id);
  }
  else say(`A ${one.status} job cannot be ${name === "retry" ? "retried" : "cancelled"} here`, { seconds: 3 });
}

function back(): void {
  const { page, job: open } = place.peek();
  if (onlyJob.peek() !== null) return; // a share link shows one job: there is nowhere to go back to
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
    // Sequences come first: what they have handled is not the single key after "g".
    "g j": to("jobs"),
    "g f": to("failures"),
    "g o": to("overview"),
    "g t": to("types"),
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
      if (place.peek().page === "jobs") chooseAll();
    }),
    c: plain(() => act("cancel")),
    r: plain(() => act("retry")),
    "#": remove,
    "Shift+#": remove,
    u: plain(undoLast),
    Space: plain(() => pause(!paused.peek()), true),
    f: plain(() => {
      following.value = !following.peek();
      say(following.peek() ? "Following the log" : "No longer following the log", { seconds: 2 });
    }),
    y: plain(() => {
      const one = target();
      if (one !== null) void copy(one.job_id, "Id copied");
    }),
    t: plain(turnTheme),
    "?": help,
    "Shift+?": help,
    "$mod+k": (event) => {
      event.preventDefault();
      if (document.querySelector("dialog[open]") === null && onlyJob.peek() === null) paletteOpen.value = true;
    },
    ...Object.fromEntries(tabs.flatMap(([key, act]) => [[key, act], [`Shift+${key}`, act]])),
  });
}

/** On a narrow page the job takes the list's place; the focus goes with it. */
function focusJob(): void {
  requestAnimationFrame(() => {
    if (document.getElementById("grid") === null) document.getElementById("job-title")?.focus({ preventScroll: true });
  });
}
