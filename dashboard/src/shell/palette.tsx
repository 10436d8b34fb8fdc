/** The palette: find and run any action, or open any page, by a few letters. */
import { signal, useSignal } from "@preact/signals";
import { Dialog } from "../parts/dialog";
import { copy } from "../parts/copyable";
import { pause, paused, rows, shown } from "../jobs/list";
import { openJob } from "../jobs/listview";
import { selectAll } from "../jobs/selection";
import { filterAsCli } from "../text/commands";
import { filter, go, pageAt, TABS } from "./address";
import { helpOpen } from "./help";
import { NAMES } from "./tabs";
import { nextTheme } from "./theme";

export const paletteOpen = signal(false);

interface Command {
  name: string;
  act: () => void;
}

const COMMANDS: readonly Command[] = [
  { name: "Go to Jobs", act: () => go(pageAt("jobs")) },
  { name: "Go to Documents", act: () => go(pageAt("documents")) },
  { name: "Go to Failures", act: () => go(pageAt("failures")) },
  { name: "Go to Overview", act: () => go(pageAt("overview")) },
  { name: "Go to Types", act: () => go(pageAt("types")) },
  { name: "Go to Schedules", act: () => go(pageAt("schedules")) },
  { name: "Go to Usage", act: () => go(pageAt("usage")) },
  { name: "Go to Workers", act: () => go(pageAt("workers")) },
  ...TABS.map((tab) => ({ name: `Show jobs: ${NAMES[tab]}`, act: () => go({ ...pageAt("jobs"), tab }) })),
  {
    name: "Select all matching",
    act: () => {
      go(pageAt("jobs"));
      selectAll();
    },
  },
  { name: "Pause or resume live updates", act: () => pause(!paused.peek()) },
  { name: "Copy the filter as a command", act: () => void copy(filterAsCli(filter.peek()), "Command copied") },
  { name: "Switch theme", act: nextTheme },
  { name: "Keyboard shortcuts", act: () => (helpOpen.value = true) },
];

function found(text: string): Command[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (name: string): boolean => words.every((word) => name.toLowerCase().includes(word));
  const commands = COMMANDS.filter((one) => fits(one.name));
  const jobs: Command[] = [];
  if (words.length > 0) {
    for (const id of shown.peek()) {
      const row = rows.get(id)?.peek();
      if (row === undefined) continue;
      const name = `${row.job_type} ${row.title ?? ""} ${id}`;
      if (fits(name)) jobs.push({ name: `Open ${name}`, act: () => openJob(id) });
      if (jobs.length >= 5) break;
    }
    jobs.push({ name: `Filter by ${text}`, act: () => go({ ...pageAt("jobs"), q: text }) });
  }
  return [...commands, ...jobs].slice(0, 10);
}

export function Palette() {
  const text = useSignal("");
  const at = useSignal(0);
  if (!paletteOpen.value) return null;
  const choices = found(text.value);
  const close = (): void => {
    paletteOpen.value = false;
    text.value = "";
    at.value = 0;
  };
  const run = (choice: Command | undefined): void => {
    close();
    choice?.act();
  };
  return (
    <Dialog title="Command palette" close={close} bare>
      <input
        class="field"
        type="text"
        role="combobox"
        aria-label="Command or job"
        aria-expanded="true"
        aria-controls="palette-options"
        aria-activedescendant={choices.length > 0 ? `palette-${at.value}` : ""}
        autocomplete="off"
        placeholder="A command, a job, a filter"
        value={text.value}
        onInput={(event) => {
          text.value = event.currentTarget.value;
          at.value = 0;
        }}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "ArrowDown") at.value = Math.min(choices.length - 1, at.value + 1);
          else if (event.key === "ArrowUp") at.value = Math.max(0, at.value - 1);
          else if (event.key === "Enter") run(choices[at.value]);
          else return;
          event.preventDefault();
        }}
      />
      <div id="palette-options" role="listbox" aria-label="Commands">
        {choices.map((choice, index) => (
          <div
            key={choice.name}
            id={`palette-${index}`}
            role="option"
            class="option"
            aria-selected={index === at.value}
            onClick={() => run(choice)}
          >
            {choice.name}
          </div>
        ))}
      </div>
    </Dialog>
  );
}
