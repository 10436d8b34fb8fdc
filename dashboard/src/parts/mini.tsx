/** A job in one line: its type, its bar, and what is left; why it stalls comes below. */
import { now } from "../live/clock";
import { pageAt } from "../shell/address";
import { percent, timeLeft } from "../text/time";
import type { Row } from "../wire/types";
import { StatusIcon } from "./icons";
import { Link } from "./link";
import { Bar } from "./progress";

export function Mini({ row }: { row: Row }) {
  const left = timeLeft(row.eta, now.value);
  return (
    <Link class="mini" to={pageAt("jobs", { job: row.job_id, q: "", tab: "all" })}>
      <span class="cut">
        {row.job_type} <span class="muted">{row.title}</span>
      </span>
      <Bar job={row} />
      <span class="muted right">
        {row.stalled ? <Stalled /> : left === null ? `${percent(row.progress)}%` : left === "a moment" ? left : `about ${left}`}
      </span>
      {row.stalled && <span class="why muted small">{row.stalled}</span>}
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
