/** Commands and code with the same effect as an action of the page. */
import { apiBase, apiUrl, jobPath } from "../wire/api";
import type { JobRecord } from "../wire/types";

/** A text for a POSIX shell: in single quotes if it contains special characters. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const server = (): string => apiBase.href.replace(/\/api\/$/, "");

export function asCli(job: Pick<JobRecord, "job_id" | "status">): string {
  const verb = job.status === "pending" || job.status === "running" ? "watch" : "show";
  return `milepost --url ${quoted(server())} ${verb} ${quoted(job.job_id)}`;
}

/** A command with a key in the environment, if the server requires one. */
export const asCurl = (job: Pick<JobRecord, "job_id">, keyed: boolean): string =>
  `curl ${keyed ? '-H "Authorization: Bearer $MILEPOST_KEY" ' : ""}${quoted(apiUrl(jobPath(job.job_id)).href)}`;

export const asPython = (job: Pick<JobRecord, "job_id">, keyed: boolean): string =>
  `from milepost.client import Client

client = Client(${JSON.stringify(server())})${keyed ? "  # the key comes from MILEPOST_KEY" : ""}
job = client.get_job(${JSON.stringify(job.job_id)})
print(job.status, job.activity)`;

/** The command that submits a job with the same parameters; secret ones are left for the reader to fill in. */
export function asSubmit(job: Pick<JobRecord, "job_type" | "params">): string {
  const params = typeof job.params === "object" && job.params !== null ? Object.entries(job.params) : [];
  const words = params.map(([name, value]) => quoted(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`));
  return [`milepost --url ${quoted(server())} submit`, quoted(job.job_type), ...words].join(" ");
}

/** A term of the filter. */
export const filterTerm = (field: string, value: string): string => `${field}:${/[\s"]/.test(value) ? JSON.stringify(value) : value}`;
export const typeFilter = (name: string): string => filterTerm("type", name);

export const filterAsCli = (filter: string): string =>
  `milepost --url ${quoted(server())} ls${filter === "" ? "" : ` ${quoted(filter)}`}`;
