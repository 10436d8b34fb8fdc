/** Short messages at the bottom of the page, in one polite live region, with an undo while they are shown. */
import { signal } from "@preact/signals";
import { Cross } from "../parts/icons";

interface Toast {
  key: number;
  text: string;
  undo?: () => void;
}

export const toasts = signal<readonly Toast[]>([]);
/** Text for screen readers only. */
export const announced = signal("");
let last = 0;

export function showToast(text: string, { undo, seconds = 5 }: { undo?: () => void; seconds?: number } = {}): () => void {
  const toast: Toast = { key: ++last, text, ...(undo === undefined ? {} : { undo }) };
  const newest = toasts.value.slice(-2);
  // A message with an undo stays until its time is over, whatever messages follow.
  toasts.value = [...toasts.value.filter((one) => one.undo !== undefined || newest.includes(one)), toast];
  const close = (): void => {
    toasts.value = toasts.value.filter((one) => one.key !== toast.key);
  };
  setTimeout(close, seconds * 1000);
  return close;
}

/** Undoes the newest action that can be undone. */
export function undoLast(): void {
  const toast = toasts.value.findLast((one) => one.undo !== undefined);
  if (toast === undefined) showToast("There is nothing to undo", { seconds: 2 });
  else toast.undo?.();
}

export function Toasts() {
  return (
    <>
      <div class="toasts" role="status" aria-live="polite">
        {toasts.value.map((toast) => (
          <div class="toast" key={toast.key}>
            <span>{toast.text}</span>
            {toast.undo !== undefined && (
              <button type="button" class="button" onClick={toast.undo}>
                Undo
              </button>
            )}
            <button
              type="button"
              class="icon-button"
              aria-label="Dismiss"
              onClick={() => (toasts.value = toasts.value.filter((one) => one !== toast))}
            >
              <Cross />
            </button>
          </div>
        ))}
      </div>
      <div class="unseen" role="log" aria-live="polite">
        {announced.value}
      </div>
    </>
  );
}
