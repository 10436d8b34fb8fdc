/** One row of the list. It follows its own job and the clock, so a change redraws this row and no other. */
import { useComputed } from "@preact/signals";
import { Bar } from "../parts/progress";
import { lookOf, StatusIcon } from "../parts/icons";
import { now } from "../live/clock";
import { href, place } from "../shell/address";
import { ago, between, localTime, percent, timeLeft, utcTime } from "../text/time";
import type { Row } from "../wire/types";
import { leaving, rows } from "./list";
import { allOf, chosen, cursor, extend, toggle } from "./selection";

interface Props {
  id: string;
  index: number;
  top: number;
  open: (id: string) => void;
}

/** The beginning of an id: for one of ours its time, to a millisecond. The filter finds a job by it. */
export const shortId = (id: string): string => (id.length > 16 ? id.slice(0, 13) : id);

/** What is going on, in words. */
export function messageOf(job: Row, at: number): string {
  if (job.stopping) {
    const asked = job.completed_at === null ? at : Date.parse(job.completed_at);
    return at - asked > 10_000 ? "Stopping: the worker has not answered" : "Stopping…";
  }
  if (job.status === "failed") return job.error === null ? job.message : `Failed: ${job.error}`;
  if (job.status === "running" && job.stalled) return `${job.stalled} · ${job.message}`;
  if (job.status === "pending" && job.waiting_for !== null) return `Waiting for ${job.waiting_for}`;
  const items = job.item_counts;
  if (items !== null && items.failed > 0) return `${job.message} · ${items.failed.toLocaleString("en-US")} items failed`;
  return job.message;
}

export function JobRow({ id, index, top, open }: Props) {
  const source = rows.get(id);
  const isCursor = useComputed(() => cursor.value === id);
  const isOpen = useComputed(() => place.value.job === id);
  const isChosen = useComputed(() => allOf.value !== null || chosen.value.has(id));
  const isLeaving = useComputed(() => leaving.value.has(id));
  if (source === undefined) return null;
  const job = source.value;
  const ticking = job.status === "running" || job.status === "pending" || job.stopping;
  const at = now.value;
  const look = lookOf(job);
  const left = job.status === "running" ? ((job.stalled ? null : timeLeft(job.eta, at)) ?? "unknown") : null;
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
        if (event.shiftKey) event.preventDefault(); // Shift chooses rows here, not text
      }}
      onClick={(event) => {
        cursor.value = id;
        if (event.shiftKey) extend(id);
        else if (event.metaKey || event.ctrlKey) toggle(id);
        else if (!(window.getSelection()?.toString() ?? "")) open(id);
        event.preventDefault();
      }}
    >
      <div
        role="gridcell"
        class="pick"
        onClick={(event) => {
          event.stopPropagation();
          if (event.shiftKey) extend(id);
          else toggle(id);
        }}
      >
        <StatusIcon look={look} />
        <span class="box" aria-hidden="true" />
        <span class="unseen">{job.stopping ? "stopping" : look}</span>
      </div>
      <div role="gridcell" class="cut">
        <div class="name">
          <a class="cut" href={href({ job: id })} tabIndex={-1} title={job.title ?? job.job_type}>
            {job.job_type} {job.title}
          </a>
          <code title={id}>{shortId(id)}</code>
        </div>
        <div class={`message cut${job.status === "failed" ? " bad" : ""}`} title={job.message}>
          {messageOf(job, at)}
        </div>
      </div>
      <div role="gridcell" class="how-far">
        <Bar job={job} />
        <span class="right">
          {left !== null && left !== "unknown" && <span class="left">{left.split(" ").slice(0, 2).join(" ")}</span>}
          {percent(job.progress)}%
        </span>
      </div>
      <div role="gridcell" class="times">
        {left === null ? "" : left === "unknown" || left === "a moment" ? left : `about ${left}`}
      </div>
      <div role="gridcell" class="times wide">
        {between(job.started_at, job.completed_at, ticking ? at : 0)}
      </div>
      <div role="gridcell" class="times wide" title={`${localTime(job.created_at)} · ${utcTime(job.created_at)}`}>
        {ago(job.created_at, at)}
      </div>
    </div>
  );
}
