// milepost-watch.js: shows one job live on a page of yours. No dependencies.
//
//   import { watchJob } from "/api/milepost-watch.js";
//   const stop = watchJob("/api", jobId, { onChange(job) { bar.value = job.progress; }, onEnd(job) { ... } });
//
// `job` has job_id, status, progress, message and the rest of the record; `onEvent` gets each event as it comes.
// The browser reconnects by itself and resumes where it was; a share token goes into `options.share`.

export function watchJob(api, jobId, options = {}) {
  const { onChange = () => {}, onEvent = () => {}, onEnd = () => {}, onError = () => {}, share } = options;
  const base = `${String(api).replace(/\/$/, "")}/jobs/${encodeURIComponent(jobId)}`;
  const query = share ? `?share=${encodeURIComponent(share)}` : "";
  let job = { job_id: jobId };
  let source = null;
  let stopped = false;

  const take = (event) => {
    if (stopped) return;
    job = { ...job, version: event.version };
    for (const name of ["status", "progress", "message"]) if (name in event) job[name] = event[name];
    if (event.data) for (const name of ["error", "eta", "stages", "stalled", "attempt", "worker"])
      if (name in event.data) job[name] = event.data[name];
    onEvent(event);
    onChange(job);
  };
  const finish = async () => {
    if (stopped) return;
    stop();
    try {
      const answer = await fetch(base + query, { headers: { Accept: "application/json" } });
      if (answer.ok) job = await answer.json();
    } catch { /* the last state that was seen is told */ }
    onChange(job);
    onEnd(job);
  };
  const kinds = ["snapshot", "created", "running", "progress", "stage", "log", "checkpoint", "stalled", "retrying",
    "released", "completed", "failed", "cancelled", "receipt", "deleted", "skipped"];
  const open = () => {
    source = new EventSource(`${base}/events${query}`);
    for (const kind of kinds) source.addEventListener(kind, (message) => {
      const event = JSON.parse(message.data);
      if (kind === "skipped") onEvent(event); else take(event);
    });
    source.addEventListener("end", finish);
    source.onerror = () => {
      // CLOSED means that the server answered 204 (nothing will follow), 404 or 401: the browser will not try again.
      if (source.readyState === EventSource.CLOSED) finish(); else onError();
    };
  };
  const stop = () => { stopped = true; if (source) source.close(); };
  open();
  return stop;
}
