/** The sign-in form. */
import { useSignal } from "@preact/signals";
import { Mark } from "../parts/icons";
import { Problem, share, errorText } from "../wire/api";
import { linkProblem, sessionEnded, signIn } from "./session";

/** For an expired link: a key would not help while the token is sent with each request. */
function LinkIsOver() {
  const same = new URL(location.href);
  same.searchParams.delete("share");
  return (
    <main class="sign-in card">
      <h1 class="brand">
        <Mark /> milepost
      </h1>
      <p role="alert">This link is invalid or has expired.</p>
      <a class="button" href={same.href}>
        Sign in with a key
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
  const shown = wrong.value ?? linkProblem.value ?? (sessionEnded() ? "Your session has ended. Sign in again." : null);
  const enter = async (event: Event): Promise<void> => {
    event.preventDefault();
    busy.value = true;
    try {
      await signIn(key.value.trim());
    } catch (error) {
      wrong.value = error instanceof Problem && error.status === 401 ? "That key isn't valid. It may have been revoked or expired." : errorText(error);
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
            aria-describedby={shown === null ? undefined : "wrong"}
            onInput={(event) => (key.value = event.currentTarget.value)}
          />
        </label>
        {shown !== null && (
          <p id="wrong" class="problem" role="alert">
            {shown}
          </p>
        )}
        <button type="submit" class="button strong" disabled={busy.value}>
          Sign in
        </button>
      </form>
      <p class="muted small">
        Create a key with <code>milepost keys create NAME</code>.
      </p>
    </main>
  );
}
