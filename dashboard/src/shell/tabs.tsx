/** The statuses with their exact counts, and what was finished in the last hour. */
import { computed } from "@preact/signals";
import { counts, stalledCount } from "../live/feed";
import { StatusIcon, type Look } from "../parts/icons";
import { Link } from "../parts/link";
import { whole } from "../text/time";
import { STATUSES, type Counts } from "../wire/types";
import { place, TABS, type Tab } from "./address";
import { HourChart } from "./hour";

const NAMES: Record<Tab, string> = {
  all: "All",
  pending: "Pending",
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  stalled: "Stalled",
};

type Sums = Partial<Record<Tab, number>>;

export function sumsOf(told: Counts): Sums {
  const sums: Sums = { all: 0 };
  for (const status of STATUSES) sums[status] = 0;
  for (const ofType of Object.values(told)) {
    for (const status of STATUSES) {
      sums[status] = (sums[status] ?? 0) + (ofType[status] ?? 0);
      sums.all = (sums.all ?? 0) + (ofType[status] ?? 0);
    }
  }
  return sums;
}

/** Counts by tab: of all jobs, as the server counts them; none for whoever sees only some of them. */
export const tabCounts = computed<Sums>(() => {
  if (counts.value === null) return {};
  const sums = sumsOf(counts.value);
  if (stalledCount.value !== null) sums.stalled = stalledCount.value;
  return sums;
});

export function Tabs() {
  return (
    <nav class="tabs" aria-label="Statuses">
      {TABS.map((tab, at) => {
        const count = tabCounts.value[tab];
        return (
          <Link
            key={tab}
            to={{ tab, page: "jobs" }}
            title={`${NAMES[tab]} (${at + 1})`}
            aria-current={place.value.tab === tab ? "page" : undefined}
          >
            {tab !== "all" && <StatusIcon look={tab as Look} />}
            {NAMES[tab]} {count !== undefined && <b>{whole(count)}</b>}
          </Link>
        );
      })}
      <HourChart />
    </nav>
  );
}
