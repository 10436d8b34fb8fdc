/** The jobs of a batch as one bar, and the way to their list; or that to the children that a job waits for. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Link } from "../parts/link";
import { pageAt } from "../shell/address";
import { formatCount } from "../text/time";
import { get } from "../wire/api";
import { isBatch, isEnded, type BatchCounts, type JobRecord } from "../wire/types";

const REFRESH = 2000;

export function Members({ shown }: { shown: JobRecord }) {
  if (isBatch(shown)) return <BatchMembers key={shown.job_id} shown={shown} />;
  if (shown.waiting_for?.params["group"] !== `children:${shown.job_id}`) return null;
  return (
    <p class="says">
      <List q={`parent:${quoted(shown.job_id)}`}>Show the children</List>
    </p>
  );
}

function BatchMembers({ shown }: { shown: JobRecord }) {
  const counts = useSignal<BatchCounts | null>(null);
  const ended = isEnded(shown.status);
  useEffect(() => {
    let timer = 0;
    const read = async (): Promise<void> => {
      counts.value = await get<BatchCounts>(`batches/${encodeURIComponent(shown.job_id)}`).catch(() => counts.peek());
      if (!ended) timer = window.setTimeout(() => void read(), REFRESH);
    };
    void read();
    return () => clearTimeout(timer);
  }, [shown.job_id, ended]);
  const found = counts.value;
  return (
    <section class="section" aria-label="Jobs of the batch">
      {found !== null && (
        <p>
          <progress max={1} value={found.progress} aria-label="Progress of the batch" />{" "}
          {`${formatCount(found.total - found.open)} of ${formatCount(found.total)} jobs have ended`}
          {found.failed > 0 && `, ${formatCount(found.failed)} failed`}
          {found.cancelled > 0 && `, ${formatCount(found.cancelled)} cancelled`}
        </p>
      )}
      <List q={`group:${quoted(shown.job_id)}`}>Show the jobs</List>
    </section>
  );
}

function List({ q, children }: { q: string; children: string }) {
  return <Link to={{ ...pageAt("jobs"), tab: "all", q }}>{children}</Link>;
}

const quoted = (text: string): string => `"${text.replace(/[\\"]/g, "\\$&")}"`;
