/** The budget of a job: what the job and its descendants have spent of it, and what happens once it is spent. */
import { plain } from "../text/plain";
import { formatAmount } from "../text/time";
import { get, jobPath } from "../wire/api";
import { isEnded, type JobRecord, type JobUsage } from "../wire/types";
import { useRepeated } from "./members";

export function Budget({ shown }: { shown: JobRecord }) {
  const read = (): Promise<JobUsage> => get<JobUsage>(jobPath(shown.job_id, "/usage"));
  const found = useRepeated(shown, read, ({ budget }) => Object.keys(budget).length === 0);
  if (found === null || Object.keys(found.budget).length === 0) return null;
  return (
    <section class="section" aria-label="Budget">
      <h2>Budget</h2>
      {Object.entries(found.budget).map(([name, limit]) => {
        const spent = found.total[name] ?? 0;
        const below = found.descendants[name] ?? 0;
        return (
          <p key={name}>
            <progress max={limit || 1} value={Math.min(spent, limit)} aria-label={plain(`Spent ${name}`)} />{" "}
            {plain(`${formatAmount(spent)} of ${formatAmount(limit)} ${name} spent`)}
            {below > 0 && `, ${formatAmount(below)} of it by its descendants`}
          </p>
        );
      })}
      {!isEnded(shown.status) && (
        <p class="muted">Once it is spent, the job {found.on_budget === "ask" ? "asks a person to raise it" : "fails"}</p>
      )}
    </section>
  );
}
