/** The content of a page while it loads, or if loading failed. */
import { link } from "../live/feed";
import { clockTime } from "../text/time";
import type { Polled } from "./polled";

export function Waiting({ of }: { of: Polled<unknown> }) {
  const wrong = of.problem.value;
  const isOld = link.value.kind === "no-store" || link.value.kind === "retrying";
  if (of.value.value !== null && (wrong !== null || isOld)) {
    return (
      <p role="alert">
        {wrong === null ? "These numbers are not current" : wrong.detail}. Shown as of {clockTime(of.at.value)}.{" "}
        <button type="button" class="button" onClick={() => void of.again()}>
          Try now
        </button>
      </p>
    );
  }
  if (wrong === null) return of.value.value === null ? <p class="muted">Loading…</p> : null;
  return (
    <p role="alert">
      {wrong.status === 403 ? "Your key doesn't allow this." : wrong.detail}{" "}
      <button type="button" class="button" onClick={() => void of.again()}>
        Try now
      </button>
    </p>
  );
}
