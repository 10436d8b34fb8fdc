/** What is chosen, and what to do with it. The truth comes first: a dry run says what would change. */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Dialog } from "../parts/dialog";
import { mayCancel, mayDelete, mayWrite } from "../shell/session";
import { say } from "../shell/toasts";
import { whole } from "../text/time";
import { Problem, words } from "../wire/api";
import type { BulkAction, BulkDone } from "../wire/types";
import { doMany, dryRun, removeMany, type Many } from "./actions";
import { load, shown, total } from "./list";
import { allOf, chooseAll, chosen, clear, selecting } from "./selection";

/** The action that is being asked about. */
export const asked = signal<{ action: BulkAction; many: Many } | null>(null);

const VERBS: Record<BulkAction, string> = { cancel: "Cancel", retry: "Retry", delete: "Delete" };
const DONE: Record<BulkAction, string> = { cancel: "cancelled", retry: "sent back to the workers", delete: "deleted" };

export function askMany(action: BulkAction): void {
  const many: Many = allOf.peek() === null ? { ids: [...chosen.peek()] } : { q: allOf.peek() as string };
  asked.value = { action, many };
}

export function BulkBar() {
  if (!selecting.value) return null;
  const all = allOf.value !== null;
  const known = total.value;
  const count = all ? (known?.count ?? 0) : chosen.value.size;
  const matching = known === null ? "" : `${known.exact ? "" : "at least "}${whole(known.count)}`;
  return (
    <div class="chosen" role="toolbar" aria-label="Selected jobs">
      <b>
        {all && known?.exact === false ? "at least " : ""}
        {whole(count)} selected
      </b>
      {!all && known !== null && known.count > count && (
        <button type="button" class="button plain" onClick={chooseAll}>
          Select all {matching} matching
        </button>
      )}
      <span class="corner" />
      {mayCancel.value && (
        <button type="button" class="button" onClick={() => askMany("cancel")}>
          Cancel
        </button>
      )}
      {mayWrite.value && (
        <button type="button" class="button" onClick={() => askMany("retry")}>
          Retry
        </button>
      )}
      {mayDelete.value && (
        <button type="button" class="button danger" onClick={() => askMany("delete")}>
          Delete
        </button>
      )}
      <button type="button" class="button plain" onClick={clear}>
        Clear
      </button>
    </div>
  );
}

export function BulkDialog() {
  const what = asked.value;
  const truth = useSignal<BulkDone | null>(null);
  const wrong = useSignal<string | null>(null);
  const doing = useSignal<number | null>(null);
  useEffect(() => {
    truth.value = null;
    wrong.value = null;
    doing.value = null;
    if (what === null) return;
    let mine = true;
    dryRun(what.action, what.many).then(
      (found) => mine && (truth.value = found),
      (error: unknown) => mine && (wrong.value = words(error)),
    );
    return () => void (mine = false);
  }, [what]);
  // Whoever leaves the page by Back has decided nothing: the question does not wait for them on another page.
  useEffect(() => () => void (asked.value = null), []);
  if (what === null) return null;
  const { action, many } = what;
  const close = (): void => void (asked.value = null);
  const found = truth.value;
  const eligible = found?.eligible ?? 0;
  const matching = found?.matching ?? 0;

  const act = async (): Promise<void> => {
    if (action === "delete") {
      const ids = "ids" in many ? many.ids : shown.peek();
      clear();
      close();
      removeMany(many, eligible, [...ids]);
      return;
    }
    doing.value = 0;
    try {
      const [done, refused] = await doMany(action, many, (so) => (doing.value = so));
      say(`${whole(done)} ${DONE[action]}${refused > 0 ? `, ${whole(refused)} refused` : ""}`);
      clear();
      void load(true);
    } catch (error) {
      say(words(error));
      if (!(error instanceof Problem)) throw error;
    }
    close();
  };

  return (
    <Dialog title={`${VERBS[action]} jobs`} close={close}>
      {wrong.value !== null ? (
        <p role="alert">{wrong.value}</p>
      ) : found === null ? (
        <p class="muted">Counting…</p>
      ) : (
        <p>
          {matching === 0
            ? "Nothing matches any more."
            : eligible === 0
              ? `None of the ${whole(matching)} jobs can be changed by this.`
              : `${found.exact === false ? "At least " : ""}${whole(eligible)} of ${whole(matching)} jobs will be ${DONE[action]}.`}
          {eligible < matching && eligible > 0 ? ` The other ${whole(matching - eligible)} stay as they are.` : ""}
        </p>
      )}
      {doing.value !== null && <p class="muted">{whole(doing.value)} done…</p>}
      <footer>
        <button type="button" class="button" onClick={close}>
          Keep
        </button>
        <button
          type="button"
          class={`button ${action === "delete" ? "danger" : "strong"}`}
          disabled={eligible === 0 || doing.value !== null}
          onClick={() => void act()}
        >
          {VERBS[action]} {found === null ? "" : whole(eligible)}
        </button>
      </footer>
    </Dialog>
  );
}
