/** A job in one line: type, progress bar and time left; below it the reason of a stall. */
import { now } from "../live/clock";
import { pageAt } from "../shell/address";
import { plain } from "../text/plain";
import { remaining } from "../text/time";
import type { Row } from "../wire/types";
import { StatusIcon } from "./icons";
import { Link } from "./link";
import { Bar, Left } from "./progress";
import { progressText } from "../text/progress";

export function Mini({ row }: { row: Row }) {
  const rest = remaining(row, now.value);
  return (
    <Link class="mini" to={pageAt("jobs", { job: row.job_id, q: "", tab: "all" })}>
      <span class="cut">
        {row.job_type} <bdi class="muted">{plain(row.title ?? "")}</bdi>
      </span>
      <Bar job={row} />
      <span class="muted right">
        {row.stalled ? <Stalled /> : rest === null ? progressText(row) : <Left rest={rest} />}
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
