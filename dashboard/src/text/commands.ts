/** The same with other means: what one types for what one sees. */
import { apiBase, apiUrl, jobPath } from "../wire/api";
import type { JobRecord } from "../wire/types";

/** For a POSIX shell: as it is where nothing in it is special, else in single quotes. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const server = (): string => apiBase.href.replace(/\/api\/$/, "");

export function asCli(job: Pick<JobRecord, "job_id" | "status">): string {
  const verb = job.status === "pending" || job.status === "running" ? "watch" : "show";
  return `milepost --url ${quoted(server())} ${verb} ${quoted(job.job_id)}`;
}

export const asCurl = (job: Pick<JobRecord, "job_id">): string =>
  `curl ${quoted(apiUrl(jobPath(job.job_id)).href)}`;

export const filterAsCli = (filter: string): string =>
  `milepost --url ${quoted(server())} ls${filter === "" ? "" : ` ${quoted(filter)}`}`;
