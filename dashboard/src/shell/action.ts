/** Actions of the user that call the server: an error is shown as a toast. */
import { useSignal, type Signal } from "@preact/signals";
import { Problem, errorText } from "../wire/api";
import { showToast } from "./toasts";

/** Does the work, and shows either that it is done or why it failed. Resolves to whether it succeeded. */
export async function attempt(work: () => Promise<unknown>, done = ""): Promise<boolean> {
  try {
    await work();
    if (done !== "") showToast(done, { seconds: 3 });
    return true;
  } catch (error) {
    showToast(errorText(error));
    if (!(error instanceof Problem)) throw error;
    return false;
  }
}

/** The action of a button, which is busy until the server has answered. */
export function useAction(): { busy: Signal<boolean>; run: (work: () => Promise<unknown>, done?: string) => void } {
  const busy = useSignal(false);
  const run = async (work: () => Promise<unknown>, done?: string): Promise<void> => {
    busy.value = true;
    try {
      await attempt(work, done);
    } finally {
      busy.value = false;
    }
  };
  return { busy, run: (work, done) => void run(work, done) };
}
