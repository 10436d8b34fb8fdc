/** The list of shortcuts. */
import { signal } from "@preact/signals";
import { Dialog } from "../parts/dialog";

export const helpOpen = signal(false);

export const SHORTCUTS: readonly (readonly [string, string])[] = [
  ["/", "Filter"],
  ["j k", "Next, previous job"],
  ["Enter", "Open the job"],
  ["Esc", "Back to jobs"],
  ["x", "Select the job"],
  ["a", "Select all matching"],
  ["c", "Cancel"],
  ["r", "Retry"],
  ["#", "Delete"],
  ["u", "Undo"],
  ["Space", "Pause or resume live updates"],
  ["f", "Follow the log"],
  ["y", "Copy the id"],
  ["1 … 7", "Tabs"],
  ["g j", "Jobs"],
  ["g f", "Failures"],
  ["g o", "Overview"],
  ["g t", "Types"],
  ["g u", "Usage"],
  ["g w", "Workers"],
  ["t", "Switch theme"],
  ["?", "This help"],
  ["Ctrl K", "Command palette"],
];

export function Help() {
  if (!helpOpen.value) return null;
  return (
    <Dialog title="Keyboard shortcuts" close={() => (helpOpen.value = false)}>
      <ul class="keys">
        {SHORTCUTS.map(([keys, what]) => (
          <li key={keys}>
            <span>{what}</span>
            <span>
              {keys.split(" ").map((key) => (key === "…" ? " … " : <kbd key={key}>{key}</kbd>))}
            </span>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
