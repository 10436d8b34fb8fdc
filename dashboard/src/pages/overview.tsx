/** The whole at a glance: what runs and how long it still needs, waits, throughput, the slowest types, what stalls. */
import { useMemo } from "preact/hooks";
import { Link } from "../parts/link";
import { Mini } from "../parts/mini";
import { pageAt, place } from "../shell/address";
import { sumsOf, tabCounts } from "../shell/tabs";
import { span, whole } from "../text/time";
import { rowOf } from "../wire/row";
import type { JobList, Row, Stats } from "../wire/types";
import type { Spread, TypeNumbers } from "../job/usual";
import { Throughput, type Step } from "./throughput";
import { usePolled } from "./polled";
import { Waiting } from "./state";

const WINDOWS: Record<string, string> = { "1h": "1m", "24h": "15m", "7d": "2h" };
const SHOWN = 12;

export function OverviewPage() {
  const window = place.value.window in WINDOWS ? place.value.window : "1h";
  const stats = usePolled<Stats>("stats", { window, step: WINDOWS[window] ?? "1m" }, 5000);
  const running = usePolled<JobList>("jobs", { q: "status:running", limit: "200" }, 2000);
  const stalled = usePolled<JobList>("jobs", { q: "is:stalled", limit: "20" }, 5000);
  const numbers = stats.value.value;
  const rows = useMemo(() => byTimeLeft((running.value.value?.jobs ?? []).map(rowOf)), [running.value.value]);
  const flagged = (stalled.value.value?.jobs ?? []).map(rowOf);
  const types = (numbers?.types ?? []) as unknown as TypeNumbers[];
  // Whoever sees only some of the jobs is told no counts of all; the statistics count what they see.
  const sums = tabCounts.value.all === undefined && numbers !== null ? sumsOf(numbers.counts) : tabCounts.value;
  return (
    <main class="main">
      <div class="sheet">
        <h1>Overview</h1>
        <Waiting of={stats} />
        <div class="tiles">
          <Tile name="Running" value={sums.running === undefined ? "–" : whole(sums.running)} note={sums.pending === undefined ? "" : `${whole(sums.pending)} pending`} />
          <Tile name="Queue wait, half within" {...wait(numbers?.wait as unknown as Spread | undefined)} />
          <Tile name="Duration, half within" {...wait(numbers?.duration as unknown as Spread | undefined)} />
          <Tile name="Stalled" value={whole(numbers?.stalled ?? 0)} note={numbers?.complete === false ? "numbers of the newest jobs" : ""} />
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
          <Throughput steps={(numbers?.steps ?? []) as unknown as Step[]} />
        </section>
        <div class="columns">
          <section class="card panel" aria-label="Running now">
            <h2>Running now, soonest first</h2>
            <div>
              {rows.slice(0, SHOWN).map((row) => (
                <Mini key={row.job_id} row={row} />
              ))}
              {rows.length === 0 && <p class="muted">Nothing runs.</p>}
            </div>
            {rows.length > SHOWN && (
              <Link class="button plain" to={pageAt("jobs", { tab: "running", q: "" })}>
                All {whole(sums.running ?? rows.length)}
              </Link>
            )}
          </section>
          <section class="card panel" aria-label="Slowest types">
            <h2>Slowest types</h2>
            {types.length === 0 && <p class="muted">Nothing has ended.</p>}
            <div class="scroll" hidden={types.length === 0}>
              <table class="table">
                <thead>
                  <tr>
                    <th>Type</th>
                    <th class="num">Ended</th>
                    <th class="num">p50</th>
                    <th class="num">p95</th>
                  </tr>
                </thead>
                <tbody>
                  {types.slice(0, 8).map((one) => (
                    <tr key={one.job_type}>
                      <td>
                        <Link to={pageAt("types", { type: one.job_type })}>{one.job_type}</Link>
                      </td>
                      <td class="num">{whole(one.completed + one.failed + one.cancelled)}</td>
                      <td class="num">{span(one.duration.p50)}</td>
                      <td class="num">{span(one.duration.p95)}</td>
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
              {flagged.length === 0 && <p class="muted">Nothing stalls.</p>}
            </div>
          </section>
        </div>
      </div>
    </main>
  );
}

function wait(spread: Spread | undefined): { value: string; note: string } {
  return { value: span(spread?.p50), note: spread?.p95 == null ? "" : `95% within ${span(spread.p95)}` };
}

function byTimeLeft(rows: Row[]): Row[] {
  // By the middle of its range, which is what a row says.
  const end = ({ eta, stalled }: Row): number =>
    eta === null || stalled ? Infinity : Date.parse(eta.earliest) + Date.parse(eta.latest);
  return rows.sort((a, b) => end(a) - end(b));
}

function Tile({ name, value, note }: { name: string; value: string; note: string }) {
  return (
    <div class="card tile">
      <span class="muted small">{name}</span>
      <span class="big">{value}</span>
      <span class="muted small">{note}</span>
    </div>
  );
}
