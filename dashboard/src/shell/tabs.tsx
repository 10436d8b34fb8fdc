/** The status tabs with their counts, and the chart of the last hour. */
import { computed, signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { counts, stalledCount, waitingCount } from "../live/feed";
import { StatusIcon, type Look } from "../parts/icons";
import { Link } from "../parts/link";
import { formatCount } from "../text/time";
import { get, Problem } from "../wire/api";
import { STATUSES, type Counts, type Stats } from "../wire/types";
import { place, TABS, type Tab } from "./address";
import { HourChart } from "./hourchart";

export const NAMES: Record<Tab, string> = {
  all: "All",
  pending: "Pending",
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  stalled: "Stalled",
  waiting: "On hold",
};
/** What the tab counts, where its name alone does not say it. */
const MEANING: Partial<Record<Tab, string>> = {
  waiting: "Wait for other jobs, for an answer or a time, or are paused; not for a worker or a limit",
};

type Sums = Partial<Record<Tab, number>>;

export function sumsOf(counts: Counts): Sums {
  const sums: Sums = { all: 0 };
  for (const status of STATUSES) sums[status] = 0;
  for (const ofType of Object.values(counts)) {
    for (const status of STATUSES) {
      sums[status] = (sums[status] ?? 0) + (ofType[status] ?? 0);
      sums.all = (sums.all ?? 0) + (ofType[status] ?? 0);
    }
  }
  return sums;
}

const COUNT_EVERY = 5000;

/** The statistics of the jobs that the filter matches; null without a filter, or while they are not known. */
const matching = signal<{ q: string; sums: Sums; complete: boolean } | null>(null);

async function countMatching(): Promise<void> {
  const { q } = place.peek();
  if (q === "" || document.visibilityState !== "visible") return;
  try {
    const found = await get<Stats>("stats", { q, window: "1h", step: "1h" });
    matching.value = { q, sums: { ...sumsOf(found.counts), stalled: found.stalled, waiting: found.waiting }, complete: found.complete };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

/** Counts by tab, of the jobs that the filter matches; empty while they are not known. */
export const tabCounts = computed<Sums>(() => {
  const { q, page } = place.value;
  if (q !== "" && (page === "jobs" || page === "job")) return matching.value?.q === q ? matching.value.sums : {};
  if (counts.value === null) return {};
  const sums = sumsOf(counts.value);
  if (stalledCount.value !== null) sums.stalled = stalledCount.value;
  if (waitingCount.value !== null) sums.waiting = waitingCount.value;
  return sums;
});

export function Tabs() {
  const { q } = place.value;
  const more = q !== "" && matching.value?.complete === false ? "+" : "";
  useEffect(() => {
    void countMatching();
    if (q === "") return;
    const timer = setInterval(() => void countMatching(), COUNT_EVERY);
    return () => clearInterval(timer);
  }, [q]);
  return (
    <nav class="tabs" aria-label="Statuses">
      {TABS.map((tab, at) => {
        const count = tabCounts.value[tab];
        return (
          <Link
            key={tab}
            to={{ tab, page: "jobs" }}
            title={`${MEANING[tab] ?? NAMES[tab]} (${at + 1})`}
            aria-current={place.value.tab === tab ? "page" : undefined}
          >
            {tab !== "all" && <StatusIcon look={(tab === "waiting" ? "pending" : tab) as Look} />}
            {NAMES[tab]} {count !== undefined && <b>{formatCount(count)}{more}</b>}
          </Link>
        );
      })}
      <HourChart />
    </nav>
  );
}
