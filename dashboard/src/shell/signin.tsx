/** The door: a key is asked for where the server wants one. */
import { useSignal } from "@preact/signals";
import { Mark } from "../parts/icons";
import { Problem, share, words } from "../wire/api";
import { signIn } from "./session";

/** A link that is over: no key could help while its token goes with every call. */
function LinkIsOver() {
  const same = new URL(location.href);
  same.searchParams.delete("share");
  return (
    <main class="sign-in card">
      <h1 class="brand">
        <Mark /> milepost
      </h1>
      <p role="alert">This link is not valid, or its time has come.</p>
      <a class="button" href={same.href}>
        Open it with a key
      </a>
    </main>
  );
}

export function SignIn() {
  return share === null ? <KeyForm /> : <LinkIsOver />;
}

function KeyForm() {
  const key = useSignal("");
  const wrong = useSignal<string | null>(null);
  const busy = useSignal(false);
  const enter = async (event: Event): Promise<void> => {
    event.preventDefault();
    busy.value = true;
    try {
      await signIn(key.value.trim());
    } catch (error) {
      wrong.value = words(error);
      if (!(error instanceof Problem)) throw error;
    } finally {
      busy.value = false;
    }
  };
  return (
    <main class="sign-in card">
      <h1 class="brand">
        <Mark /> milepost
      </h1>
      <form class="form" onSubmit={(event) => void enter(event)}>
        <label>
          Key
          <input
            class="field mono"
            type="password"
            autocomplete="current-password"
            placeholder="mp_…"
            required
            value={key.value}
            aria-describedby={wrong.value === null ? undefined : "wrong"}
            onInput={(event) => (key.value = event.currentTarget.value)}
          />
        </label>
        {wrong.value !== null && (
          <p id="wrong" class="problem" role="alert">
            {wrong.value}
          </p>
        )}
        <button type="submit" class="button strong" disabled={busy.value}>
          Sign in
        </button>
      </form>
      <p class="muted small">
        <code>milepost keys create</code> makes a key.
      </p>
    </main>
  );
}
