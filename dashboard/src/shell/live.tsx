/** The live indicator: whether the page is up to date, and since when it is not. */
import { heldChanges, pause, paused, rate } from "../jobs/list";
import { now } from "../live/clock";
import { link, reconnect } from "../live/feed";
import { clockTime, formatCount } from "../text/time";

const OFFLINE_AFTER = 10_000;

export function LivePill() {
  const state = link.value;
  const at = now.value;
  let look = "completed";
  let word = "Live";
  let more = `${formatCount(rate.value)}/s`;
  let help = "Pause (Space)";
  if (state.kind === "retrying") {
    look = "failed";
    const away = Date.now() - state.since > OFFLINE_AFTER;
    word = away ? `Offline since ${clockTime(state.since).slice(0, 5)}` : "Reconnecting";
    more = away ? "" : `in ${Math.max(0, Math.ceil((state.at - Date.now()) / 1000))} s`;
    help = `${state.why}. Press to try now.`;
    void at;
  } else if (state.kind === "no-store") {
    look = "failed";
    word = `${state.store} unreachable`;
    more = `since ${clockTime(state.since).slice(0, 5)}`;
    help = "The store does not answer. What is shown may be out of date.";
  } else if (paused.value) {
    look = "stalled";
    word = "Paused";
    more = heldChanges.value === 1 ? "1 change" : `${formatCount(heldChanges.value)} changes`;
    help = "Resume (Space)";
  } else if (state.kind === "connecting") {
    look = "pending";
    word = "Connecting";
    more = "";
  }
  return (
    <button
      type="button"
      class={`live of-${look}`}
      aria-pressed={paused.value}
      title={help}
      onClick={() => (state.kind === "retrying" || state.kind === "no-store" ? reconnect() : pause(!paused.peek()))}
    >
      <span class={`dot${look === "completed" ? "" : " ring"}`} />
      <span class="word">{word}</span>
      {more !== "" && <span class="rate">{more}</span>}
    </button>
  );
}
