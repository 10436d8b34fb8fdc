// milepost-watch.js: shows one job live on a page of yours. No dependencies.
//
//   import { watchJob } from "/api/milepost-watch.js";
//   const stop = watchJob("/api", jobId, { onChange(job) { bar.value = job.progress; }, onEnd(job) { ... } });
//
// `job` has job_id, status, progress, message and the rest of the record; `onEvent` gets each event as it comes.
// The browser reconnects by itself and resumes where it was; a share token goes into `options.share`.

const PAUSE = 2000;

export function watchJob(api, jobId, options = {}) {
  const { onChange = () => {}, onEvent = () => {}, onEnd = () => {}, onError = () => {}, share } = options;
  const base = `${String(api).replace(/\/$/, "")}/jobs/${encodeURIComponent(jobId)}`;
  const query = share ? `?share=${encodeURIComponent(share)}` : "";
  let job = { job_id: jobId };
  let source = null;
  let stopped = false;
  let asking = false;
  let timer;

  const take = (event) => {
    if (stopped) return;
    job = { ...job, version: event.version };
    for (const name of ["status", "progress", "message"]) if (name in event) job[name] = event[name];
    if (event.data) for (const name of ["error", "eta", "stages", "stalled", "attempt", "worker"])
      if (name in event.data) job[name] = event.data[name];
    onEvent(event);
    onChange(job);
  };
  const isOver = ({ status, receipt }) =>
    ["completed", "failed", "cancelled"].includes(status) && !(receipt && receipt.confirmed === null);
  // The stream is closed: by its `end` (`told`), or by an answer that the browser does not try again, and does not show.
  const finish = async (told) => {
    if (stopped || asking) return;
    asking = true;
    source.close();
    let over = told;
    try {
      const answer = await fetch(base + query, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        job = await answer.json();
        over ||= isOver(job);
      } else if (answer.status < 500 && answer.status !== 429) over = true;
    } catch { /* nobody answers; the last state that was seen is told */ }
    asking = false;
    if (stopped) return;
    onChange(job);
    if (over) {
      stop();
      onEnd(job);
    } else {
      onError();
      timer = setTimeout(open, PAUSE * (0.5 + Math.random()));
    }
  };
  const kinds = ["snapshot", "created", "running", "progress", "stage", "log", "checkpoint", "stalled", "retrying",
    "released", "completed", "failed", "cancelled", "receipt", "deleted", "skipped"];
  const open = () => {
    const after = job.version === undefined ? "" : `${query ? "&" : "?"}after=${job.version}`;
    source = new EventSource(`${base}/events${query}${after}`);
    for (const kind of kinds) source.addEventListener(kind, (message) => {
      const event = JSON.parse(message.data);
      if (kind === "skipped") onEvent(event); else take(event);
    });
    source.addEventListener("end", () => finish(true));
    source.onerror = () => {
      // CLOSED: the answer was 204 (nothing will follow), 404 or 401; or 503, or a proxy's 502, and it is tried again.
      if (source.readyState === EventSource.CLOSED) finish(false); else onError();
    };
  };
  const stop = () => { stopped = true; clearTimeout(timer); if (source) source.close(); };
  open();
  return stop;
}
