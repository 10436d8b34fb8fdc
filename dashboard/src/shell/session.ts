/** Who looks at this page and what they may do. The server decides; the page hides what would be refused. */
import { computed, signal } from "@preact/signals";
import { tellWho } from "../live/feed";
import { get, Problem, send, signInNeeded, words } from "../wire/api";
import type { Session } from "../wire/types";
import { say } from "./toasts";

const READ_AGAIN = 2000;

export const session = signal<Session | null>(null);

const may = (scope: string): boolean => {
  const scopes = session.value?.scopes ?? [];
  return scopes.includes(scope) || scopes.includes("admin");
};

export const mayWrite = computed(() => may("jobs:write"));
export const mayCancel = computed(() => may("jobs:cancel") || may("jobs:write"));
export const mayDelete = computed(() => may("jobs:delete"));
export const isAdmin = computed(() => may("admin"));
/** The one job that this visitor's link speaks of. */
export const onlyJob = computed(() => (session.value?.job_id as string | null | undefined) ?? null);

export async function readSession(): Promise<void> {
  try {
    session.value = await get<Session>("session");
    signInNeeded.value = false;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    // A server that is away for a moment must not leave the page without its buttons.
    if (error.status === 0 || error.status >= 500) setTimeout(() => void readSession(), READ_AGAIN);
  }
}

export async function signIn(key: string): Promise<void> {
  await send("POST", "session", { body: { key } });
  tellWho();
}

export async function signOut(): Promise<void> {
  try {
    await send("DELETE", "session");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 401) return void say(words(error)); // 401: the session had ended already
  }
  tellWho();
}
