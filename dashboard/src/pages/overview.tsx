/** Overview: running jobs by time left, queue, throughput, slowest types, stalled jobs. */
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { now } from "../live/clock";
import { Link } from "../parts/link";
import { Mini } from "../parts/jobline";
import { pageAt, place } from "../shell/address";
import { sumsOf, tabCounts } from "../shell/tabs";
import { typeFilter } from "../text/commands";
import { plain } from "../text/plain";
import { duration, preciseDuration, formatCount } from "../text/time";
import type { Row, RowList, Stats } from "../wire/types";
import type { Spread, TypeNumbers } from "../job/durations";
import { Throughput, type Step } from "./throughput";
import { usePolled, type Polled } from "./polled";
import { Waiting } from "./placeholder";

const WINDOWS: Record<string, string> = { "1h": "1m", "24h": "15m", "7d": "2h" };
const SHOWN = 12;

export function OverviewPage() {
  const window = place.value.window in WINDOWS ? place.value.window : "1h";
  const stats = usePolled<Stats>("stats", { window, step: WINDOWS[window] ?? "1m" }, 5000);
  const running = usePolled<RowList>("jobs", { q: "status:running", limit: "200", fields: "row" }, 2000);
  const stalled = usePolled<RowList>("jobs", { q: "is:stalled", limit: "20", fields: "row" }, 5000);
  const numbers = stats.value.value;
  const rows = useMemo(() => byTimeLeft([...(running.value.value?.jobs ?? [])]), [running.value.value]);
  const flagged = stalled.value.value?.jobs ?? [];
  const types = (numbers?.types ?? []) as unknown as TypeNumbers[];
  // A user who sees only some jobs gets no counts of all; the statistics count the visible jobs.
  const sums = tabCounts.value.all === undefined && numbers !== null ? sumsOf(numbers.counts) : tabCounts.value;
  return (
    <main class="main">
      <div class="sheet">
        <h1>Overview</h1>
        <Waiting of={stats} />
        <div class="tiles">
          <Tile name="Running" value={sums.running === undefined ? "–" : formatCount(sums.running)} note={sums.pending === undefined ? "" : `${formatCount(sums.pending)} pending`} />
          <OldestPending numbers={numbers} />
          <Tile name="Median queue wait" {...wait(numbers?.wait as unknown as Spread | undefined)} />
          <Tile name="Median duration" {...wait(numbers?.duration as unknown as Spread | undefined)} />
          <Tile name="Stalled" value={numbers === null ? "–" : formatCount(numbers.stalled)} note={numbers?.complete === false ? "numbers of the newest jobs" : ""} />
        </div>
        <section class="card panel apart" aria-label="Throughput">
          <header>
            <h2>Finished</h2>
            <nav class="segments" aria-label="Window">
              {Object.keys(WINDOWS).map((name) => (
                <Link key={name} to={{ window: name }} aria-current={name === window ? "page" : undefined}>
                  {name.replace("h", " h").replace("d", " d")}
                </Link>
              ))}
            </nav>
          </header>
          {numbers === null ? <Unread of={stats} /> : <Throughput steps={numbers.steps as unknown as Step[]} />}
        </section>
        <div class="columns">
          <section class="card panel" aria-label="Running now">
            <h2>Running now, next to finish first</h2>
            <div>
              {rows.slice(0, SHOWN).map((row) => (
                <Mini key={row.job_id} row={row} />
              ))}
              <Unread of={running} />
              {running.value.value !== null && rows.length === 0 && <p class="muted">No jobs running</p>}
            </div>
            {rows.length > SHOWN && (
              <Link class="button plain" to={pageAt("jobs", { tab: "running", q: "" })}>
                All {formatCount(sums.running ?? rows.length)}
              </Link>
            )}
          </section>
          <section class="card panel" aria-label="Slowest types">
            <h2>Slowest types</h2>
            <Unread of={stats} />
            {numbers !== null && types.length === 0 && <p class="muted">No finished jobs yet</p>}
            <div class="scroll" hidden={types.length === 0}>
              <table class="table">
                <thead>
                  <tr>
                    <th>Type</th>
                    <th class="num">Finished</th>
                    <th class="num">p50</th>
                    <th class="num">p95</th>
                  </tr>
                </thead>
                <tbody>
                  {types.slice(0, 8).map((one) => (
                    <tr key={one.job_type}>
                      <td>
                        <Link to={pageAt("jobs", { q: typeFilter(one.job_type), tab: "all" })}>{one.job_type}</Link>
                      </td>
                      <td class="num">{formatCount(one.completed + one.failed + one.cancelled)}</td>
                      <td class="num">{preciseDuration(one.duration.p50)}</td>
                      <td class="num">{preciseDuration(one.duration.p95)}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            <h2>Stalled</h2>
            <div>
              {flagged.map((row) => (
                <Mini key={row.job_id} row={row} />
              ))}
              <Unread of={stalled} />
              {stalled.value.value !== null && flagged.length === 0 && <p class="muted">No stalled jobs</p>}
            </div>
          </section>
        </div>
      </div>
    </main>
  );
}

/** A placeholder for numbers that have not been read yet. */
function Unread({ of }: { of: Polled<unknown> }) {
  return of.value.value === null ? <p class="muted">{of.problem.value === null ? "Loading…" : "Not available"}</p> : null;
}

function wait(spread: Spread | undefined): { value: string; note: string } {
  return { value: preciseDuration(spread?.p50), note: spread?.p95 == null ? "" : `p95 ${preciseDuration(spread.p95)}` };
}

function byTimeLeft(rows: Row[]): Row[] {
  // By the middle of its range as of its last update, which is the value in its row.
  const left = ({ eta, stalled, updated_at }: Row): number =>
    eta === null || stalled || updated_at === null ? Infinity : Date.parse(eta.earliest) + Date.parse(eta.latest) - 2 * Date.parse(updated_at);
  return rows.sort((a, b) => left(a) - left(b));
}

/** How long the next job has waited, and why: a queue that stands still has no other sign here. */
function OldestPending({ numbers }: { numbers: Stats | null }) {
  const oldest = numbers?.oldest_pending;
  const name = "Oldest pending";
  if (oldest == null) return <Tile name={name} value={numbers === null ? "–" : "None"} note="" />;
  return (
    <Tile
      name={name}
      value={duration(now.value - Date.parse(oldest.since))}
      note={<Link to={pageAt("jobs", { tab: "pending", q: "", job: oldest.job_id })}>{plain(oldest.activity)}</Link>}
    />
  );
}

function Tile({ name, value, note }: { name: string; value: string; note: ComponentChildren }) {
  return (
    <div class="card tile">
      <span class="muted small">{name}</span>
      <span class="big">{value}</span>
      <span class="muted small">{note}</span>
    </div>
  );
}
