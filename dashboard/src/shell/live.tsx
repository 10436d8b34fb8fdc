/** The live pill: whether what is shown is true now, and since when not. */
import { heldChanges, pause, paused, rate } from "../jobs/list";
import { now } from "../live/clock";
import { link, reconnect } from "../live/feed";
import { clockTime, whole } from "../text/time";

const OFFLINE_AFTER = 10_000;

export function LivePill() {
  const state = link.value;
  const at = now.value;
  let look = "completed";
  let word = "Live";
  let more = `${whole(rate.value)}/s`;
  let help = "Pause (Space)";
  if (state.kind === "retrying") {
    look = "failed";
    const away = Date.now() - state.since > OFFLINE_AFTER;
    word = away ? `Offline since ${clockTime(state.since).slice(0, 5)}` : "Reconnecting";
    more = away ? "" : `in ${Math.max(0, Math.ceil((state.at - Date.now()) / 1000))} s`;
    help = `${state.why}. Press to try now.`;
    void at;
  } else if (paused.value) {
    look = "stalled";
    word = "Paused";
    more = heldChanges.value === 1 ? "1 change" : `${whole(heldChanges.value)} changes`;
    help = "Go on (Space)";
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
      onClick={() => (state.kind === "retrying" ? reconnect() : pause(!paused.peek()))}
    >
      <span class={`dot${look === "completed" ? "" : " ring"}`} />
      <span class="word">{word}</span>
      {more !== "" && <span class="rate">{more}</span>}
    </button>
  );
}
