// milepost-watch.js: shows one job live on your own page. No dependencies.
//
//   import { watchJob } from "/api/milepost-watch.js";
//   const stop = watchJob("/api", jobId, { onChange(job) { bar.value = job.progress; }, onEnd(job) { ... } });
//
// `job` has job_id, status, progress, message and the rest of the record; `onEvent` gets each event as it comes.
// The browser reconnects automatically and resumes; pass a share token as `options.share`.

const PAUSE = 2000;

export function watchJob(api, jobId, options = {}) {
  const { onChange = () => {}, onEvent = () => {}, onEnd = () => {}, onError = () => {}, share } = options;
  const base = `${String(api).replace(/\/$/, "")}/jobs/${encodeURIComponent(jobId)}`;
  const query = share ? `?share=${encodeURIComponent(share)}` : "";
  let job = { job_id: jobId };
  let position = ""; // the id of the newest message: version and creation time of the job
  let source = null;
  let stopped = false;
  let asking = false;
  let timer;

  const take = (event, id) => {
    if (stopped) return;
    // The job was deleted and recreated: discard what is known of the old one.
    if (position && position.split("-")[1] !== id.split("-")[1]) job = { job_id: jobId };
    position = id;
    // Ignore events older than the record that was read while the stream was closed.
    if (event.kind === "snapshot" || !(event.version <= job.version)) {
      job = { ...job, version: event.version };
      for (const name of ["status", "progress", "message"]) if (name in event) job[name] = event[name];
      if (event.data) for (const name of ["error", "eta", "stages", "stalled", "attempt", "worker"])
        if (name in event.data) job[name] = event.data[name];
    }
    onEvent(event);
    onChange(job);
  };
  const isOver = ({ status, receipt }) =>
    ["completed", "failed", "cancelled"].includes(status) && !(receipt && receipt.confirmed === null);
  // The stream is closed: by its `end` event (`ended`), or by a response that the browser neither retries nor exposes.
  const finish = async (ended) => {
    if (stopped || asking) return;
    asking = true;
    source.close();
    let over = ended;
    try {
      const answer = await fetch(base + query, { headers: { Accept: "application/json" } });
      if (answer.ok) {
        job = await answer.json();
        over ||= isOver(job);
      } else if (answer.status < 500 && answer.status !== 429) {
        over = true;
        if (!job.status) job = { ...job, error: (await answer.json()).detail }; // refused: there is no record to show
      }
    } catch { /* the server is unavailable; show the last known state */ }
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
  const kinds = ["snapshot", "created", "running", "progress", "stage", "log", "output", "checkpoint", "step", "stalled",
    "retrying", "ready", "released", "suspended", "asked", "answered", "paused", "resumed", "closed", "completed", "failed",
    "cancelled", "receipt", "deleted", "skipped"];
  const open = () => {
    const after = position ? `${query ? "&" : "?"}after=${position}` : "";
    source = new EventSource(`${base}/events${query}${after}`);
    for (const kind of kinds) source.addEventListener(kind, (message) => {
      const event = JSON.parse(message.data);
      if (kind === "skipped") onEvent(event); else take(event, message.lastEventId);
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
