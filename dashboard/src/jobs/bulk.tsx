/** The selected jobs and the actions on them. A dry run first shows what would change. */
import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Dialog } from "../parts/dialog";
import { mayCancel, mayDelete, mayWrite } from "../shell/session";
import { showToast } from "../shell/toasts";
import { formatCount } from "../text/time";
import { Problem, errorText } from "../wire/api";
import type { BulkAction, BulkDone } from "../wire/types";
import { applyToMany, dryRun, removeMany, type Many } from "./actions";
import { load, shown, total } from "./list";
import { allOf, selectAll, selectedIds, clear, selecting } from "./selection";

/** The action that waits for its confirmation. */
export const pendingAction = signal<{ action: BulkAction; many: Many } | null>(null);

const VERBS: Record<BulkAction, string> = { cancel: "Cancel", retry: "Retry", delete: "Delete" };
const DONE: Record<BulkAction, string> = { cancel: "cancelled", retry: "queued again", delete: "deleted" };

const UNCHANGED: Record<BulkAction, string> = {
  cancel: "already finished and won't change.",
  retry: "can't be retried and won't change.",
  delete: "are still active and won't change.",
};

export function confirmMany(action: BulkAction): void {
  const many: Many = allOf.peek() === null ? { ids: [...selectedIds.peek()] } : { q: allOf.peek() as string };
  pendingAction.value = { action, many };
}

export function BulkBar() {
  if (!selecting.value) return null;
  const all = allOf.value !== null;
  const known = total.value;
  const count = all ? (known?.count ?? 0) : selectedIds.value.size;
  const matching = known === null ? "" : `${known.exact ? "" : "at least "}${formatCount(known.count)}`;
  return (
    <div class="chosen" role="toolbar" aria-label="Selected jobs">
      <b>
        {all && known?.exact === false ? "at least " : ""}
        {formatCount(count)} selected
      </b>
      {!all && known !== null && known.count > count && (
        <button type="button" class="button plain" onClick={selectAll}>
          Select all {matching} matching
        </button>
      )}
      <span class="corner" />
      {mayCancel.value && (
        <button type="button" class="button" onClick={() => confirmMany("cancel")}>
          Cancel
        </button>
      )}
      {mayWrite.value && (
        <button type="button" class="button" onClick={() => confirmMany("retry")}>
          Retry
        </button>
      )}
      {mayDelete.value && (
        <button type="button" class="button danger" onClick={() => confirmMany("delete")}>
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
  const what = pendingAction.value;
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
      (error: unknown) => mine && (wrong.value = errorText(error)),
    );
    return () => void (mine = false);
  }, [what]);
  // Going back confirms nothing: the dialog is closed, and does not appear on another page.
  useEffect(() => () => void (pendingAction.value = null), []);
  if (what === null) return null;
  const { action, many } = what;
  const close = (): void => void (pendingAction.value = null);
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
      const [done, refused] = await applyToMany(action, many, (so) => (doing.value = so));
      showToast(`${formatCount(done)} ${DONE[action]}${refused > 0 ? `, ${formatCount(refused)} refused` : ""}`);
      clear();
      void load(true);
    } catch (error) {
      showToast(errorText(error));
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
            ? "No matching jobs any more."
            : eligible === 0
              ? `None of the ${formatCount(matching)} jobs can be ${action === "delete" ? "deleted" : action === "retry" ? "retried" : "cancelled"}.`
              : `${found.exact === false ? "At least " : ""}${formatCount(eligible)} of ${formatCount(matching)} jobs will be ${DONE[action]}.`}
          {eligible < matching && eligible > 0 ? ` ${formatCount(matching - eligible)} ${UNCHANGED[action]}` : ""}
        </p>
      )}
      {doing.value !== null && <p class="muted">{formatCount(doing.value)} done…</p>}
      <footer>
        <button type="button" class="button" onClick={close}>
          Don't {VERBS[action].toLowerCase()}
        </button>
        <button
          type="button"
          class={`button ${action === "delete" ? "danger" : "strong"}`}
          disabled={eligible === 0 || doing.value !== null}
          onClick={() => void act()}
        >
          {VERBS[action]} {found === null ? "" : `${formatCount(eligible)} ${eligible === 1 ? "job" : "jobs"}`}
        </button>
      </footer>
    </Dialog>
  );
}
