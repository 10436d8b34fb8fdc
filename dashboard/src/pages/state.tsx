/** What a page shows before, or instead of, what it is about. */
import type { Polled } from "./polled";

export function Waiting({ of }: { of: Polled<unknown> }) {
  const wrong = of.problem.value;
  if (wrong === null) return of.value.value === null ? <p class="muted">Loading…</p> : null;
  return (
    <p role="alert">
      {wrong.status === 403 ? "Your key does not allow this." : wrong.detail}{" "}
      <button type="button" class="button" onClick={() => void of.again()}>
        Try now
      </button>
    </p>
  );
}
