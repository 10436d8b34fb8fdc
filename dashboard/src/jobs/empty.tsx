/** The text of an empty list: why it is empty, and what to do about it. */
import { counts, link, reconnect } from "../live/feed";
import { filter, go, place } from "../shell/address";
import { now } from "../live/clock";
import { CodeHolder } from "../parts/copyable";
import { load, loading, problem } from "./list";

const FIRST = `from milepost import JobManager
manager = JobManager("sqlite:///jobs.db")  # the store of this server
with manager.track("ingestion") as run:
    for page in run.each(["a.pdf", "b.pdf"]): run.log(page)`;

const TERM = /(?:not\.)?(?:[A-Za-z][\w.-]*:)?(?:"(?:[^"\\]|\\.)*"|[^\s"])+/g;

export function Empty() {
  const wrong = problem.value;
  if (wrong !== null) return <Broken detail={wrong.detail} status={wrong.status} position={wrong.more["position"]} />;
  if (loading.value) {
    return (
      <div class="empty muted" role="row">
        <span role="gridcell">Loading…</span>
      </div>
    );
  }
  const { q, tab } = place.value;
  if (filter.value !== "") {
    const terms = q.match(TERM) ?? [];
    return (
      <div class="empty" role="row">
        <div role="gridcell" class="empty">
          <p>No matching jobs</p>
          <p class="actions">
            {tab !== "all" && (
              <button type="button" class="button" onClick={() => go({ tab: "all" })}>
                Show all statuses
              </button>
            )}
            {terms.map((term) => (
              <button
                key={term}
                type="button"
                class="button"
                onClick={() => go({ q: terms.filter((one) => one !== term).join(" ") })}
              >
                Remove <code>{term}</code>
              </button>
            ))}
          </p>
        </div>
      </div>
    );
  }
  const any = Object.keys(counts.value ?? {}).length > 0;
  return (
    <div class="empty" role="row">
      <div role="gridcell" class="empty">
        <p>{any ? "No jobs to show" : "No jobs yet. These four lines create the first:"}</p>
        {!any && <CodeHolder text={FIRST} label="Copy the lines" />}
      </div>
    </div>
  );
}

function Broken({ detail, status, position }: { detail: string; status: number; position: unknown }) {
  void now.value; // counts down with the page's clock; the time of the next attempt is by this machine's clock
  const state = link.value;
  if (status === 422) {
    const text = filter.value;
    const place = typeof position === "number" ? position : null;
    return (
      <div class="empty" role="row">
        <div role="gridcell" class="empty">
          <p>Can't parse this filter: {detail}</p>
          {place !== null && (
            <pre aria-label={`At character ${place + 1}`}>
              {text}
              {"\n"}
              {" ".repeat(place)}^
            </pre>
          )}
          <button type="button" class="button" onClick={() => go({ q: "" })}>
            Clear the filter
          </button>
        </div>
      </div>
    );
  }
  return (
    <div class="empty" role="row">
      <div role="gridcell" class="empty">
        <p>{detail}.</p>
        {state.kind === "retrying" && <p class="muted">Next try in {Math.max(0, Math.ceil((state.at - Date.now()) / 1000))} s</p>}
        <button
          type="button"
          class="button"
          onClick={() => {
            reconnect();
            void load();
          }}
        >
          Try now
        </button>
      </div>
    </div>
  );
}
