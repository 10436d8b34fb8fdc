/** The user of this page and their permissions. The server enforces them; the page hides actions that it would refuse. */
import { computed, signal } from "@preact/signals";
import { postUserChange } from "../live/feed";
import { get, Problem, send, signInNeeded, errorText } from "../wire/api";
import type { Session } from "../wire/types";
import { showToast } from "./toasts";

const READ_AGAIN = 2000;

let wasSignedIn = false;
/** Whether the session of this page has ended. */
export const sessionEnded = (): boolean => wasSignedIn;

export const session = signal<Session | null>(null);

/** Why the sign-in link of this page was rejected. */
export const linkProblem = signal<string | null>(null);

const may = (scope: string): boolean => {
  const scopes = session.value?.scopes ?? [];
  return scopes.includes(scope) || scopes.includes("admin");
};

export const mayWrite = computed(() => may("jobs:write"));
export const mayCancel = computed(() => may("jobs:cancel") || may("jobs:write"));
export const mayAnswer = computed(() => may("jobs:answer") || may("jobs:write"));
export const mayDelete = computed(() => may("jobs:delete"));
/** Whether the key of this visitor is restricted to labels. */
export const bound = computed(() => Object.keys(session.value?.labels ?? {}).length > 0);
/** Whether the server searches documents; true until that is known. */
export const hasDocuments = computed(() => session.value?.documents ?? true);
/** Whether this visitor has admin rights, which a key with restrictions never has. */
export const isAdmin = computed(() => {
  const known = session.value;
  const limited = known !== null && (known.types.length > 0 || known.queues.length > 0 || known.max_priority !== null);
  return may("admin") && !bound.value && !limited;
});
/** The job of this visitor's share link. */
export const onlyJob = computed(() => (session.value?.job_id as string | null | undefined) ?? null);

/** Calls back when it is known what this visitor may do: at once, except while the page opens. */
export function whenKnown(act: () => void): void {
  if (session.peek() !== null) return act();
  const stop = session.subscribe((known) => {
    if (known === null) return;
    stop();
    act();
  });
}

export async function readSession(): Promise<void> {
  try {
    session.value = await get<Session>("session");
    wasSignedIn = true;
    signInNeeded.value = false;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    // A server that is unavailable for a moment must not leave the page without its buttons.
    if (error.status === 0 || error.status >= 500) setTimeout(() => void readSession(), READ_AGAIN);
  }
}

export async function signIn(key: string): Promise<void> {
  await send("POST", "session", { body: { key } });
  postUserChange();
}

/**
 * Signs in with the link that the server printed. Its token is in the fragment, which no server and no log ever sees. A key
 * is refused there: with a link of another person the visitor would act under the key of that person, who sees the jobs.
 */
export async function enterByLink(): Promise<void> {
  const token = new URLSearchParams(location.hash.slice(1)).get("signin");
  if (token === null) return;
  history.replaceState(null, "", location.pathname + location.search);
  if (!token.startsWith("once_")) {
    linkProblem.value = "This is not a sign-in link of the server";
    return;
  }
  try {
    await signIn(token);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    linkProblem.value = error.status === 401 ? "This sign-in link was used already, or has expired" : errorText(error);
  }
}

export async function signOut(): Promise<void> {
  try {
    await send("DELETE", "session");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 401) return void showToast(errorText(error)); // 401: the session had ended already
  }
  postUserChange();
}
