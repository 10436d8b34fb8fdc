/** The limits: how many jobs run under each, in all and by partition, their rates, and gates with a button to open them. */
import { now } from "../live/clock";
import { StatusIcon } from "../parts/icons";
import { Link } from "../parts/link";
import { pageAt } from "../shell/address";
import { useAction } from "../shell/action";
import { filterTerm } from "../text/commands";
import { duration, formatCount, localTime, utcTime } from "../text/time";
import { call } from "../wire/api";
import type { Limit, LimitList } from "../wire/types";
import { usePolled } from "./polled";
import { Waiting } from "./placeholder";

const SHOWN_KEYS = 50;
const SHOWN_PARTITIONS = 5;

const busiestFirst = (a: readonly [string, number], b: readonly [string, number]): number => b[1] - a[1] || (a[0] < b[0] ? -1 : 1);

/** Closed gates first, then the keys with the most running jobs. */
const order = (a: Limit, b: Limit): number =>
  Number(b.gate_until !== null) - Number(a.gate_until !== null) || busiestFirst([a.key, a.leases], [b.key, b.leases]);

const used = (count: number, limit: number | null): string => formatCount(count) + (limit === null ? "" : ` of ${formatCount(limit)}`);

export function Limits() {
  const found = usePolled<LimitList>("limits", {}, 2000);
  const limits = [...(found.value.value?.limits ?? [])].sort(order);
  return (
    <section class="card panel limits" aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      <Waiting of={found} />
      {found.value.value !== null && limits.length === 0 && (
        <p class="muted">
          No limits. Set one with <code>milepost limit set KEY --running 8</code> or <code>jobs.limit("KEY", rate="500/min")</code>.
        </p>
      )}
      {limits.length > 0 && (
        <div class="scroll" tabIndex={0} role="group" aria-label="Limits by key">
          <table class="table">
            <thead>
              <tr>
                <th>Limit key</th>
                <th>Running</th>
                <th title="Jobs that wait for nothing but a worker, the limit, the rate or the gate">Waiting</th>
                <th>Rate</th>
              </tr>
            </thead>
            {limits.slice(0, SHOWN_KEYS).map((one) => (
              <LimitRows key={one.key} limit={one} again={found.again} />
            ))}
          </table>
        </div>
      )}
      {limits.length > SHOWN_KEYS && (
        <p class="muted">
          And {formatCount(limits.length - SHOWN_KEYS)} more with fewer running jobs: <code>milepost limit ls</code>
        </p>
      )}
    </section>
  );
}

function LimitRows({ limit, again }: { limit: Limit; again: () => Promise<void> }) {
  const term = filterTerm("limit_key", limit.key);
  const busiest = Object.entries(limit.partitions).sort(busiestFirst);
  const more = busiest.length - SHOWN_PARTITIONS;
  return (
    <tbody>
      <tr>
        <td class="name">
          <Link to={pageAt("jobs", { q: term, tab: "all" })}>{limit.key}</Link>
          <Link class="muted small" to={pageAt("jobs", { q: term, tab: "pending" })} aria-label={`Pending jobs of ${limit.key}`}>
            Pending jobs
          </Link>
          <Gate limit={limit} again={again} />
        </td>
        <td>{used(limit.leases, limit.running)}</td>
        <td>{formatCount(limit.claimable)}</td>
        <td>{limit.rate ?? "–"}</td>
      </tr>
      {(limit.per_partition !== null || busiest.length > 0) && (
        <tr class="small">
          <td colSpan={4}>
            <span class="muted">By partition{limit.per_partition !== null && `, at most ${formatCount(limit.per_partition)} of each`}</span>
            <ul class="ticks">
              {busiest.slice(0, SHOWN_PARTITIONS).map(([name, count]) => (
                <li key={name}>
                  <Link to={pageAt("jobs", { q: `${term} ${filterTerm("partition", name)}`, tab: "running" })}>{name}</Link>{" "}
                  {used(count, limit.per_partition)}
                </li>
              ))}
              {more > 0 && <li class="muted">and {formatCount(more)} more</li>}
            </ul>
          </td>
        </tr>
      )}
    </tbody>
  );
}

function Gate({ limit, again }: { limit: Limit; again: () => Promise<void> }) {
  const { busy, run } = useAction();
  const left = limit.gate_until === null ? 0 : Date.parse(limit.gate_until) - now.value;
  if (left <= 0) return null;
  const open = async (): Promise<void> => {
    await call("DELETE", `gates/${encodeURIComponent(limit.key)}`);
    await again();
  };
  return (
    <div class="actions">
      <span class="chip of-stalled" title={`No job starts before ${localTime(limit.gate_until)} · ${utcTime(limit.gate_until)}`}>
        <StatusIcon look="pending" /> gate closed for {duration(left)}
      </span>
      <button type="button" class="button" aria-label={`Open gate of ${limit.key}`} disabled={busy.value} onClick={() => run(open, `Gate of ${limit.key} opened`)}>
        Open gate
      </button>
    </div>
  );
}
