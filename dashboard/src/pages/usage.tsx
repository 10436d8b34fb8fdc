/** Usage: what jobs have spent in a period, by day, and by type or by the values of a label. */
import { serverNow } from "../live/offset";
import { Link } from "../parts/link";
import { go, pageAt, place } from "../shell/address";
import { filterTerm } from "../text/commands";
import { plain } from "../text/plain";
import { formatAmount, formatCount, shortAmount } from "../text/time";
import type { Usage } from "../wire/types";
import { Waiting } from "./placeholder";
import { usePolled } from "./polled";

const PERIODS: Record<string, number> = { "7d": 7, "30d": 30, "90d": 90 };
const DAY = 86_400_000;
const EVERY = 15_000;
const SHOWN = 12;
const HEIGHT = 72;
/** The group of combinations of labels that the server does not count apart. */
const OTHER = "(other)";

const dayAt = (time: number): string => new Date(time).toISOString().slice(0, 10);

export function UsagePage() {
  const period = place.value.window in PERIODS ? place.value.window : "30d";
  const by = place.value.by ?? "type";
  const since = dayAt(serverNow() - ((PERIODS[period] ?? 30) - 1) * DAY);
  const daily = usePolled<Usage>("usage", { by: "day", since }, EVERY);
  const groups = usePolled<Usage>("usage", { by, since }, EVERY);
  const days = daily.value.value;
  const labels = new Set([...(days?.label_names ?? []).map((name) => `label:${name}`), ...(by === "type" ? [] : [by])]);
  const names = Object.keys(days?.total ?? {});
  return (
    <main class="main">
      <div class="sheet">
        <h1>Usage</h1>
        <div class="question">
          <nav class="segments" aria-label="Period">
            {Object.entries(PERIODS).map(([name, count]) => (
              <Link key={name} to={{ window: name }} aria-current={name === period ? "page" : undefined}>
                {count} days
              </Link>
            ))}
          </nav>
          <label>
            By{" "}
            <select class="field" value={by} onChange={(event) => go({ by: event.currentTarget.value })}>
              <option value="type">type</option>
              {[...labels].map((label) => (
                <option key={label} value={label}>
                  {label.replace(":", " ")}
                </option>
              ))}
            </select>
          </label>
        </div>
        <Waiting of={daily.problem.value === null ? groups : daily} />
        {days !== null && names.length === 0 && (
          <p class="muted">
            No usage in these days. A handler counts what it spends with <code>run.add_usage(tokens=812, usd=0.004)</code>.
          </p>
        )}
        <div class="columns">
          {days !== null && names.map((name) => <Spent key={name} name={name} days={days} groups={groups.value.value} />)}
        </div>
      </div>
    </main>
  );
}

/** One name, such as tokens: its sum, a bar for each day, and a bar for each group. */
function Spent({ name, days, groups }: { name: string; days: Usage; groups: Usage | null }) {
  const dates: string[] = [];
  for (let at = Date.parse(days.since); at <= Date.parse(days.until); at += DAY) dates.push(dayAt(at));
  const daily = dates.map((date) => days.groups[date]?.[name] ?? 0);
  const most = Math.max(...daily);
  const found = Object.entries(groups?.groups ?? {}).flatMap(([group, amounts]) => (amounts[name] ? [[group, amounts[name]] as const] : []));
  found.sort((a, b) => b[1] - a[1]);
  const first = found[0]?.[1] ?? 1;
  return (
    <section class="card panel" aria-label={plain(name)}>
      <h2>{plain(name)}</h2>
      <span class="big" title={formatAmount(days.total[name] ?? 0)}>
        {shortAmount(days.total[name] ?? 0)}
      </span>
      <figure>
        <div class="days" role="img" aria-label={`By day, in UTC: at most ${formatAmount(most)}, on ${dates[daily.indexOf(most)] ?? ""}`}>
          {daily.map((amount, at) => (
            <span key={dates[at]} title={`${dates[at]}: ${formatAmount(amount)}`}>
              <i style={{ height: `${Math.ceil((amount / most) * HEIGHT)}px` }} />
            </span>
          ))}
        </div>
        <figcaption class="small muted">
          <span>{days.since}</span>
          <span>{days.until} UTC</span>
        </figcaption>
      </figure>
      <ol class="spent">
        {found.slice(0, SHOWN).map(([group, amount]) => (
          <li key={group} title={formatAmount(amount)}>
            <Group by={groups?.by ?? ""} name={group} />
            <span>{shortAmount(amount)}</span>
            <div class="bar">
              <div style={{ transform: `scaleX(${amount / first})` }} />
            </div>
          </li>
        ))}
      </ol>
      {found.length > SHOWN && <p class="muted">And {formatCount(found.length - SHOWN)} more that spent less</p>}
    </section>
  );
}

/** A group, with a link to its jobs. */
function Group({ by, name }: { by: string; name: string }) {
  const label = by.replace("label:", "");
  if (by !== "type" && name === "") return <span class="muted">without {plain(label)}</span>;
  if (by !== "type" && name === OTHER) return <span class="muted">other combinations of labels</span>;
  const term = by === "type" ? filterTerm("type", name) : filterTerm(`label.${label}`, name);
  return (
    <Link class="cut" to={pageAt("jobs", { q: term, tab: "all" })}>
      <bdi>{plain(name)}</bdi>
    </Link>
  );
}
