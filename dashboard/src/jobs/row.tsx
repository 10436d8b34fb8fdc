/** One row of the list. It depends on its own job and the clock, so a change redraws only this row. */
import { useComputed } from "@preact/signals";
import { Bar, Left } from "../parts/progress";
import { progressText } from "../text/progress";
import { shownState, StatusIcon } from "../parts/icons";
import { now } from "../live/clock";
import { href, place } from "../shell/address";
import { ago, elapsed, formatAmount, localTime, remaining, shortAmount, utcTime } from "../text/time";
import { plain } from "../text/plain";
import type { Row } from "../wire/types";
import { unmatched, rows, withUsage } from "./list";
import { allOf, selectedIds, cursor, selectRange, toggle } from "./selection";

interface Props {
  id: string;
  index: number;
  top: number;
  open: (id: string | null) => void;
}

const GENERATED = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
/** A generated id up to its first random digits, by which the filter finds the job; of a long id its two ends. */
export function shortId(id: string): string {
  if (GENERATED.test(id)) return id.slice(0, 18);
  return id.length > 24 ? `${id.slice(0, 12)}…${id.slice(-8)}` : id;
}

export function JobRow({ id, index, top, open }: Props) {
  const source = rows.get(id);
  const isCursor = useComputed(() => cursor.value === id);
  const isOpen = useComputed(() => place.value.job === id);
  const isChosen = useComputed(() => allOf.value !== null || selectedIds.value.has(id));
  const isLeaving = useComputed(() => unmatched.value.has(id));
  if (source === undefined) return null;
  const job = source.value;
  const ticking = job.status === "running" || job.status === "pending" || job.stopping;
  const at = now.value;
  const look = shownState(job);
  const rest = remaining(job, at);
  const classes = ["row body-row", isOpen.value ? "open" : "", isCursor.value ? "cursor" : "", isLeaving.value ? "leaving" : ""];
  return (
    <div
      role="row"
      id={`row-${id}`}
      class={classes.filter(Boolean).join(" ")}
      aria-rowindex={index + 2}
      aria-selected={isChosen.value}
      style={{ transform: `translateY(${top}px)` }}
      onMouseDown={(event) => {
        if (event.shiftKey) event.preventDefault(); // Shift selects rows here, not text
      }}
      onClick={(event) => {
        cursor.value = id;
        if (event.shiftKey) selectRange(id);
        else if (event.metaKey || event.ctrlKey) toggle(id);
        else if (!(window.getSelection()?.toString() ?? "")) open(isOpen.peek() ? null : id);
        event.preventDefault();
      }}
    >
      <div
        role="gridcell"
        class="pick"
        onClick={(event) => {
          event.stopPropagation();
          if (event.shiftKey) selectRange(id);
          else toggle(id);
        }}
      >
        <StatusIcon look={look} />
        <span class="box" aria-hidden="true" />
        <span class="unseen">{job.stopping ? "stopping" : look}</span>
      </div>
      <div role="gridcell" class="cut">
        <div class="name">
          <a class="cut" href={href({ job: id })} tabIndex={-1} title={plain(job.title ?? job.job_type)}>
            {job.job_type} <bdi>{plain(job.title ?? "")}</bdi>
          </a>
          <code title={id}>{shortId(id)}</code>
        </div>
        <div class={`message cut${job.status === "failed" ? " bad" : ""}`} title={plain(job.activity)}>
          {plain(job.activity)}
        </div>
      </div>
      <div role="gridcell" class="how-far">
        <Bar job={job} />
        <span class="right">
          {rest !== null && rest.asOf === "" && rest.left !== "a moment" && <span class="left">{rest.left.split(" ")[0]} left · </span>}
          {progressText(job)}
        </span>
      </div>
      <div role="gridcell" class="times">
        {rest !== null ? <Left rest={rest} /> : job.status === "running" ? "unknown" : ""}
      </div>
      {withUsage.value && <UsageCell usage={job.usage} />}
      <div role="gridcell" class="times wide">
        {elapsed(job.started_at, job.completed_at, ticking ? at : 0)}
      </div>
      <div role="gridcell" class="times wide" title={`${localTime(job.created_at)} · ${utcTime(job.created_at)}`}>
        {ago(job.created_at, at)}
      </div>
    </div>
  );
}

/** The first two amounts; the tooltip has all. */
function UsageCell({ usage }: { usage: Row["usage"] }) {
  const amounts = Object.entries(usage);
  return (
    <div role="gridcell" class="times usage" title={amounts.map(([name, amount]) => plain(`${name} ${formatAmount(amount)}`)).join("\n")}>
      {amounts.slice(0, 2).map(([name, amount]) => (
        <div key={name} class="cut">
          {shortAmount(amount)} {plain(name)}
        </div>
      ))}
    </div>
  );
}
