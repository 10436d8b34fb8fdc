/** The filter field: the grammar of the server, with completions for known values. */
import { computed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { counts } from "../live/feed";
import { Cross, Glass } from "../parts/icons";
import { STATUSES } from "../wire/types";
import { go, place } from "./address";
import { isPhone, isWide } from "./layout";

const WAIT = 250;

interface Choice {
  text: string;
  what: string;
}

const KEYS: readonly Choice[] = [
  { text: "status:", what: "pending, running, completed, failed, cancelled" },
  { text: "type:", what: "the type of the job" },
  { text: "label.", what: "label.owner:ana" },
  { text: "worker:", what: "the worker that runs it" },
  { text: "group:", what: "the group that it is a member of" },
  { text: "queue:", what: "the queue whose workers run it" },
  { text: "error:", what: "a word in the error" },
  { text: "created:1d", what: "within the last day; also 2h..1d" },
  { text: "ended:1d", what: "ended within the last day; also 2h..1d" },
  { text: "duration:5m..", what: "ran for at least 5 minutes; ..5m at most" },
  { text: "is:stalled", what: "stalled jobs (also: active, ended, stopping, waiting)" },
  { text: "not.type:", what: "not. before a term negates it" },
  { text: "id:", what: "the beginning of the id" },
];

const types = computed(() => Object.keys(counts.value ?? {}));

/** The completions of the word before the caret. */
export function completions(text: string, caret: number, known: readonly string[]): { from: number; choices: Choice[] } {
  const from = Math.max(text.lastIndexOf(" ", caret - 1) + 1, 0);
  const word = text.slice(from, caret).toLowerCase();
  const bare = word.replace(/^not\./, "");
  const negative = word.slice(0, word.length - bare.length);
  const value = (key: string, values: readonly string[]): Choice[] =>
    values.map((one) => ({ text: `${negative}${key}:${/\s/.test(one) ? `"${one}"` : one}`, what: "" }));
  const all = bare.startsWith("status:")
    ? value("status", STATUSES)
    : bare.startsWith("type:")
      ? value("type", known)
      : bare.startsWith("is:")
        ? value("is", ["stalled", "active", "ended", "stopping", "waiting"])
        : KEYS.map((one) => ({ ...one, text: negative + one.text })).filter((one) => !one.text.startsWith("not.not."));
  return { from, choices: all.filter((one) => one.text.toLowerCase().startsWith(word) && one.text !== word).slice(0, 10) };
}

/** Whether a word is an incomplete term, which is not sent to the server. */
export function unfinished(word: string, choices: readonly Choice[]): boolean {
  const bare = word.replace(/^not\./, "");
  if (/^[a-z]+:$/.test(bare) || /^label\.[^:]*:?$/.test(bare)) return true;
  if (/^(status|is):/.test(bare)) return choices.length > 0;
  return /^(created|ended|duration):[\d.]*$/.test(bare) || (bare.match(/"/g)?.length ?? 0) % 2 === 1;
}

/** The other pages do not apply the filter, so they do not show it either. */
function applied(): string {
  const { page, q } = place.value;
  return page === "jobs" || page === "job" ? q : "";
}

export function FilterField() {
  const field = useRef<HTMLInputElement>(null);
  const filter = applied();
  const text = useSignal(filter);
  const caret = useSignal(0);
  const open = useSignal(false);
  const at = useSignal(-1);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(() => {
    if (timer.current === null) text.value = filter;
  }, [filter]);

  const apply = (value: string, now = false): void => {
    const on = place.peek().page;
    text.value = value;
    if (timer.current !== null) clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      timer.current = null;
      // If another page was opened meanwhile, the user stays there, and the typed text is discarded.
      if (place.peek().page !== on) return void (text.value = applied());
      const to = caret.peek();
      const word = value.slice(value.lastIndexOf(" ", to - 1) + 1, to);
      if (!now && unfinished(word, completions(value, to, types.peek()).choices)) return;
      // A job that covers the list is closed, or its result would not be visible.
      const covered = place.peek().job !== null && !isWide.peek();
      go({ q: value, page: "jobs", ...(covered ? { job: null, part: null } : {}) }, { replace: place.peek().page === "jobs" && !covered });
    }, WAIT);
  };
  const { from, choices } = completions(text.value, caret.value, types.value);
  const shown = open.value && choices.length > 0;
  const choose = (choice: Choice): void => {
    const rest = text.value.slice(caret.value);
    const ends = /[:.]$/.test(choice.text);
    const before = text.value.slice(0, from) + choice.text + (ends || rest.startsWith(" ") ? "" : " ");
    caret.value = before.length;
    at.value = -1;
    // At once, because the next typed character belongs after it.
    if (field.current !== null) field.current.value = before + rest;
    field.current?.setSelectionRange(before.length, before.length);
    apply(before + rest);
  };
  return (
    <div class="search" role="search">
      <Glass />
      <input
        ref={field}
        id="filter"
        type="text"
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        placeholder={isPhone.value ? "Filter jobs" : "Filter jobs  e.g.  status:failed report.pdf"}
        aria-label="Filter jobs"
        role="combobox"
        aria-expanded={shown}
        aria-autocomplete="list"
        aria-controls="filter-options"
        {...(shown && at.value >= 0 ? { "aria-activedescendant": `filter-option-${at.value}` } : {})}
        value={text.value}
        onInput={(event) => {
          caret.value = event.currentTarget.selectionStart ?? event.currentTarget.value.length;
          at.value = -1;
          open.value = true;
          apply(event.currentTarget.value);
        }}
        onFocus={(event) => {
          caret.value = event.currentTarget.value.length;
          open.value = true;
        }}
        onBlur={() => (open.value = false)}
        onKeyDown={(event) => {
          if (event.isComposing) return; // Enter and the arrows select characters in an input method
          if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            open.value = true;
            const step = event.key === "ArrowDown" ? 1 : -1;
            at.value = Math.max(-1, Math.min(choices.length - 1, at.value + step));
            event.preventDefault();
          } else if ((event.key === "Enter" || event.key === "Tab") && shown && at.value >= 0) {
            choose(choices[at.value] as Choice);
            event.preventDefault();
          } else if (event.key === "Enter") {
            open.value = false;
            apply(text.value, true);
            document.getElementById("grid")?.focus();
          } else if (event.key === "Escape") {
            event.stopPropagation();
            if (shown && at.value >= 0) at.value = -1;
            else if (text.value !== "" && !open.value) apply("");
            else document.getElementById("grid")?.focus();
            open.value = false;
          }
        }}
      />
      {text.value === "" ? (
        <kbd aria-hidden="true">/</kbd>
      ) : (
        <button
          type="button"
          aria-label="Clear the filter"
          onClick={() => {
            apply("");
            field.current?.focus();
          }}
        >
          <Cross />
        </button>
      )}
      <div id="filter-options" class="options card" role="listbox" aria-label="Completions" hidden={!shown}>
        {choices.map((choice, index) => (
          <div
            key={choice.text}
            id={`filter-option-${index}`}
            role="option"
            aria-selected={index === at.value}
            onMouseDown={(event) => {
              event.preventDefault();
              choose(choice);
            }}
          >
            <code>{choice.text}</code>
            <span class="muted cut">{choice.what}</span>
          </div>
        ))}
      </div>
    </div>
  );
}
