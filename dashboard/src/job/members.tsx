/** The jobs of a batch, or the children that a job waits for or failed with, as one bar, and the way to their list. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Link } from "../parts/link";
import { pageAt } from "../shell/address";
import { sumsOf } from "../shell/tabs";
import { formatCount } from "../text/time";
import { get } from "../wire/api";
import { isBatch, isEnded, type BatchCounts, type JobRecord, type Stats } from "../wire/types";

const REFRESH = 2000;

export function Members({ shown }: { shown: JobRecord }) {
  if (isBatch(shown)) return <BatchMembers key={shown.job_id} shown={shown} />;
  const waits = shown.waiting_for?.params["group"] === `children:${shown.job_id}`;
  if (!waits && !shown.failure?.type?.endsWith("ChildFailedError")) return null;
  return <Children key={shown.job_id} shown={shown} />;
}

function BatchMembers({ shown }: { shown: JobRecord }) {
  const read = (): Promise<BatchCounts> => get<BatchCounts>(`batches/${encodeURIComponent(shown.job_id)}`);
  const found = useRepeated(shown, read);
  return (
    <section class="section" aria-label="Jobs of the batch">
      {found !== null && <Ended of={found} name="batch" jobs="jobs" />}
      <List q={`group:${quoted(shown.job_id)}`}>Show the jobs</List>
    </section>
  );
}

function Children({ shown }: { shown: JobRecord }) {
  const q = `parent:${quoted(shown.job_id)}`;
  const found = useRepeated(shown, async () => countsOf(await get<Stats>("stats", { q, window: "1h", step: "1h" })));
  return (
    <section class="section" aria-label="Children">
      {found !== null && <Ended of={found} name="children" jobs="children" />}
      <List q={q}>Show the children</List>
    </section>
  );
}

type Counts = Pick<BatchCounts, "total" | "open" | "failed" | "cancelled" | "progress">;

/** Counts from statistics, null while these leave jobs out. */
function countsOf({ counts, complete }: Stats): Counts | null {
  const sums = sumsOf(counts);
  const total = sums.all ?? 0;
  if (!complete || total === 0) return null;
  const open = (sums.pending ?? 0) + (sums.running ?? 0);
  return { total, open, failed: sums.failed ?? 0, cancelled: sums.cancelled ?? 0, progress: (total - open) / total };
}

function Ended({ of: found, name, jobs }: { of: Counts; name: string; jobs: string }) {
  return (
    <p>
      <progress max={1} value={found.progress} aria-label={`Progress of the ${name}`} />{" "}
      {`${formatCount(found.total - found.open)} of ${formatCount(found.total)} ${jobs} have ended`}
      {found.failed > 0 && `, ${formatCount(found.failed)} failed`}
      {found.cancelled > 0 && `, ${formatCount(found.cancelled)} cancelled`}
    </p>
  );
}

/** What `read` returned last; it is called again and again until the job has ended, or `isLast` says that it does not change. */
export function useRepeated<T>(shown: JobRecord, read: () => Promise<T | null>, isLast: (found: T) => boolean = () => false): T | null {
  const value = useSignal<T | null>(null);
  const ended = isEnded(shown.status);
  useEffect(() => {
    let timer = 0;
    const again = async (): Promise<void> => {
      value.value = await read().catch(() => value.peek());
      if (!ended && (value.peek() === null || !isLast(value.peek()!))) timer = window.setTimeout(() => void again(), REFRESH);
    };
    void again();
    return () => clearTimeout(timer);
  }, [shown.job_id, ended]);
  return value.value;
}

function List({ q, children }: { q: string; children: string }) {
  return <Link to={{ ...pageAt("jobs"), tab: "all", q }}>{children}</Link>;
}

const quoted = (text: string): string => `"${text.replace(/[\\"]/g, "\\$&")}"`;
