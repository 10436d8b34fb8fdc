/** Schedules: when they are due, their next ticks, and buttons to pause, resume and fire them. */
import { now } from "../live/clock";
import { StatusIcon } from "../parts/icons";
import { Link } from "../parts/link";
import { useAction } from "../shell/action";
import { pageAt } from "../shell/address";
import { mayWrite } from "../shell/session";
import { showToast } from "../shell/toasts";
import { ago, formatCount, localTime, statedDuration, utcTime } from "../text/time";
import { call } from "../wire/api";
import type { JobRecord, Schedule, ScheduleList } from "../wire/types";
import { usePolled } from "./polled";
import { Waiting } from "./placeholder";

const PAUSED: Record<string, string> = {
  user: "paused",
  undeclared: "paused: no worker has declared it for 24 h",
  key_ended: "paused: the API key that made it has ended",
};

export function SchedulesPage() {
  const found = usePolled<ScheduleList>("schedules", {}, 5000);
  const schedules = found.value.value?.schedules ?? [];
  return (
    <main class="main">
      <div class="sheet">
        <h1>Schedules</h1>
        <Waiting of={found} />
        {found.value.value !== null && schedules.length === 0 && (
          <p class="muted">
            No schedules. Declare one with <code>jobs.schedule(…)</code> or <code>milepost schedule add</code>.
          </p>
        )}
        <ul class="groups">
          {schedules.map((one) => (
            <ScheduleItem key={one.name} schedule={one} again={found.again} />
          ))}
        </ul>
      </div>
    </main>
  );
}

const when = (one: Schedule): string => (one.every === null ? `${one.cron ?? ""} ${one.tz}` : `every ${statedDuration(one.every * 1000)}`);

function ScheduleItem({ schedule, again }: { schedule: Schedule; again: () => Promise<void> }) {
  const at = now.value;
  return (
    <li class="card panel">
      <header>
        <div>
          <h2>
            <Link to={pageAt("jobs", { q: `schedule:${schedule.name}`, tab: "all" })}>{schedule.name}</Link>
            {schedule.paused !== null && (
              <span class="chip of-stalled">
                <StatusIcon look="pending" /> {PAUSED[schedule.paused] ?? schedule.paused}
              </span>
            )}
            {schedule.overridden && <span class="chip">overridden</span>}
          </h2>
          <p class="muted small">
            <code>{when(schedule)}</code> · {schedule.job_type} · {formatCount(schedule.fired)} fired
            {schedule.skipped > 0 && <> · {formatCount(schedule.skipped)} skipped</>}
          </p>
        </div>
        <Actions schedule={schedule} again={again} />
      </header>
      <div class="small">
        {schedule.last_at !== null && (
          <p class="muted">
            Last tick <span title={utcTime(schedule.last_at)}>{ago(schedule.last_at, at)}</span>
            {schedule.last_job_id !== null && (
              <>
                {" · "}
                <Link to={pageAt("job", { job: schedule.last_job_id })}>{schedule.last_job_id}</Link>
              </>
            )}
          </p>
        )}
        {schedule.upcoming.length > 0 && (
          <>
            <p class="muted">Next ticks</p>
            <ol class="ticks" aria-label={`Next ticks of ${schedule.name}`}>
              {schedule.upcoming.map((tick) => (
                <li key={tick} title={utcTime(tick)}>
                  {localTime(tick)}
                </li>
              ))}
            </ol>
          </>
        )}
      </div>
    </li>
  );
}

function Actions({ schedule, again }: { schedule: Schedule; again: () => Promise<void> }) {
  const { busy, run } = useAction();
  if (!mayWrite.value) return null;
  const act = async (verb: "pause" | "resume" | "fire"): Promise<void> => {
    const answer = await call<JobRecord>("POST", `schedules/${encodeURIComponent(schedule.name)}/${verb}`);
    if (verb === "fire") showToast(`Job ${answer.job_id} created`);
    await again();
  };
  const pauses = schedule.paused === null ? "pause" : "resume";
  return (
    <div class="actions">
      <button type="button" class="button" disabled={busy.value} onClick={() => run(() => act("fire"))}>
        Fire now
      </button>
      <button type="button" class="button" disabled={busy.value} onClick={() => run(() => act(pauses))}>
        {pauses === "pause" ? "Pause" : "Resume"}
      </button>
    </div>
  );
}
