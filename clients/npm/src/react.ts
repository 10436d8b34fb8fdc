/** A React hook for one job. All hooks of a page share one connection. */
import { useEffect, useState } from "react";
import { watchJob, type Job, type Options } from "./index";

export interface JobState {
  /** The job; null until the server has answered. */
  job: Job | null;
  /** Whether the job does not exist, was deleted, or may not be seen. */
  isMissing: boolean;
}

const UNKNOWN: JobState = { job: null, isMissing: false };

/** Returns a job, live. A null id watches nothing. */
export function useJob(id: string | null, { api, share }: Options = {}): JobState {
  const [state, setState] = useState(UNKNOWN);
  useEffect(() => {
    setState(UNKNOWN);
    if (id === null) return;
    const listener = {
      onChange: (job: Job) => setState({ job, isMissing: false }),
      onMissing: () => setState({ job: null, isMissing: true }),
    };
    return watchJob(id, listener, { ...(api !== undefined && { api }), ...(share !== undefined && { share }) });
  }, [id, api, share]);
  return state;
}
