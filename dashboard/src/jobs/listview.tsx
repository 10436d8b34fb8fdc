/** The windowed list: a grid with keyboard navigation, the selection above it, and a button for held-back jobs. */
import { useEffect, useRef } from "preact/hooks";
import { go, place } from "../shell/address";
import { isPhone } from "../shell/layout";
import { useWindow } from "../parts/windowed";
import { formatCount } from "../text/time";
import { BulkBar } from "./bulk";
import { Empty } from "./empty";
import { hasMore, loading, loadMore, order, problem, release, shown, total, waiting, withUsage } from "./list";
import { JobRow } from "./row";
import { cursor, pointerInside, scrolled, selecting } from "./selection";

const ROW = 56;
const HEAD = 36;
const AHEAD = 40;

export function ListView() {
  const scroll = useRef<HTMLDivElement>(null);
  const ids = shown.value;
  const phone = isPhone.value;
  const virtual = useWindow(scroll, ids.length, ROW, phone ? 0 : HEAD);
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;

  useEffect(() => {
    if (hasMore() && last >= ids.length - AHEAD) void loadMore();
  }, [last, ids.length]);

  // The focused row is kept in view. A job that was opened by a link is scrolled to once.
  const at = cursor.value;
  useEffect(() => {
    if (at === null) return;
    const index = shown.peek().indexOf(at);
    if (index >= 0) virtual.scrollToIndex(index, { align: "auto" });
  }, [at]);
  useEffect(
    () => () => {
      scrolled.value = false;
      pointerInside.value = false;
    },
    [],
  );

  const drawn = at !== null && items.some((item) => ids[item.index] === at);
  const known = total.value;
  return (
    <section
      class={`list card${selecting.value ? " selecting" : ""}${withUsage.value ? " with-usage" : ""}`}
      aria-label="Jobs"
      onPointerEnter={(event) => (pointerInside.value = event.pointerType === "mouse")}
      onPointerLeave={() => (pointerInside.value = false)}
    >
      <BulkBar />
      {waiting.value.size > 0 && (
        <div class="above">
          <button
            type="button"
            class="button new-jobs"
            onClick={() => {
              scroll.current?.scrollTo({ top: 0 });
              release();
            }}
          >
            {waiting.value.size === 1 ? "1 new job" : `${formatCount(waiting.value.size)} new jobs`}
          </button>
        </div>
      )}
      <div
        ref={scroll}
        id="grid"
        class="grid"
        role="grid"
        aria-label="Jobs, newest first"
        aria-multiselectable="true"
        aria-busy={loading.value}
        aria-rowcount={known?.exact === true && !hasMore() ? ids.length + 1 : known?.exact === true ? known.count + 1 : -1}
        aria-colcount={withUsage.value ? 7 : 6}
        tabIndex={0}
        {...(drawn ? { "aria-activedescendant": `row-${at}` } : {})}
        onScroll={(event) => (scrolled.value = event.currentTarget.scrollTop > 4)}
      >
        <div class="row head" role="row" aria-rowindex={1}>
          <span role="columnheader">
            <span class="unseen">Status</span>
          </span>
          <span role="columnheader">Job</span>
          <span role="columnheader">Progress</span>
          <span role="columnheader" class="right">Time left</span>
          {withUsage.value && (
            <span role="columnheader" class="right times usage">
              Usage
            </span>
          )}
          <span role="columnheader" class="right times wide">Duration</span>
          <span role="columnheader" class="right times wide">Created</span>
        </div>
        {ids.length === 0 ? (
          <Empty />
        ) : (
          <div class="window" role="rowgroup" style={{ height: `${virtual.getTotalSize() - (phone ? 0 : HEAD)}px` }}>
            {items.map((item) => {
              const id = ids[item.index];
              if (id === undefined) return null;
              return <JobRow key={id} id={id} index={item.index} top={item.start - (phone ? 0 : HEAD)} open={openJob} />;
            })}
          </div>
        )}
      </div>
      {order.value.length > 0 && (
        <div class="foot small muted">
          <span>{known === null ? "" : `${known.exact ? "" : "at least "}${formatCount(known.count)} ${known.count === 1 ? "job" : "jobs"}`}</span>
          {problem.value !== null && <span>{problem.value.detail}</span>}
        </div>
      )}
    </section>
  );
}

/** Opens a job beside the list; null closes the one that is open. */
export function openJob(id: string | null): void {
  const { page, job } = place.peek();
  if (id === null) return go({ job: null, part: null });
  cursor.value = id;
  // The palette opens a job on any page; it is shown on this one.
  go({ page: "jobs", type: null, job: id, part: null }, { replace: page === "jobs" && job !== null });
}
