/** A job in one line: its type, its bar, and what is left. */
import { now } from "../live/clock";
import { pageAt } from "../shell/address";
import { percent, timeLeft } from "../text/time";
import type { Row } from "../wire/types";
import { StatusIcon } from "./icons";
import { Link } from "./link";
import { Bar } from "./progress";

export function Mini({ row }: { row: Row }) {
  const left = row.stalled ? "stalled" : timeLeft(row.eta, now.value);
  return (
    <Link class="mini" to={pageAt("jobs", { job: row.job_id, q: "", tab: "all" })}>
      <span class="cut">
        {row.job_type} <span class="muted">{row.stalled ?? row.title}</span>
      </span>
      <Bar job={row} />
      <span class="muted right">
        {left === null ? `${percent(row.progress)}%` : left === "stalled" ? <Stalled /> : left === "a moment" ? left : `about ${left}`}
      </span>
    </Link>
  );
}

function Stalled() {
  return (
    <span class="chip of-stalled">
      <StatusIcon look="stalled" /> {" stalled"}
    </span>
  );
}
