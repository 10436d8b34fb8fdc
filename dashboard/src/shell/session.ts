/** Who looks at this page and what they may do. The server decides; the page hides what would be refused. */
import { computed, signal } from "@preact/signals";
import { get, Problem, send, signInNeeded } from "../wire/api";
import type { Session } from "../wire/types";

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
  }
}

export async function signIn(key: string): Promise<void> {
  await send("POST", "session", { body: { key } });
  await readSession();
}

export async function signOut(): Promise<void> {
  await send("DELETE", "session");
  session.value = null;
  signInNeeded.value = true;
}
